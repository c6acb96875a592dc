"""Captions of the sample's clips: varied wording that names every attribute of a combination.

The phrases of two values of one attribute never contain each other, so a caption can be read back.
"""

from __future__ import annotations

import numpy as np

from .clips import Combination

PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "colour": {
        "red": ("red", "scarlet", "crimson"),
        "orange": ("orange", "tangerine"),
        "yellow": ("yellow", "lemon"),
        "green": ("green", "emerald"),
        "cyan": ("cyan", "turquoise"),
        "blue": ("blue", "azure"),
        "purple": ("purple", "violet"),
        "white": ("white", "snowy"),
    },
    "shape": {
        "circle": ("circle", "disc", "ball"),
        "square": ("square", "box"),
        "triangle": ("triangle", "wedge"),
        "diamond": ("diamond", "rhombus"),
        "star": ("star", "starlet"),
    },
    "movement": {
        "left": ("moves left", "slides to the left", "drifts leftwards"),
        "right": ("moves right", "slides to the right", "drifts rightwards"),
        "up": ("moves up", "climbs", "floats upwards"),
        "down": ("moves down", "sinks", "drops downwards"),
        "still": ("stays in place", "stands still", "does not move"),
        "round": ("goes round in a circular path", "orbits", "runs around in a loop"),
    },
    "change": {
        "grow": ("grows", "gets bigger", "swells"),
        "shrink": ("shrinks", "gets smaller", "dwindles"),
        "blink": ("blinks", "flashes", "flickers"),
        "same": ("keeps its size", "remains unchanged", "looks the same throughout"),
    },
    "tone": {
        "rise": ("a rising tone", "a note whose pitch increases", "an ascending sound"),
        "fall": ("a falling tone", "a note whose pitch decreases", "a descending sound"),
        "pulse": ("a pulsing tone", "a series of beeps", "an intermittent sound"),
        "steady": ("a steady tone", "a constant note", "an even hum"),
        "silent": ("silence", "no audio", "nothing to hear"),
    },
}
TEMPLATES = (
    "a {colour} {shape} {movement} and {change} with {tone}.",
    "{article} {colour} {shape} that {change} and {movement}, with {tone}",
    "with {tone}, a {colour} {shape} {change} while it {movement}.",
    "{tone}: the {shape} is {colour}, it {movement} and {change}.",
    "the {colour} {shape} {movement}; it {change}; there is {tone}",
    "there is {tone} as a {shape} in {colour} {change} and {movement}.",
    "video of a {shape}, {colour}, which {movement} and {change}, and {tone}.",
)
ARTICLES = ("one", "some", "the")


def caption(combination: Combination, rng: np.random.Generator) -> str:
    """Draw one sentence that describes a clip of this combination."""
    words = {
        attribute: rng.choice(PHRASES[attribute][value])
        for attribute, value in combination._asdict().items()
    }
    text = rng.choice(TEMPLATES).format(article=rng.choice(ARTICLES), **words)
    return text[0].upper() + text[1:]


def words() -> set[str]:
    """All words and punctuation marks of captions, in lower case, which a vocabulary must cover."""
    phrases = [p for values in PHRASES.values() for options in values.values() for p in options]
    blank = dict.fromkeys((*PHRASES, "article"), " ")
    text = " ".join([*phrases, *ARTICLES, *(t.format(**blank) for t in TEMPLATES)])
    for mark in ",.;:":
        text = text.replace(mark, f" {mark} ")
    return set(text.lower().split())

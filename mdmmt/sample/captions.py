"""What people write about the sample's clips: full captions, and queries that name a part of it.

A caption names every attribute of a combination, a query some of them. The phrases of two values of
one attribute never contain each other, so a caption can be read back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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

# Further forms of the same values, which only queries have.
PARTICIPLES: dict[str, dict[str, tuple[str, ...]]] = {
    "movement": {
        "left": ("moving left", "going to the left", "drifting leftwards", "leftward"),
        "right": ("moving right", "going to the right", "drifting rightwards", "rightward"),
        "up": ("moving up", "climbing", "floating upwards", "upward", "going up"),
        "down": ("moving down", "sinking", "dropping downwards", "downward", "going down"),
        "still": ("staying in place", "standing still", "not moving", "motionless", "stationary"),
        "round": ("going round in a loop", "orbiting", "running around in a loop", "circling"),
    },
    "change": {
        "grow": ("growing", "getting bigger", "swelling", "getting larger"),
        "shrink": ("shrinking", "getting smaller", "dwindling"),
        "blink": ("blinking", "flashing", "flickering"),
        "same": ("keeping its size", "unchanged", "looking the same throughout", "constant size"),
    },
}
SOUNDS: dict[str, tuple[str, ...]] = {
    "rise": ("rising tone", "rising sound", "rising pitch", "ascending tone"),
    "fall": ("falling tone", "falling sound", "falling pitch", "descending tone"),
    "pulse": ("pulsing tone", "beeps", "beeping", "intermittent beep", "pulsing sound"),
    "steady": ("steady tone", "constant tone", "steady hum", "steady sound", "even note"),
    "silent": ("silence", "silent", "no sound", "without sound", "no tone", "quiet"),
}
WITH_SOUND = ("{} with {}", "{} and {}", "{}, {}", "{} while you hear {}")
SOUND_ALONE = ("{}", "{}", "with {}", "there is {}", "you hear {}")
COLOUR_AFTER = (" in {}", " that is {}", ", {},", " of {} colour", " painted {}", " coloured {}")
QUERY_ARTICLES = ("a", "a", "a", "the", "one", "some", "any", "")
THINGS = ("thing", "object", "shape", "figure", "one", "item", "something", "something", "anything")
WRAPPERS = (
    "show me {}",
    "find {}",
    "find me {}",
    "where is {}?",
    "is there {}?",
    "{}, please",
    "a video of {}",
    "video of {}",
    "clips with {}",
    "a clip with {}",
    "the clip of {}",
    "a scene with {}",
    "i want to see {}",
    "which clip has {}?",
    "which video shows {}?",
    "what has {}?",
    "can i see {}?",
    "give me all videos that show {}",
    "there is {}",
    "we see {}",
    "you can see {} in this video",
    "{} in the picture",
    "{} on a dark background",
    "play a film in which you see {}",
    "a short animation showing {}",
    "display the frames that feature {}",
    "select everything that includes {}",
    "how many clips show {}?",
    "are there files with {} here?",
    "could you show us {}",
    "where does {} appear?",
    "when can we watch {}?",
    "the moment of {}",
    "footage: {}",
    "list {}",
    "let me watch {}",
    "locate {}",
)
FILLED = 0.5  # share of the queries without a wrapper that have filling words around them
FILLERS = """
kindly hello okay hi fetch bring seek seeking pick choose return retrieve obtain spot identify
detect view viewing observe describe those these whichever sample example segment portion section
material content result hit entry library archive collection database folder today quickly really
just only exactly perhaps maybe similar kind sort type somewhere visible audible depicting
containing having holding presenting our your my would should will may might want wanted wish like
must try trying tell point us about concerning regarding for at to of me mostly sees shown displayed
given found available stored hopefully simply instantly immediately soon after again all already
also always am among another anyone are ask asking back be been before begin being below best better
between both but call certain check clear come current did does done during each easily either else
enough ever except first following from full further give go good great had has he help him how
however if important include included including instead into kept know last later least likely long
made mainly make many mark matter mean more much name near necessary never next nice none often open
or order other others own particular past possible present probably question quite rather ready
recent request require say see seem send several she short side since single so start such suggest
supply sure take than thank thanks their them then they think this time together top total toward
turn until upon use used useful user using usual very was way well were what when whether who why
within work yes yet
"""
LINKS = ("with", "and", "that", "which", "while")
LISTED = 0.6  # share of filling words that are of the list; others are put together from two
CAPITAL = 0.3
PLAIN = 0.65  # share of the other queries without a wrapper
KEYWORDS = 0.12  # share of the queries that list words only


def caption(combination: Combination, rng: np.random.Generator) -> str:
    """Draw one sentence that describes a clip of this combination."""
    words = {
        attribute: rng.choice(PHRASES[attribute][value])
        for attribute, value in combination._asdict().items()
    }
    text = rng.choice(TEMPLATES).format(article=rng.choice(ARTICLES), **words)
    return text[0].upper() + text[1:]


def query(values: Mapping[str, str], rng: np.random.Generator) -> str:
    """Draw one query that names these attributes of a clip, such as {"colour": "red"}."""
    if rng.uniform() < KEYWORDS:
        text = _keywords(values, rng)
    else:
        text = _phrase(values, rng)
        if rng.uniform() >= PLAIN:
            text = one_of(WRAPPERS, rng).format(text)
        elif rng.uniform() < FILLED:
            text = _fill(text, rng)
    return text[0].upper() + text[1:] if rng.uniform() < CAPITAL else text


_FILLERS = tuple(FILLERS.split())


def _fill(text: str, rng: np.random.Generator) -> str:
    """Put words around a query that tell nothing about the clip, as people do, or for a link."""
    words = text.split()
    links = [i for i, word in enumerate(words) if word in LINKS]
    if links and rng.uniform() < 0.5:
        words[one_of(links, rng)] = " ".join(_filler(rng) for _ in range(rng.integers(1, 3)))
        text = " ".join(words)
        if rng.uniform() < 0.5:
            return text
    before = " ".join(_filler(rng) for _ in range(rng.integers(1, 4)))
    after = f" {one_of(_FILLERS, rng)}" if rng.uniform() < 0.2 else ""
    return f"{before} {text}{after}"


def _filler(rng: np.random.Generator) -> str:
    if rng.uniform() < LISTED:
        return one_of(_FILLERS, rng)
    a, b = one_of(_FILLERS, rng), one_of(_FILLERS, rng)
    return a[: rng.integers(1, len(a))] + b[rng.integers(1, len(b)) :]


def one_of(options: Sequence[Any], rng: np.random.Generator) -> Any:
    """One of the options, drawn by chance."""
    return options[int(rng.integers(len(options)))]


def _keywords(values: Mapping[str, str], rng: np.random.Generator) -> str:
    """The values by the names that the files of the demo bear, or by their shortest forms."""
    words = []
    for attribute, value in values.items():
        if rng.uniform() < 0.5:
            words.append(value)
        elif attribute == "tone":
            words.append(one_of(SOUNDS[value], rng))
        else:
            words.append(one_of(PARTICIPLES.get(attribute, PHRASES[attribute])[value], rng))
    if rng.uniform() < 0.5:
        rng.shuffle(words)
    return one_of((" ", " ", ", "), rng).join(words)


def _phrase(values: Mapping[str, str], rng: np.random.Generator) -> str:
    """A noun phrase, a clause or a sentence."""
    doing = [name for name in ("movement", "change") if name in values]
    if rng.uniform() < 0.5:
        doing.reverse()
    before = ""
    if "change" in doing and rng.uniform() < 0.25 and values["change"] != "same":
        doing.remove("change")
        before = one_of(PARTICIPLES["change"][values["change"]], rng)
        if " " in before:
            before = before.split()[-1]
    seen = "colour" in values or "shape" in values or bool(before)
    text = _noun(values, before, rng) if seen or (doing and rng.uniform() < 0.7) else ""
    if doing:
        participle = rng.uniform() < 0.5
        forms = PARTICIPLES if participle else PHRASES
        clause = one_of((" and ", " while ", ", "), rng) if participle else " and "
        clause = clause.join(one_of(forms[name][values[name]], rng) for name in doing)
        link = (
            one_of((" ", " ", ", "), rng) if participle else one_of((" that ", " which ", " "), rng)
        )
        text = text + link + clause if text else clause
    if "tone" in values:
        sound = _sound(values["tone"], rng)
        if text:
            text = one_of(WITH_SOUND, rng).format(text, sound)
        else:
            text = one_of(SOUND_ALONE, rng).format(sound)
    return text


def _noun(values: Mapping[str, str], before: str, rng: np.random.Generator) -> str:
    colour = one_of(PHRASES["colour"][values["colour"]], rng) if "colour" in values else ""
    if "shape" in values:
        noun = one_of(PHRASES["shape"][values["shape"]], rng)
        if rng.uniform() < 0.1:
            noun = _plural(noun)
    elif colour and not before and rng.uniform() < 0.3:
        return colour
    else:
        noun = one_of(THINGS, rng)
    after = ""
    if noun in ("something", "anything"):
        return " ".join(filter(None, (noun, before, colour)))
    if colour and rng.uniform() < 0.15:
        after, colour = one_of(COLOUR_AFTER, rng).format(colour), ""
    words = " ".join(filter(None, (before, colour, noun)))
    article = one_of(QUERY_ARTICLES, rng)
    if noun.endswith("s") and article in ("a", "one"):
        article = ""
    if article == "a" and words[0] in "aeiou":
        article = "an"
    return " ".join(filter(None, (article, words))) + after


def _sound(tone: str, rng: np.random.Generator) -> str:
    return one_of(PHRASES["tone"][tone] if rng.uniform() < 0.5 else SOUNDS[tone], rng)


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("x", "s")) else "s")


def words() -> set[str]:
    """All words and punctuation marks of captions and queries, in lower case."""
    blank = dict.fromkeys((*PHRASES, "article"), " ")
    texts = [*ARTICLES, *QUERY_ARTICLES, *THINGS, *(t.format(**blank) for t in TEMPLATES)]
    texts += [*_phrases(), *map(_plural, sum(PHRASES["shape"].values(), ()))]
    texts += [wrapper.format(" ") for wrapper in WRAPPERS]
    text = " ".join([*texts, *(form.format("", "") for form in (*WITH_SOUND, *COLOUR_AFTER))])
    text += " an there is it that which in while , ; : . ?"
    for mark in ",.;:?":
        text = text.replace(mark, f" {mark} ")
    return set(text.lower().split())


def _phrases() -> Iterator[str]:
    for values in (*PHRASES.values(), *PARTICIPLES.values(), SOUNDS):
        for value, options in values.items():
            yield value
            yield from options

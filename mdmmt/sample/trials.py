"""Trials of the sample model: queries and sentences in wordings that training does not have.

A query names one or two attributes of a clip. `OTHER_SENTENCES` are about things no clip shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .captions import PARTICIPLES, PHRASES, SOUNDS, one_of
from .clips import Combination

PLAIN = 0.3  # share of the queries without a wrapper
WRAPPERS = (
    "looking for {}",
    "do you have {}?",
    "please get me {}",
    "search for {}",
    "any recording of {}?",
    "i need {} now",
    "which ones contain {}?",
)
# Of a clip that moves or changes.
DOING = ("something that {f}", "it {f}", "{p}", "things {p}", "everything that {f}", "one {p}")
# c colour, s shape, f finite verb, p participle, f2 and p2 those of a second one, t tone.
FORMS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("colour",): (
        "{c}",
        "something {c}",
        "a {c} one",
        "things whose colour is {c}",
        "whatever is {c}",
    ),
    ("shape",): (
        "a {s}",
        "{s}",
        "every {s}",
        "something like a {s}",
        "drawing of a {s}",
    ),
    ("movement",): DOING,
    ("change",): DOING,
    ("tone",): (
        "{t}",
        "the sound is {t}",
        "hear {t}",
        "i hear {t}",
        "accompanied by {t}",
    ),
    ("colour", "shape"): (
        "a {c} {s}",
        "a {c} {s}",
        "{c} {s}",
        "a {s} tinted {c}",
        "a {s} whose colour is {c}",
        "{s} - {c}",
        "the {c} {s}",
    ),
    ("colour", "movement"): (
        "something {c} that {f}",
        "{c} and {p}",
        "a {c} one {p}",
        "it is {c} and {f}",
        "a {c} one that {f}",
    ),
    ("colour", "change"): (
        "something {c} that {f}",
        "{c} and {p}",
        "a {c} one {p}",
        "it is {c} and {f}",
        "a {c} one that {f}",
    ),
    ("colour", "tone"): (
        "something {c} with {t}",
        "{c}, {t}",
        "{c} plus {t}",
        "a {c} one accompanied by {t}",
    ),
    ("shape", "movement"): (
        "a {s} that {f}",
        "a {s} {p}",
        "the {s} {f}",
        "{p} {s}",
        "{s} as it {f}",
    ),
    ("shape", "change"): (
        "a {s} that {f}",
        "a {s} {p}",
        "the {s} {f}",
        "{p} {s}",
        "{s} as it {f}",
    ),
    ("shape", "tone"): (
        "a {s} with {t}",
        "a {s} and {t}",
        "{t} and a {s}",
        "{s} plus {t}",
        "a {s} accompanied by {t}",
    ),
    ("movement", "change"): (
        "something that {f} and {f2}",
        "it {f2} and {f}",
        "{p} and {p2}",
        "{p2} as it {f}",
    ),
    ("movement", "tone"): (
        "something that {f} with {t}",
        "{p} with {t}",
        "{t} while it {f}",
        "{p} plus {t}",
    ),
    ("change", "tone"): (
        "something that {f} with {t}",
        "{p} with {t}",
        "{t} while it {f}",
        "{p} plus {t}",
    ),
}
WITHOUT_ARTICLE = ("no", "without", "silent", "silence", "quiet", "beeps", "beeping")


def trial_query(values: Mapping[str, str], rng: np.random.Generator) -> str:
    """Draw a query that names one or two attributes, in the order of `Combination`."""
    form = one_of(FORMS[tuple(values)], rng)
    blanks = {
        name[0]: one_of(PHRASES[name][values[name]], rng)
        for name in ("colour", "shape")
        if name in values
    }
    if "tone" in values:
        sounds = (
            sound if sound.split()[0] in WITHOUT_ARTICLE else f"a {sound}"
            for sound in SOUNDS[values["tone"]]
        )
        blanks["t"] = one_of((*PHRASES["tone"][values["tone"]], *sounds), rng)
    doing = [name for name in ("movement", "change") if name in values]
    for name, number in zip(doing, ("", "2"), strict=False):
        blanks[f"f{number}"] = one_of(PHRASES[name][values[name]], rng)
        blanks[f"p{number}"] = one_of(PARTICIPLES[name][values[name]], rng)
    text = form.format(**blanks)
    return text if rng.uniform() < PLAIN else one_of(WRAPPERS, rng).format(text)


def trial_queries(
    combinations: Sequence[Combination], n: int, rng: np.random.Generator
) -> list[tuple[str, dict[str, str]]]:
    """Draw queries, each for one of these clips, and the attributes that they name."""
    kinds = tuple(FORMS)
    drawn = []
    for _ in range(n):
        names = kinds[rng.integers(len(kinds))]
        clip = combinations[int(rng.integers(len(combinations)))]._asdict()
        values = {name: clip[name] for name in names}
        drawn.append((trial_query(values, rng), values))
    return drawn


OTHER_SENTENCES = (
    "a dog",
    "a cat sleeps on the sofa",
    "two children play football in the park",
    "a woman is cooking pasta in a kitchen",
    "a man plays the guitar on stage",
    "cars drive along a busy street at night",
    "waves roll onto a sandy beach",
    "a horse gallops across a meadow",
    "someone is painting a fence",
    "the train arrives at the station",
    "a chef chops onions",
    "people dancing at a wedding",
    "a baby laughs",
    "snow falls on the mountains",
    "an airplane lands at the airport",
    "a girl rides her bicycle to school",
    "birds sing in the forest",
    "a boy kicks a ball into the goal",
    "fireworks above the harbour",
    "a surfer catches a huge wave",
    "my holiday in Italy",
    "the president gives a speech",
    "a teacher writes on the blackboard",
    "a monkey eats a banana",
    "elephants drink water from a river",
    "a tractor ploughs a field",
    "a violinist plays Mozart",
    "how to repair a bicycle tyre",
    "a red car",
    "a blue dress",
    "a green apple on a plate",
    "a yellow taxi waits at the corner",
    "a white rabbit hops through the garden",
    "an orange cat",
    "purple flowers in a vase",
    "a red dog",
    "a black cat climbs a tree",
    "a kitten moves left",
    "a bus moves right",
    "a ship sinks in the ocean",
    "a balloon floats upwards",
    "a monkey climbs a palm",
    "a plane goes down",
    "the moon orbits the earth",
    "a tree grows in the yard",
    "a city grows",
    "a light flickers in the corridor",
    "a lion roars",
    "thunder and rain",
    "a crowd cheers with a rising noise",
    "a singer holds a note",
    "birthday party with cake",
    "doctor examines a patient",
    "tennis match",
    "basketball players",
    "ice skating",
    "climbing Mount Everest",
    "a man with a beard",
    "a lady wearing sunglasses",
    "kids in a swimming pool",
    "a soldier marches",
    "a farmer feeds his chickens",
    "penguins on the ice",
    "a squirrel hides a nut",
    "sharks under water",
    "a butterfly lands on a rose",
    "a spider spins its web",
    "the referee blows the whistle",
    "a nurse bandages an arm",
    "a barber cuts hair",
    "cooking show",
    "how do I bake bread",
    "news about the election",
    "interview with an actor",
    "a trailer of a horror film",
    "a cartoon about a mouse",
    "a wizard casts a spell",
    "minecraft gameplay",
    "a robot vacuums the floor",
    "a drone flies over Paris",
    "unboxing of a new phone",
    "a makeup tutorial",
    "yoga lesson for beginners",
    "gymnast on the beam",
    "boxing fight",
    "wrestlers in the ring",
    "a goalkeeper saves a penalty",
    "a motorcycle race",
    "a helicopter rescues a hiker",
    "firemen put out a fire",
    "police chase a thief",
    "a judge in court",
    "a priest prays in church",
    "tourists visit a temple",
    "a bride throws her bouquet",
    "grandmother knits a sweater",
    "father and son fish at the lake",
    "a couple kisses in the sunset",
    "friends drink beer in a bar",
    "a waiter spills soup",
    "a cup of coffee",
    "a slice of pizza",
    "a bowl of rice",
    "a glass of wine",
    "sushi being prepared",
    "grilling a steak",
    "ice cream in summer",
    "strawberries",
    "a laptop on a desk",
    "a broken window",
    "an old castle",
    "a wooden bridge over a stream",
    "a lighthouse in the storm",
    "desert and camels",
    "jungle with snakes",
    "a volcano erupts",
    "a waterfall",
    "the northern lights",
    "an eclipse",
    "leaves in autumn",
    "cherry blossom",
    "a cow in a barn",
    "pigs",
    "sheep cross the road",
    "a goat jumps over a rock",
    "a parrot talks",
    "a turtle crawls to the sea",
    "dolphins leap",
    "a whale breaches",
    "an octopus opens a jar",
    "a bee collects honey",
    "ants carry sugar",
    "a frog catches a fly",
    "a bear hunts salmon",
    "wolves howl",
    "a tiger sleeps",
    "zebras run",
    "a giraffe stretches its neck",
    "a kangaroo boxes",
    "a panda chews bamboo",
    "a koala",
    "a juggler with torches",
    "a clown makes jokes",
    "a magician pulls a hat",
    "acrobats in the circus",
    "a ballet dancer",
    "hip hop",
    "a choir sings a hymn",
    "drummer solo",
    "a piano concert",
    "a trumpet",
    "orchestra rehearsal",
    "a dj mixes records",
    "a violin and a cello",
    "rap music",
    "a telephone rings",
    "a door slams",
    "footsteps in the hallway",
    "engine of a truck",
    "a siren",
    "glass breaks",
    "applause",
    "typing on a keyboard",
    "a clock ticks",
    "church bells",
    "a crying infant",
    "a barking puppy",
    "whispering",
    "laughter",
    "where is my cat",
    "show me a dog",
    "find a car",
    "is there a bicycle?",
    "a video of a football match",
    "which clip has a horse?",
    "a clip with a woman",
    "a scene with soldiers",
    "find me cooking recipes",
    "can i see the ocean?",
    "what has four legs?",
    "i want to see a movie",
    "we see a bridge",
    "there is a tree",
    "a person",
    "man",
    "woman",
    "house",
    "water",
    "politics",
    "love",
    "Barack Obama",
    "New York",
    "winter",
    "money",
    "machine learning",
    "a graph of share prices",
    "a weather map",
    "a chess game",
    "traffic jam",
    "a letter from grandpa",
)

"""Sentences about other things than the sample's clips, by which the model learns what it is not.

Their words are unlike those of `trials`, so that a trial tells whether new words are known as such.
"""

from __future__ import annotations

import numpy as np

from .captions import PARTICIPLES, PHRASES, WRAPPERS, one_of, words

NOUNS = """
almond anchor antelope apron archer armchair artist attic author avocado badger balcony banjo bank
barrel basket bat beaver belt bench berry bicyclist biscuit bison blanket boiler book boot bottle
bowler branch brick broom brush bucket buffalo builder bull butcher butter button cabbage cabin
cable cactus cage calf camera candle canoe canyon captain carpet carrot carpenter cave cereal
chain chair cheese cheetah chest child chimney chocolate cinema cliff cloud coach coal coast coat
cobra coconut coin comet computer cookie corn cottage cotton couch cousin cowboy crab crane creek
cricket crocodile crow crown cucumber curtain cushion cyclist dentist dinosaur dish diver doll
donkey dragon drawer drum duck eagle ear editor egg elevator emperor engineer envelope eye face
factory fairy falcon family fan farm feather ferry finger fireplace flag flute foal fog foot fork
fountain fox fruit gang garage garlic gate gentleman ghost giant gift glove goose gorilla grape
grass guard guest guide guitarist hamster hammer hare harp hawk hedgehog helmet hen heron hill
hippo hockey honeymoon hospital hotel hunter hut insect iron island jacket jaguar jeep jelly jewel
journalist jug juice kettle key king kite knife knight ladder lamb lamp lawyer leaf leopard
lettuce library lizard lobster log lorry lynx mailman mango market mask mattress meal meat
mechanic melon mermaid merchant microphone milk miner mirror mole moose mosquito moth motor
mountaineer mug museum mushroom musician nail neighbour nest newspaper ninja nose notebook nun oak
oil olive omelette orchard ostrich otter oven owl ox oyster painter palace pancake panther paper
parade parent passenger peach peacock peanut pear pelican pen pepper pianist picnic pie pigeon
pillow pine pineapple pipe pirate plant plum poet pony porridge postman pot potato princess
prisoner pumpkin pupil queen raccoon radio raft railway rat reader rhino ribbon rifle robin roof
rope rug runner saddle sailor salad sand sandwich saucer saxophone scarf scientist scooter
scorpion sculptor seagull shelf shepherd shirt shop shovel shower sister skater ski skull skirt
sledge snail snowman soap sock spoon stable stadium stair stork stove student suitcase swan
swimmer sword table tailor tank tap tea teapot tent theatre toad toast tomato tool tooth tower
towel toy tram trophy trousers tub tulip tunnel turkey twin umbrella uncle uniform valley van
vegetable vulture wagon wall wardrobe warrior watermelon weasel well whiskey wife wing witch wolf
wood workshop worm writer yacht yak zoo office war sport science business nature food travel
"""
VERBS = """
admires answers arranges bathes bends bites boils borrows bows builds burns buys carries cleans
closes combs complains counts cries decorates delivers digs draws dreams dresses dries dusts
enters explains explores fetches fills fixes folds follows fries greets grabs harvests helps hits
hugs irons jogs knocks licks lifts listens locks measures meets melts milks packs paddles peels
picks plants polishes pours presents pushes reads rests roasts rubs saws scratches sells serves
sews shaves shouts shops sits skis smells smiles smokes sneezes sows speaks splashes stirs studies
swims swings teaches tears thinks ties travels trips walks washes watches weighs welds wins works
wraps yawns yells
"""
ADJECTIVES = """
angry ancient beautiful brave bright brown calm careful cheap clean clever cold cute dangerous
dirty dry eager elderly electric empty famous fast fat fluffy fresh friendly funny furry gentle
grey happy heavy hot hungry kind lazy lonely loud lovely lucky modern muddy narrow nervous noisy
pink plastic polite poor pretty proud rare rich rough rusty sad shiny shy silver sleepy slim sour
spotted steep striped strong sweet tall thin tired ugly warm wild wise young golden
"""
PLACES = (
    "at the market",
    "in the garage",
    "on the roof",
    "at home",
    "in a hotel",
    "on the farm",
    "on a bench",
    "in the museum",
    "in the bathroom",
    "at the zoo",
    "in the living room",
    "in class",
    "after dinner",
    "before breakfast",
    "at noon",
    "on Monday",
    "every morning",
    "in the afternoon",
    "in spring",
    "with a hammer",
    "for the guests",
    "with her sister",
    "in London",
    "in Japan",
    "in Africa",
    "over the hill",
    "across the valley",
    "through the tunnel",
    "in space",
    "in a tent",
)
GLUE = (
    "a",
    "the",
    "his",
    "her",
    "my",
    "two",
    "three",
    "many",
    "some",
    "an",
    "one",
    "",
)
# n noun, ns plural, v verb, vs its stem, vi its participle, a adjective, p place, g glue.
FORMS = (
    "{n}",
    "{g} {n}",
    "{g} {n}",
    "{g} {a} {n}",
    "{g} {n} {v}",
    "{g} {n} {v} {g2} {n2}",
    "{g} {a} {n} {v} {p}",
    "{g} {n} {p}",
    "{n} and {n2}",
    "{g} {n} {v} {p}",
    "{v} {g2} {n2}",
    "{vi} {g2} {n2}",
    "{vi}",
    "{vi} {p}",
    "{n} {n2}",
    "how to {vs} {g2} {n2}",
    "{g} {n} is {vi}",
    "{g} {n} with {g2} {n2}",
    "{g} {n} of {g2} {n2}",
    "{a} {ns}",
    "{ns} {p}",
    "{ns}",
    "people {vi} {p}",
    "a man {v} {g2} {n2}",
    "a woman {v}",
    "someone {v} {g2} {n2}",
    "the sound of {g2} {n2}",
    "{a}",
    "{vs}",
)
# Sentences that name an attribute of something else.
MIXED_FORMS = (
    "a {colour} {n}",
    "a {colour} {n}",
    "{colour} {ns}",
    "{colour} {n} {p}",
    "a {n} {movement}",
    "a {n} that {change}",
    "the {n} {v} and {movement}",
    "{moving} {n}",
    "a {n} {moving}",
    "{g} {n} {change} {p}",
    "a {colour} {n} {v} {g2} {n2}",
    "a {n} in {colour}",
    "a {n} with {tone}",
    "{g} {a} {n} {moving} {p}",
)
UNMIXED = 0.65  # share of the sentences that name none
INVENTED = 0.3  # share of words that are put together from two
WRAPPED = 0.3
CAPITAL = 0.3
KNOWN = words()


def other_sentence(rng: np.random.Generator) -> str:
    """Draw a phrase or sentence that describes no clip of the sample."""
    verb = _word(_VERBS, rng)
    stem = verb[:-1] if verb.endswith("s") else verb
    blanks = {"v": verb, "vs": stem, "vi": stem.removesuffix("e") + "ing"}
    blanks |= {"g": one_of(GLUE, rng), "g2": one_of(GLUE, rng)}
    form = one_of(FORMS if rng.uniform() < UNMIXED else MIXED_FORMS, rng)
    blanks |= {"n": _word(_NOUNS, rng), "n2": _word(_NOUNS, rng)}
    noun = _word(_NOUNS, rng)
    blanks |= {"ns": noun + ("es" if noun[-1] in "sxh" else "s")}
    blanks |= {"a": _word(_ADJECTIVES, rng), "p": one_of(PLACES, rng)}
    for attribute, values in PHRASES.items():
        blanks[attribute] = one_of(one_of(tuple(values.values()), rng), rng)
    forms = (*PARTICIPLES["movement"].values(), *PARTICIPLES["change"].values())
    blanks["moving"] = one_of(one_of(forms, rng), rng)
    text = " ".join(form.format(**blanks).split())
    if rng.uniform() < WRAPPED:
        text = one_of(WRAPPERS, rng).format(text)
    return text[0].upper() + text[1:] if rng.uniform() < CAPITAL else text


_NOUNS, _VERBS, _ADJECTIVES = (tuple(text.split()) for text in (NOUNS, VERBS, ADJECTIVES))


def _word(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return _invented(rng) if rng.uniform() < INVENTED else one_of(options, rng)


def _invented(rng: np.random.Generator) -> str:
    """The beginning of one word and the end of another."""
    kinds = (_NOUNS, _VERBS, _ADJECTIVES)
    a, b = (one_of(kinds[rng.integers(len(kinds))], rng) for _ in range(2))
    word = a[: rng.integers(1, len(a))] + b[rng.integers(1, len(b)) :]
    return word if word not in KNOWN and len(word) > 2 else _invented(rng)

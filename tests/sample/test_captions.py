"""The captions of the clips."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from mdmmt.sample.captions import PARTICIPLES, PHRASES, SOUNDS, TEMPLATES, caption, query, words
from mdmmt.sample.clips import COMBINATIONS, Combination


def test_caption_names_every_attribute_and_no_other_value():
    rng = np.random.default_rng(0)
    wordings = Counter()
    for i in rng.integers(len(COMBINATIONS), size=1000):
        text = caption(COMBINATIONS[i], rng)
        wordings[text] += 1
        for attribute, value in COMBINATIONS[i]._asdict().items():
            named = {
                other
                for other, phrases in PHRASES[attribute].items()
                if any(re.search(rf"\b{phrase}\b", text.lower()) for phrase in phrases)
            }
            assert named == {value}, (attribute, text)
    assert len(wordings) > 990


def test_templates_name_every_attribute():
    for template in TEMPLATES:
        assert all(f"{{{name}}}" in template for name in Combination._fields)
    assert {name: set(values) for name, values in PHRASES.items()} == {
        name: {getattr(c, name) for c in COMBINATIONS} for name in Combination._fields
    }


def test_query_names_no_value_but_its_own():
    rng = np.random.default_rng(0)
    wordings = Counter()
    for i in rng.integers(len(COMBINATIONS), size=1000):
        clip = COMBINATIONS[i]._asdict()
        names = rng.permutation(list(clip))[: rng.integers(1, 5)]
        values = {name: clip[name] for name in clip if name in names}
        text = query(values, rng)
        wordings[text] += 1
        for forms in (PHRASES, PARTICIPLES, {"tone": SOUNDS}):
            for name, phrases_of in forms.items():
                for value, phrases in phrases_of.items():
                    named = any(re.search(rf"\b{phrase}\b", text.lower()) for phrase in phrases)
                    assert not named or values.get(name) == value, (text, value)
    assert len(wordings) > 700


def test_words_cover_queries_but_for_those_that_fill():
    rng = np.random.default_rng(0)
    known = words()
    strange = 0
    for i in rng.integers(len(COMBINATIONS), size=500):
        text = query(COMBINATIONS[i]._asdict(), rng).lower()
        strange += bool(set(re.findall(r"[a-z]+", text)) - known)
    assert 0 < strange < 200  # about a quarter has filling words

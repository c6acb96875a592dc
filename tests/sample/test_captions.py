"""The captions of the clips."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from mdmmt.sample.captions import PHRASES, TEMPLATES, caption
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

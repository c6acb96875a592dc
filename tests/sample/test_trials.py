"""The queries and sentences in wordings of their own."""

from __future__ import annotations

import numpy as np

from mdmmt.sample import captions
from mdmmt.sample.clips import COMBINATIONS
from mdmmt.sample.trials import FORMS, OTHER_SENTENCES, WRAPPERS, trial_queries, trial_query


def test_trials_have_wordings_that_training_does_not_have():
    assert set(WRAPPERS) & set(captions.WRAPPERS) == set()
    assert len(set(OTHER_SENTENCES)) == 200


def test_trial_query_names_its_values():
    rng = np.random.default_rng(0)
    assert "star" in trial_query({"colour": "red", "shape": "star"}, rng)
    assert len(FORMS) == 15  # each attribute, and each pair
    for text, values in trial_queries(COMBINATIONS, 300, rng):
        assert 1 <= len(values) <= 2 and "{" not in text
        named = {
            (name, value)
            for forms in (captions.PHRASES, captions.PARTICIPLES, {"tone": captions.SOUNDS})
            for name in forms.keys() & values.keys()
            for value, phrases in forms[name].items()
            if any(phrase in text for phrase in phrases)
        }
        assert set(values.items()) <= named, text

"""Sentences about other things than the sample's clips."""

from __future__ import annotations

import re

import numpy as np

from mdmmt.sample.others import ADJECTIVES, NOUNS, VERBS, other_sentence
from mdmmt.sample.trials import OTHER_SENTENCES


def test_other_sentence_varies():
    rng = np.random.default_rng(0)
    sentences = [other_sentence(rng) for _ in range(1000)]
    assert len(set(sentences)) > 950
    assert not any("{" in sentence for sentence in sentences)


def test_words_of_training_are_not_those_of_the_trials():
    listed = {*NOUNS.split(), *VERBS.split(), *ADJECTIVES.split()}
    tried = {word for text in OTHER_SENTENCES for word in re.findall("[a-z]+", text.lower())}
    assert len(listed) > 500
    assert not listed & tried

"""The sample model: a small MDMMT trained by this package on clips that it draws itself.

It shows that everything works, from video files to a search. It knows coloured shapes and tones,
and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from ..storage.paths import SAMPLE_FOLDER

NOTICE = "the sample model knows drawn shapes and tones only"
# Training holds a clip to 0.7 times the share of a text's attributes that it has. The threshold is
# half the score of a clip that has one attribute of five, the least that is not nothing.
THRESHOLD = 0.07
NOTHING_FOUND = "Nothing here looks like that."


def is_sample(weights: Path) -> bool:
    """Whether weights are those of the sample model, which the scores are compared with."""
    return weights == SAMPLE_FOLDER


def note_on(weights: Path, best_score: float) -> str:
    """What is to be said of the best hit of a text; empty for weights without a threshold."""
    return NOTHING_FOUND if is_sample(weights) and best_score < THRESHOLD else ""

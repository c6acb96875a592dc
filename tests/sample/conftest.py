"""New clips that several test files share; nothing may change them."""

from __future__ import annotations

import pytest
from sample_clips import FRESH_CLIPS, FRESH_DRAW

from mdmmt.sample.train import draw_clips, split


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """Clips of combinations the shipped model has not seen, and their paths."""
    _, seen, _ = split()
    folder = tmp_path_factory.mktemp("fresh") / "clips"
    combinations = seen[:FRESH_CLIPS]
    return combinations, draw_clips(folder, combinations, FRESH_DRAW)

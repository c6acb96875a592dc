"""Results of evaluations, with ranks drawn by chance."""

from __future__ import annotations

import numpy as np

from mdmmt.evaluation import Ranks, Result


def make_result(
    seed: int = 0, experts: tuple[str, ...] = ("frame", "sound"), protocol: str = "unique"
) -> Result:
    """A result of 38 queries, 30 different texts and 25 segments."""
    rng = np.random.default_rng(seed)
    return Result(
        protocol=protocol,
        experts=experts,
        texts=30,
        segments=25,
        empty_segments=0,
        outside=("'too late' ('video1', 50 to 60)",),
        missing=("a.csv, line 3: 'no video' ('none', 0 to the end)",),
        queries="ab" * 32,
        ranks=Ranks(rng.integers(1, 26, size=38), rng.integers(1, 31, size=38)),
    )

"""How close features are to exact ones, where a constant output would count as far.

Features of all clips have a large part in common, so their plain cosines are near 1 whatever the
clips show. The mean of the exact features is that part, and is subtracted first.
"""

from __future__ import annotations

import numpy as np
import seeded
from media import BIG_BUCK_BUNNY, BIKES, footage
from numpy.typing import NDArray

from mdmmt.media.decode import read_clips
from mdmmt.media.specs import FrameSpec


def different_clips(count: int, frames: int, size: int) -> NDArray[np.uint8]:
    """Clips of a second, the first ones real and the others drawn: [count, t, size, size, 3]"""
    spec = FrameSpec(fps=frames, short_side=size, crop=size, clip_frames=frames)
    real = [
        clip.data
        for name in (BIG_BUCK_BUNNY, BIKES)
        for clip in read_clips(footage(name), {"VIDEO": spec})
    ]
    drawn = [seeded.pictures(seed, frames, size) for seed in range(count - len(real))]
    return np.stack([*real, *drawn])


def centred_cosines(exact: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine of each clip's features to the exact ones: two of [clips, d] -> [clips]"""
    exact, others = _centred(exact, others)
    return (exact * others).sum(axis=1)


def unchanged_neighbours(exact: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """The share of clips whose nearest other clip is the same."""
    nearest = []
    for features in _centred(exact, others):
        cosines = features @ features.T
        np.fill_diagonal(cosines, -np.inf)
        nearest.append(cosines.argmax(axis=1))
    return float(np.mean(nearest[0] == nearest[1]))


def _centred(
    exact: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    mean = exact.mean(axis=0)
    exact, others = exact - mean, others - mean
    return (
        exact / np.linalg.norm(exact, axis=1, keepdims=True),
        others / np.linalg.norm(others, axis=1, keepdims=True),
    )

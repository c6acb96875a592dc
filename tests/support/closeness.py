"""How close features are to exact ones, where a constant output would count as far.

Features of all clips have a large part in common, so their plain cosines are near 1 whatever the
clips show. The mean of the exact features is that part, and is subtracted first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import seeded
from media import BIG_BUCK_BUNNY, BIKES, footage
from numpy.typing import NDArray
from sample_clips import draw_sample_clips

from mdmmt.media.decode import read_clips
from mdmmt.media.specs import FrameSpec


def different_clips(count: int, frames: int, size: int) -> NDArray[np.uint8]:
    """Clips of a second, the first ones real and the others drawn: [count, t, size, size, 3]"""
    real = real_clips(frames, size)
    drawn = [seeded.pictures(seed, frames, size) for seed in range(count - len(real))]
    return np.stack([*real, *drawn])


def shown_clips(count: int, frames: int, size: int) -> NDArray[np.uint8]:
    """Clips that show something: the footage, and one second of each of the sample's clips."""
    clips = real_clips(frames, size)
    with tempfile.TemporaryDirectory() as folder:
        for drawn in draw_sample_clips(Path(folder), count - len(clips), seed=0):
            clips += seconds_of(drawn.path, frames, size)[:1]
    return np.stack(clips)


def real_clips(frames: int, size: int) -> list[NDArray[np.uint8]]:
    """All seconds of the footage: [t, size, size, 3] each."""
    files = [footage(name) for name in (BIG_BUCK_BUNNY, BIKES)]
    return [clip for file in files for clip in seconds_of(file, frames, size)]


def seconds_of(file: Path, frames: int, size: int) -> list[NDArray[np.uint8]]:
    spec = FrameSpec(fps=frames, short_side=size, crop=size, clip_frames=frames)
    return [clip.data for clip in read_clips(file, {"VIDEO": spec})]


def centred_cosines(exact: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine of each clip's features to the exact ones: two of [clips, d] -> [clips]"""
    exact, others = _centred(exact, others)
    return (exact * others).sum(axis=1)


def unchanged_neighbours(exact: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """The share of clips whose nearest other clip is the same."""
    return float(np.mean(_neighbours_losses(exact, others) == 0))


def largest_neighbour_loss(exact: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """By how much less the exact cosine to another's nearest clip is than to the exact nearest."""
    return float(_neighbours_losses(exact, others).max())


def _neighbours_losses(
    exact: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float32]:
    """For each clip, what its nearest other clip by `others` lacks in exact cosine: [clips]"""
    cosines = [features @ features.T for features in _centred(exact, others)]
    for one in cosines:
        np.fill_diagonal(one, -np.inf)
    chosen = np.take_along_axis(cosines[0], cosines[1].argmax(axis=1)[:, None], axis=1)
    return cosines[0].max(axis=1) - chosen[:, 0]


def _centred(
    exact: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    mean = exact.mean(axis=0)
    exact, others = exact - mean, others - mean
    return (
        exact / np.linalg.norm(exact, axis=1, keepdims=True),
        others / np.linalg.norm(others, axis=1, keepdims=True),
    )


def check_apart(
    wanted: NDArray[np.float32], features: NDArray[np.float32], median: float, least: float
) -> None:
    """Features less their mean are close to the exact ones, which a constant output is not."""
    cosines = centred_cosines(wanted, features)
    assert np.median(cosines) >= median and cosines.min() >= least
    constant = np.broadcast_to(wanted[0], wanted.shape)
    assert np.median(centred_cosines(wanted, constant)) < 0.5
    assert unchanged_neighbours(wanted, constant) < 0.5


def relative(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """The largest difference, as a share of the largest number."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())

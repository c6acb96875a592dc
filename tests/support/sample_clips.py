"""Clips of the sample's kind, drawn by chance."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mdmmt.sample.clips import COMBINATIONS, Combination, draw

FRESH_DRAW = 1000  # a seed that training and its tests do not draw from
FRESH_CLIPS = 64


class SampleClip(NamedTuple):
    path: Path
    combination: Combination  # the attributes that its caption names


def draw_sample_clips(folder: Path, n: int, seed: int) -> list[SampleClip]:
    """Draw clips of n different combinations into `folder`, as `0.mp4`, `1.mp4` and so on."""
    chosen = np.random.default_rng(seed).choice(len(COMBINATIONS), n, replace=False)
    clips = [SampleClip(folder / f"{i}.mp4", COMBINATIONS[at]) for i, at in enumerate(chosen)]
    for i, clip in enumerate(clips):
        draw(clip.path, clip.combination, seed=(seed, i))
    return clips

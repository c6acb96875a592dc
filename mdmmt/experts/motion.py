"""The `motion` expert: how a second of video moves and changes, by hand-made statistics.

It is light, deterministic and not learnt. For each two successive frames it fits one shift and one
growth to the whole frame, by least squares on the gradients of the contrast (Lucas and Kanade,
1981). Over the whole second it follows the drift of the foreground's centre, and the amount of
foreground, which tells blinking.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from ..media.specs import FrameSpec
from .base import Expert
from .frame import contrast

FPS = 12
CLIP_FRAMES = 12
THIRDS = 3  # parts of a clip in which the movement is averaged
GRID = 4  # cells along each side of the map of change
RIDGE = 1e-4  # per pixel; keeps the fit calm where there is no foreground
FLOW_LIMIT_PX = 4.0  # larger shifts between two frames are beyond the method
GROWTH_SCALE = 20.0  # the growth from frame to frame is a few hundredths
FAINT = 0.003  # mean contrast of a frame in which nothing stands out
CHANGE_SCALE = 10.0
TINY = 1e-6
SHORT_S2 = 0.01  # variance of the time, in s^2, below which a drift is damped
DRIFT_SCALE = 3.0  # a drift is a few tenths of the frame per second


class MotionExpert(Expert):
    """A second of frames -> shift, growth, flicker, and a map of change."""

    name = "motion"
    spec = FrameSpec(fps=FPS, short_side=64, crop=64, clip_frames=CLIP_FRAMES)
    dim = 4 * THIRDS + 6 + CLIP_FRAMES + CLIP_FRAMES // 2 + (CLIP_FRAMES - 1) + GRID * GRID

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Clips (k, 12, 64, 64, 3) uint8 -> (k, dim) float32 of about unit size."""
        return np.stack([_describe(clip) for clip in clips]).astype(np.float32)


def _describe(clip: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[frames, h, w, 3] -> [dim]"""
    salience = contrast(clip)  # [frames, h, w]
    amount = salience.mean(axis=(1, 2)) + FAINT
    # A shape that appears or vanishes is not movement: such pairs of frames count little.
    steady = np.minimum(amount[1:], amount[:-1]) / np.maximum(amount[1:], amount[:-1])
    flow = _flow(salience) * (steady**4)[:, None]  # [pairs, 3]
    thirds = np.array_split(np.column_stack([flow, np.log(amount[1:] / amount[:-1])]), THIRDS)
    change = np.abs(np.diff(salience, axis=0))  # [pairs, h, w]
    level = amount / amount.max()
    spectrum = np.abs(np.fft.rfft(level - level.mean()))[1:] / len(level)
    cells = change.mean(axis=0).reshape(GRID, salience.shape[1] // GRID, GRID, -1).mean(axis=(1, 3))
    return np.concatenate(
        [
            np.concatenate([part.mean(axis=0) for part in thirds]).clip(-3, 3),
            flow.mean(axis=0),
            [level.std()],
            _drift(salience),
            level,
            4 * spectrum,
            (change.mean(axis=(1, 2)) / amount.max()).clip(0, 2),
            (CHANGE_SCALE * cells).clip(0, 2).ravel(),
        ]
    )


def _drift(salience: NDArray[np.float32]) -> NDArray[np.float64]:
    """How fast the centre of the foreground goes right and down: [frames, h, w] -> [2]

    It is the slope of a line through the centres of all frames, weighted by their foreground.
    """
    frames, height, width = salience.shape
    amount = salience.sum(axis=(1, 2)) + TINY
    weight = amount / amount.sum()
    x = salience.sum(axis=1) @ np.arange(width) / width / amount
    y = salience.sum(axis=2) @ np.arange(height) / height / amount
    t = np.arange(frames) / FPS
    t = t - weight @ t
    centre = np.stack([x - weight @ x, y - weight @ y], axis=1)
    slope = (weight * t) @ centre / (weight @ t**2 + SHORT_S2)
    return (DRIFT_SCALE * slope).clip(-3, 3)


def _flow(salience: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shift right, shift down (pixels) and growth of each pair of frames: [f, h, w] -> [f - 1, 3]

    Solves right * gx + down * gy + growth * (x gx + y gy) = -difference by least squares over all
    pixels, where x and y are measured from the centre of the foreground.
    """
    _, height, width = salience.shape
    x, y = np.arange(width), np.arange(height)[:, None]
    flow = np.zeros((len(salience) - 1, 3))
    for i, (before, after) in enumerate(itertools.pairwise(salience)):
        mean = (before + after) / 2
        total = mean.sum() + FAINT * mean.size
        gy, gx = np.gradient(mean)
        growth = (x - (mean * x).sum() / total) * gx + (y - (mean * y).sum() / total) * gy
        basis = np.stack([gx, gy, growth]).reshape(3, -1).astype(np.float64)
        ridge = RIDGE * mean.size * np.diag([1.0, 1.0, 100.0])
        shift = np.linalg.solve(basis @ basis.T + ridge, basis @ (before - after).ravel())
        flow[i] = shift.clip(-FLOW_LIMIT_PX, FLOW_LIMIT_PX) * (1, 1, GROWTH_SCALE)
    return flow

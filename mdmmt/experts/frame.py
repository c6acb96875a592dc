"""The `frame` expert: the look of one frame, by hand-made statistics.

It is light, deterministic and not learnt. It describes the foreground, which stands out
against the border of the frame: its colours, the directions of its edges, and its outline, but not
its place in the frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..media.specs import FrameSpec
from .base import Expert

HUES = 12
BRIGHTNESSES = 6
DIRECTIONS = 16  # of edges, signed
GRID = 8  # cells along each side of the outline
GRID_REACH = 2.6  # half the side of the grid, in standard deviations of the contrast
NOISE_FLOOR = 0.12  # smaller differences from the border do not count; colours are 0 to 1
FAINT = 1e-3  # mean contrast of a frame in which nothing stands out


def contrast(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far each pixel's colour is from the colour of the border: [..., h, w, 3] -> [..., h, w]

    The colour of the border is its median. Differences up to NOISE_FLOOR count as 0.
    """
    x = frames.astype(np.float32) / 255
    edges = (x[..., 0, :, :], x[..., -1, :, :], x[..., :, 0, :], x[..., :, -1, :])
    border = np.median(np.concatenate(edges, axis=-2), axis=-2)
    distance = np.abs(x - border[..., None, None, :]).max(axis=-1)
    return np.maximum(distance - NOISE_FLOOR, 0)


class FrameExpert(Expert):
    """One frame -> colours, edge directions and outline of its foreground."""

    name = "frame"
    spec = FrameSpec(fps=4, short_side=64, crop=64, clip_frames=1)
    dim = HUES + BRIGHTNESSES + DIRECTIONS + GRID * GRID + 4

    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Clips (k, 1, 64, 64, 3) uint8 -> (k, dim) float32 of about unit size."""
        return np.stack([_describe(frame) for frame in clips[:, 0]]).astype(np.float32)


def _describe(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[h, w, 3] -> [dim]"""
    salience = contrast(frame)
    total = salience.sum() + FAINT * salience.size
    height, width = salience.shape
    y, x = np.mgrid[:height, :width]
    centre_y, centre_x = (salience * y).sum() / total, (salience * x).sum() / total
    variance = (salience * ((y - centre_y) ** 2 + (x - centre_x) ** 2)).sum() / total
    spread = max(np.sqrt(variance / 2), 1.0)
    place = [centre_x / width, centre_y / height, spread / width, np.sqrt(salience.mean())]
    return np.concatenate(
        [
            _colours(frame, salience / total),
            _edges(salience),
            _outline(salience, centre_y, centre_x, spread),
            place,
        ]
    )


def _colours(frame: NDArray[np.uint8], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shares of the hues, weighted by saturation, and of the brightnesses: [hues + brightnesses]"""
    rgb = frame.astype(np.float32) / 255
    high, low = rgb.max(axis=-1), rgb.min(axis=-1)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    hue = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * np.pi)
    saturation = (high - low) / np.maximum(high, 1 / 255)
    hues = _histogram(hue * HUES, weight * saturation, HUES, circular=True)
    brightnesses = _histogram(high * (BRIGHTNESSES - 1), weight, BRIGHTNESSES, circular=False)
    return np.concatenate([hues, brightnesses])


def _edges(salience: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shares of the directions in which the contrast grows, weighted by its slope: [directions]"""
    down, right = np.gradient(salience)
    strength = np.hypot(down, right)
    turn = np.arctan2(down, right) / (2 * np.pi)
    shares = _histogram(turn * DIRECTIONS, strength, DIRECTIONS, circular=True)
    return 4 * shares / (strength.sum() + FAINT * salience.size)


def _outline(
    salience: NDArray[np.float32], centre_y: float, centre_x: float, spread: float
) -> NDArray[np.float32]:
    """The foreground, moved to the middle and scaled to one size: [grid * grid]"""
    cell = (np.arange(GRID * 2) + 0.5) / GRID - 1  # two samples a cell, from -1 to 1
    rows = _pixels(centre_y + GRID_REACH * spread * cell, salience.shape[0])
    columns = _pixels(centre_x + GRID_REACH * spread * cell, salience.shape[1])
    sampled = salience[np.ix_(rows, columns)].reshape(GRID, 2, GRID, 2).mean(axis=(1, 3))
    return (sampled / (sampled.max() + NOISE_FLOOR)).ravel()


def _pixels(position: NDArray[np.float64], size: int) -> NDArray[np.intp]:
    """The nearest pixels of a side of `size`."""
    return position.round().clip(0, size - 1).astype(int)


def _histogram(
    position: NDArray[np.float32], weight: NDArray[np.float32], bins: int, circular: bool
) -> NDArray[np.float64]:
    """A histogram whose weights are shared by the two nearest bins: [h, w], [h, w] -> [bins]"""
    below = np.floor(position).astype(int)
    share = position - below
    counts = np.zeros(bins)
    for index, part in ((below, 1 - share), (below + 1, share)):
        index = index % bins if circular else index.clip(0, bins - 1)
        counts += np.bincount(index.ravel(), (weight * part).ravel(), minlength=bins)
    return counts

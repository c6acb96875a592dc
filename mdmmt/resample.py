"""Sound at another sample rate, as `resampy` 0.2 makes it with its filter `kaiser_best`.

The authors of MDMMT resampled with it (https://ccrma.stanford.edu/~jos/resample/ describes the
method), and VGGish hears the difference to other filters. Here the filter is laid out as one row
of taps for each position that an output can have between two inputs, and applied as a convolution.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

ZERO_CROSSINGS = 64  # of the sinc, on each side
STEPS = 512  # entries of the filter's table from one zero crossing to the next
ROLLOFF = 0.9475937167399596  # of the lower of the two Nyquist frequencies
KAISER_BETA = 14.769656459379492


class Resampler:
    """Mono sound in pieces of any length -> the same sound at another rate, in pieces."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common = math.gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        taps = _taps(self._up, self._down)
        self._reach = (taps.shape[1] - self._down) // 2  # inputs, on each side of the output
        self._taps = torch.from_numpy(taps).float()[:, None]
        self._waiting = np.zeros(self._reach, dtype=np.float32)
        self._taken = self._given = 0  # samples

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n] -> what can be said of the sound so far: [m]"""
        self._taken += len(samples)
        self._waiting = np.concatenate([self._waiting, samples])
        width = self._taps.shape[-1]
        if len(self._waiting) < width:
            return np.empty(0, dtype=np.float32)
        made = F.conv1d(torch.from_numpy(self._waiting)[None, None], self._taps, stride=self._down)
        self._waiting = self._waiting[made.shape[-1] * self._down :]
        self._given += made.numel()
        return made[0].t().reshape(-1).numpy()

    def finish(self) -> NDArray[np.float32]:
        """The rest, silence following: in all, the length of the sound rounded down."""
        length, given = self._taken * self._up // self._down, self._given
        silence = np.zeros(self._taps.shape[-1] + self._down, dtype=np.float32)
        return self.push(silence)[: length - given]


def _taps(up: int, down: int) -> NDArray[np.float64]:
    """What each of `up` outputs takes of the `down` inputs beside them, and of those around.

    Returns:
        [up, reach + down + reach]
    """
    t = np.linspace(0, ZERO_CROSSINGS, ZERO_CROSSINGS * STEPS + 1)
    window = np.kaiser(2 * len(t) - 1, KAISER_BETA)[len(t) - 1 :]
    scale = min(1.0, up / down)
    table = scale * ROLLOFF * np.sinc(ROLLOFF * t) * window
    # From one input to the next; resampy 0.2 rounds it, which makes the filter a little wider.
    stride = int(scale * STEPS)
    reach = len(table) // stride + 1
    inputs = np.arange(-reach, down + reach)
    position = np.arange(up)[:, None] * down / up
    before = np.floor(position)
    is_before = inputs <= before
    start = np.where(is_before, position - before, before + 1 - position) * scale * STEPS
    count = np.where(is_before, before - inputs, inputs - before - 1)  # of inputs in between
    weights = np.interp(start + count * stride, np.arange(len(table)), table)
    return np.where(count < (len(table) - start.astype(int)) // stride, weights, 0)

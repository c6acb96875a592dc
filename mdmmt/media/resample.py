"""Sound at another sample rate, as `resampy` 0.2 makes it with its filter `kaiser_best`.

The authors of MDMMT resampled with it (https://ccrma.stanford.edu/~jos/resample/ describes the
method), and VGGish hears the difference to other filters. Here the filter is laid out as one row
of taps for each position that an output can have between two inputs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

ZERO_CROSSINGS = 64  # of the sinc, on each side
STEPS = 512  # entries of the filter's table from one zero crossing to the next
ROLLOFF = 0.9475937167399596  # of the lower of the two Nyquist frequencies
KAISER_BETA = 14.769656459379492
CHUNK = 2048  # rows of taps, and outputs, worked on at once


class Resampler:
    """Mono sound in pieces of any length -> the same sound at another rate, in pieces."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common = math.gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        self._taps = _taps(self._up, self._down)
        self._reach = self._taps.shape[1] // 2  # inputs, on each side of the output
        self._waiting = np.zeros(self._reach - 1, dtype=np.float32)  # from the next output's first
        self._taken = self._given = 0  # samples

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n] -> what can be said of the sound so far: [m]"""
        self._taken += len(samples)
        self._waiting = np.concatenate([self._waiting, samples])
        # Output k lies behind input k * down // up, and needs `reach` inputs from there on.
        start = self._given * self._down // self._up
        end = max(self._given, -(-(self._taken - self._reach) * self._up // self._down))
        made = np.empty(end - self._given, dtype=np.float32)
        for first in range(self._given, end, CHUNK):
            outputs = np.arange(first, min(first + CHUNK, end))
            windows = sliding_window_view(self._waiting, 2 * self._reach)
            heard = windows[outputs * self._down // self._up - start]
            taps = self._taps[outputs % self._up]
            made[outputs - self._given] = np.einsum("kt,kt->k", heard, taps)
        self._given = end
        self._waiting = self._waiting[end * self._down // self._up - start :]
        return made

    def finish(self) -> NDArray[np.float32]:
        """The rest, silence following: in all, the length of the sound rounded down."""
        rest = self._taken * self._up // self._down - self._given
        return self.push(np.zeros(self._reach, dtype=np.float32))[:rest]


def _taps(up: int, down: int) -> NDArray[np.float32]:
    """What each of `up` outputs takes of the inputs around it.

    Returns:
        [up, reach + reach]: of the input at or before the output and of those before that, and of
        those behind it.
    """
    t = np.linspace(0, ZERO_CROSSINGS, ZERO_CROSSINGS * STEPS + 1)
    window = np.kaiser(2 * len(t) - 1, KAISER_BETA)[len(t) - 1 :]
    scale = min(1.0, up / down)
    table = scale * ROLLOFF * np.sinc(ROLLOFF * t) * window
    # From one input to the next; resampy 0.2 rounds it, which makes the filter a little wider.
    stride = int(scale * STEPS)
    reach = len(table) // stride + 1
    inputs = np.arange(1 - reach, reach + 1)
    count = np.where(inputs <= 0, -inputs, inputs - 1)  # of inputs in between
    rows = np.empty((up, 2 * reach), dtype=np.float32)
    for first in range(0, up, CHUNK):  # or the steps below would need gigabytes for odd rates
        outputs = np.arange(first, min(first + CHUNK, up))[:, None]
        position = outputs * down % up / up  # behind the input before it
        start = np.where(inputs <= 0, position, 1 - position) * scale * STEPS
        weights = np.interp(start + count * stride, np.arange(len(table)), table)
        counted = count < (len(table) - start.astype(int)) // stride
        rows[first : first + CHUNK] = np.where(counted, weights, 0)
    return rows

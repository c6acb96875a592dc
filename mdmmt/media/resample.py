"""Sound at another sample rate, as `resampy` 0.2 makes it with its filter `kaiser_best`.

The authors of MDMMT resampled with it (https://ccrma.stanford.edu/~jos/resample/ describes the
method), and the features of VGGish depend on the filter. Here the filter is laid out as one row of
taps for each position that an output can have between two inputs. It is written by hand because
sound comes in pieces; for a whole sound, torchaudio's `sinc_interp_kaiser` with the numbers below
computes nearly the same.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

ZERO_CROSSINGS = 64  # of the sinc, on each side
STEPS = 512  # entries of the filter's table from one zero crossing to the next
ROLLOFF = 0.9475937167399596  # relative to the lower of the two Nyquist frequencies
KAISER_BETA = 14.769656459379492
CHUNK = 2048  # rows of taps, or outputs, computed at once


class Resampler:
    """Resamples mono sound that comes in pieces of any length.

    Outputs come out as soon as all their inputs are there, the last ones from `finish`.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common = math.gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        self._taps = _taps(self._up, self._down)
        self._reach = self._taps.shape[1] // 2  # inputs on each side of an output
        # The inputs that outputs to come still need; silence stands before the first.
        self._pending = np.zeros(self._reach - 1, dtype=np.float32)
        self._inputs = self._outputs = 0  # samples so far

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add samples [n]; return the outputs [m] that are complete now."""
        self._inputs += len(samples)
        self._pending = np.concatenate([self._pending, samples])
        # Output k lies behind input k * down // up, and needs `reach` inputs from there on.
        start = self._outputs * self._down // self._up
        end = max(self._outputs, -(-(self._inputs - self._reach) * self._up // self._down))
        result = np.empty(end - self._outputs, dtype=np.float32)
        for first in range(self._outputs, end, CHUNK):
            outputs = np.arange(first, min(first + CHUNK, end))
            windows = sliding_window_view(self._pending, 2 * self._reach)
            inputs = windows[outputs * self._down // self._up - start]
            taps = self._taps[outputs % self._up]
            result[outputs - self._outputs] = np.einsum("kt,kt->k", inputs, taps)
        self._outputs = end
        self._pending = self._pending[end * self._down // self._up - start :]
        return result

    def finish(self) -> NDArray[np.float32]:
        """Return the last outputs, with silence after the sound.

        In all there are as many outputs as the sound lasts, rounded down.
        """
        rest = self._inputs * self._up // self._down - self._outputs
        return self.push(np.zeros(self._reach, dtype=np.float32))[:rest]


def _taps(up: int, down: int) -> NDArray[np.float32]:
    """The weights that each of `up` outputs gives to the inputs around it.

    Returns:
        [up, reach + reach]: first the inputs up to the output's position, then those after it,
        in the order of time.
    """
    t = np.linspace(0, ZERO_CROSSINGS, ZERO_CROSSINGS * STEPS + 1)
    window = np.kaiser(2 * len(t) - 1, KAISER_BETA)[len(t) - 1 :]
    scale = min(1.0, up / down)
    table = scale * ROLLOFF * np.sinc(ROLLOFF * t) * window
    # Table entries from one input to the next. resampy 0.2 rounds this down, which makes the filter
    # a little wider.
    stride = int(scale * STEPS)
    reach = len(table) // stride + 1
    inputs = np.arange(1 - reach, reach + 1)
    distance = np.where(inputs <= 0, -inputs, inputs - 1)  # whole inputs between it and the output
    rows = np.empty((up, 2 * reach), dtype=np.float32)
    for first in range(0, up, CHUNK):  # all at once would need gigabytes for odd rates
        outputs = np.arange(first, min(first + CHUNK, up))[:, None]
        position = outputs * down % up / up  # from the input before the output, in inputs
        start = np.where(inputs <= 0, position, 1 - position) * scale * STEPS
        weights = np.interp(start + distance * stride, np.arange(len(table)), table)
        counted = distance < (len(table) - start.astype(int)) // stride
        rows[first : first + CHUNK] = np.where(counted, weights, 0)
    return rows

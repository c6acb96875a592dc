"""Triangular filters on HTK's mel scale, which turn a spectrum into bands."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@cache
def mel_filters(
    sample_rate_hz: int, fft_size: int, bands: int, lowest_hz: float, highest_hz: float
) -> NDArray[np.float64]:
    """Triangles evenly spaced and linear on the mel scale, each 1 at its centre.

    Returns:
        [fft_size / 2 + 1, bands], read-only.
    """
    corners = np.linspace(_mel(lowest_hz), _mel(highest_hz), bands + 2)
    bins = _mel(np.fft.rfftfreq(fft_size, 1 / sample_rate_hz))[:, None]
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    filters = np.clip(np.minimum(rising, falling), 0, None)
    filters.flags.writeable = False
    return filters


def _mel(hz: NDArray[np.floating[Any]] | float) -> NDArray[np.float64]:
    return 1127 * np.log1p(np.asarray(hz) / 700)

"""Mel filters: equal to the triangles computed one by one."""

import math

import numpy as np
import pytest

from mdmmt.experts.mel import mel_filters


@pytest.mark.parametrize(
    "arguments", [(16000, 512, 64, 125.0, 7500.0), (16000, 2000, 24, 120.0, 5000.0)]
)
def test_mel_filters_are_triangles_on_the_mel_scale(arguments):
    sample_rate_hz, fft_size, bands, lowest_hz, highest_hz = arguments

    def mel(hz):
        return 1127 * math.log(1 + hz / 700)

    low, high = mel(lowest_hz), mel(highest_hz)
    width = (high - low) / (bands + 1)
    expected = np.zeros((fft_size // 2 + 1, bands))
    for i in range(fft_size // 2 + 1):
        for band in range(bands):
            distance = abs(mel(i * sample_rate_hz / fft_size) - (low + (band + 1) * width))
            expected[i, band] = max(0, 1 - distance / width)
    filters = mel_filters(*arguments)
    np.testing.assert_allclose(filters, expected, atol=1e-9)
    assert not filters[0].any()  # nothing hears 0 Hz


def test_mel_filters_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        mel_filters(16000, 512, 64, 125.0, 7500.0)[0] = 1

"""Makes `resample.npz`: the output of resampy 0.2.2 for seeded sound."""

from __future__ import annotations

import numpy as np
import resampy
import seeded

RATES_HZ = (8000, 11025, 44100, 48000)
TO_HZ = 16000


def make() -> dict[str, np.ndarray]:
    outputs = {}
    for rate in RATES_HZ:
        made = resampy.resample(seeded.sound(4, 0.1, rate), rate, TO_HZ, filter="kaiser_best")
        outputs[str(rate)] = made[::8].astype(np.float32)
    return outputs

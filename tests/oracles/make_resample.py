"""Makes `resample.npz`: what resampy 0.2.2 makes of seeded sound.

Needs resampy and what it imports, in a folder of its own:

    pip install --no-deps --target FOLDER resampy==0.2.2 numba llvmlite six
    PYTHONPATH=FOLDER:tests python tests/goldens/make_resample.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import resampy
import seeded

RATES_HZ = (8000, 11025, 44100, 48000)
TO_HZ = 16000


def main() -> None:
    outputs = {}
    for rate in RATES_HZ:
        made = resampy.resample(seeded.sound(4, 0.1, rate), rate, TO_HZ, filter="kaiser_best")
        outputs[str(rate)] = made[::8].astype(np.float32)
    np.savez(Path(__file__).with_name("resample.npz"), **outputs)


if __name__ == "__main__":
    main()

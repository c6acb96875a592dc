"""The sound expert tells rising from falling tones."""

import numpy as np

from mdmmt.experts.sound import SoundExpert

SOUND = SoundExpert()


def test_sound_tells_rising_from_falling():
    t = np.arange(8000) / 16000
    rising = np.sin(2 * np.pi * (400 * t + 600 * t**2))
    rise, fall = SOUND.features(np.stack([rising, rising[::-1]]).astype(np.float32) * 0.3)
    assert rise[-1] > 0.1 and fall[-1] < -0.1

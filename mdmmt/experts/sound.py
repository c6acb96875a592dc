"""The `sound` expert: the pitch and loudness of half a second of sound.

Light, deterministic, and not learnt: a log-mel spectrogram, and in each of its slices how loud it
is and where on the mel scale the sound lies.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..media.specs import AudioSpec
from .base import Expert

SAMPLE_RATE_HZ = 16000
WINDOW_S = 0.5
SLICES = 4
BANDS = 24
LOWEST_HZ, HIGHEST_HZ = 120.0, 5000.0
FFT_SIZE = 1024
FLOOR = 1e-6  # power of a band that counts as silence
LOG_RANGE = 12.0  # natural logarithm of the loudest band over the floor, about


class SoundExpert(Expert):
    """Half a second of sound -> its mel spectrum, pitch and loudness over time."""

    name = "sound"
    spec = AudioSpec(sample_rate_hz=SAMPLE_RATE_HZ, window_s=WINDOW_S, hop_s=WINDOW_S)
    dim = SLICES * BANDS + 3 * SLICES + 1

    def features(self, clips: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clips (k, 8000) float32 -> (k, dim) float32 of about unit size."""
        slices = clips.reshape(len(clips), SLICES, -1)
        windowed = slices * np.hanning(slices.shape[-1])
        size = max(FFT_SIZE, slices.shape[-1])
        power = np.abs(np.fft.rfft(windowed, n=size)) ** 2 / slices.shape[-1]
        bands = power @ _mel_filters(size)  # [k, slices, bands]
        mel = np.log(bands / FLOOR + 1) / LOG_RANGE
        loudness = np.sqrt(np.mean(slices**2, axis=-1))  # [k, slices]
        share = bands / (bands.sum(axis=-1, keepdims=True) + BANDS * FLOOR)
        pitch = share @ np.linspace(-1, 1, BANDS)  # [k, slices]
        step = np.diff(pitch, axis=1, prepend=pitch[:, :1]) * 4
        glide = (pitch[:, -1:] - pitch[:, :1]) * 4
        parts = [mel.reshape(len(clips), -1), np.sqrt(loudness), pitch, step, glide]
        return np.concatenate(parts, axis=1).astype(np.float32)


@cache
def _mel_filters(size: int) -> NDArray[np.float64]:
    """Triangles evenly spaced on the mel scale: [size / 2 + 1, bands]"""

    def mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return 1127 * np.log1p(np.asarray(hz) / 700)

    corners = np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), BANDS + 2)
    at = mel(np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ))[:, None]
    rising = (at - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - at) / (corners[2:] - corners[1:-1])
    return np.clip(np.minimum(rising, falling), 0, None)

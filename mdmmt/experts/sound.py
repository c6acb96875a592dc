"""The `sound` expert: the pitch and loudness of half a second of sound.

It is light, deterministic and not learnt: a log-mel spectrogram, and for each of its slices the
loudness and the mean position on the mel scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..media.specs import AudioSpec
from .base import Expert
from .mel import mel_filters

SAMPLE_RATE_HZ = 16000
WINDOW_S = 0.5
SLICES = 4
BANDS = 24
LOWEST_HZ, HIGHEST_HZ = 120.0, 5000.0
FFT_SIZE = 1024
FLOOR = 1e-6  # power of a band that counts as silence
LOG_RANGE = 12.0  # about the natural logarithm of the loudest band over the floor


class SoundExpert(Expert):
    """Half a second of sound -> its mel spectrum, loudness and pitch over time."""

    name = "sound"
    spec = AudioSpec(sample_rate_hz=SAMPLE_RATE_HZ, window_s=WINDOW_S, hop_s=WINDOW_S)
    dim = SLICES * BANDS + 3 * SLICES + 1

    def features(self, clips: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clips (k, 8000) float32 -> (k, dim) float32 of about unit size."""
        slices = clips.reshape(len(clips), SLICES, -1)
        windowed = slices * np.hanning(slices.shape[-1])
        size = max(FFT_SIZE, slices.shape[-1])
        power = np.abs(np.fft.rfft(windowed, n=size)) ** 2 / slices.shape[-1]
        filters = mel_filters(SAMPLE_RATE_HZ, size, BANDS, LOWEST_HZ, HIGHEST_HZ)
        bands = power @ filters  # [k, slices, bands]
        mel = np.log(bands / FLOOR + 1) / LOG_RANGE
        loudness = np.sqrt(np.mean(slices**2, axis=-1))  # [k, slices]
        share = bands / (bands.sum(axis=-1, keepdims=True) + BANDS * FLOOR)
        pitch = share @ np.linspace(-1, 1, BANDS)  # [k, slices]
        step = np.diff(pitch, axis=1, prepend=pitch[:, :1]) * 4
        glide = (pitch[:, -1:] - pitch[:, :1]) * 4
        parts = [mel.reshape(len(clips), -1), np.sqrt(loudness), pitch, step, glide]
        return np.concatenate(parts, axis=1).astype(np.float32)

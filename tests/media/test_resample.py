"""Resampling: equal to resampy 0.2.2, whatever the pieces in which the sound comes."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import seeded

from mdmmt.media.resample import Resampler

GOLDENS = Path(__file__).parents[1] / "goldens"


def resampled(wave: np.ndarray, from_hz: int, to_hz: int = 16000, piece: int = 1000) -> np.ndarray:
    resampler = Resampler(from_hz, to_hz)
    wave = wave.astype(np.float32)
    parts = [resampler.push(wave[start : start + piece]) for start in range(0, len(wave), piece)]
    return np.concatenate([*parts, resampler.finish()])


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_resampler_equals_resampy(rate):
    wave = seeded.sound(4, 0.1, rate)
    made = resampled(wave, rate)
    assert len(made) == len(wave) * 16000 // rate
    difference = np.abs(made[::8] - np.load(GOLDENS / "resample.npz")[str(rate)])
    # resampy adds up its steps; a sum that falls a hair short of an input shifts the taps by one.
    assert np.quantile(difference, 0.95) <= 2e-6 and difference.max() <= 1e-3


@pytest.mark.parametrize("piece", [1, 7, 441, 5000])
def test_resampler_gives_the_same_for_any_pieces(piece):
    wave = seeded.sound(5, 0.05, 44100)
    whole = resampled(wave, 44100, piece=len(wave))
    np.testing.assert_allclose(resampled(wave, 44100, piece=piece), whole, atol=1e-6)


@pytest.mark.parametrize("samples", [0, 1, 2, 100])
def test_resampler_takes_short_sounds(samples):
    made = resampled(np.ones(samples), 44100)
    assert len(made) == samples * 16000 // 44100 and np.isfinite(made).all()


def test_resampler_equals_the_plain_sum_for_coprime_rates():
    from_hz, to_hz = 44101, 16000
    wave = seeded.sound(6, 0.03, from_hz).astype(np.float32)
    scale = to_hz / from_hz
    t = np.arange(64 * 512 + 1) / 512
    kaiser = np.kaiser(2 * len(t) - 1, 14.769656459379492)[len(t) - 1 :]
    table = scale * 0.9475937167399596 * np.sinc(0.9475937167399596 * t) * kaiser
    table = np.append(table, 0)
    stride = int(scale * 512)
    naive = []
    for k in range(len(wave) * to_hz // from_hz):
        before = k * from_hz // to_hz
        behind = k * from_hz / to_hz - before
        total = 0.0
        for inputs, distance in (
            (range(before, -1, -1), behind),
            (range(before + 1, len(wave)), 1 - behind),
        ):
            start = distance * scale * 512
            for count, i in enumerate(inputs):
                if count >= (len(t) - int(start)) // stride:
                    break
                entry = int(start + count * stride)
                part = start + count * stride - entry
                total += wave[i] * ((1 - part) * table[entry] + part * table[entry + 1])
        naive.append(total)
    made = resampled(wave, from_hz)
    assert len(made) == len(naive) > 400
    assert np.abs(made - naive).max() <= 2e-6 < np.abs(naive).max()


@pytest.mark.slow
def test_resampler_takes_little_memory_at_any_rate_and_length():
    tracemalloc.start()
    resampler = Resampler(44101, 16000)
    memory = []
    for _ in range(60):
        resampler.push(np.zeros(44101, dtype=np.float32))
        memory.append(tracemalloc.get_traced_memory()[0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20 and memory[-1] - memory[5] < 2**17

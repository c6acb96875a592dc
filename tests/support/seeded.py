"""Weights, pictures and sound made from a seed, the same everywhere.

The goldens are what independent implementations make of these, so neither weights nor inputs are
stored. NumPy freezes the stream of `RandomState`, unlike that of its newer generators.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch


def state(seed: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors for a network of convolutions, batch norms and linear layers, by PyTorch's names.

    Their sizes keep what goes through the network neither vanishing nor exploding.
    """
    random = np.random.RandomState(seed)
    tensors = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(7)
            continue
        if len(shape) > 1:
            high = float(np.sqrt(6 / np.prod(shape[1:])))
            low = -high
        elif name.endswith("running_var"):
            low, high = 0.5, 1.5
        elif name.endswith("weight"):  # of a norm
            low, high = 0.2, 0.6
        else:
            low, high = -0.1, 0.1
        values = np.empty(shape, np.float32)
        for row in values.reshape(shape[0], -1):  # spares the memory of all in float64
            row[:] = low + (high - low) * random.random_sample(row.size)
        tensors[name] = torch.from_numpy(values)
    return tensors


def pictures(seed: int, frames: int, size: int) -> np.ndarray:
    """Moving blocks of colour with noise: (frames, size, size, 3) uint8."""
    random = np.random.RandomState(seed)
    blocks = random.randint(0, 256, (-(-frames // 4), -(-size // 16), -(-size // 16), 3))
    large = blocks.repeat(4, axis=0).repeat(16, axis=1).repeat(16, axis=2)
    large = large[:frames, :size, :size]
    return np.clip(large + random.randint(-20, 21, large.shape), 0, 255).astype(np.uint8)


def sound(seed: int, seconds: float, sample_rate_hz: int) -> np.ndarray:
    """Tones that come and go, over noise: (samples,) float64 within -1 and 1."""
    random = np.random.RandomState(seed)
    t = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    wave = 0.02 * (2 * random.random_sample(t.size) - 1)
    for hz in (130.0, 440.0, 1700.0, 5200.0):
        swing = np.sin(2 * np.pi * (0.5 + random.random_sample()) * t)
        wave += 0.2 * np.maximum(swing, 0) * np.sin(2 * np.pi * hz * (1 + 0.05 * t) * t)
    return wave

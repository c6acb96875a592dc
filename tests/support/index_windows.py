"""Windows to put into an index, and the model that has embedded them."""

from __future__ import annotations

import numpy as np

from mdmmt.model import Segments
from mdmmt.weights.identity import Identity

DIM = 24
MODEL = Identity("ours", "0" * 64, DIM)


def segments(n: int, seed: int = 0) -> Segments:
    """n random embeddings, of windows that begin a second after each other."""
    vectors = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return Segments(vectors, np.array([[i, i + 1.5] for i in range(n)]))

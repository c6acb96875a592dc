"""What processors with AVX512-VNNI and AVX512-BF16 compute in int8, on processors without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor

from mdmmt.fast import dense

HALF = 4  # bits


class ByHalves(dense.PackedInt8):
    """The inputs go through in two halves, of which no sum of two products overflows 16 bits."""

    def __call__(self, x: Tensor, activation: str = "none", spent: bool = False) -> Tensor:
        quantised, step, zero = dense.quantise(x, self.steps, spent)
        high, low = quantised >> HALF, quantised & ((1 << HALF) - 1)
        y = self.product(high, step * (1 << HALF), 0, None) + self.product(
            low, step, zero, self.bias
        )
        return dense.activate(y, activation).to(self.dtype)

    def product(self, x: Tensor, step: float, zero: int, bias: Tensor | None) -> Tensor:
        return torch.ops.onednn.qlinear_pointwise(
            x, step, zero, self.weight, self.scale, self.zero, bias,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip


@contextmanager
def emulated_vnni() -> Iterator[None]:
    """Towers that are made here compute in int8 as those processors do."""
    with (
        patch.object(dense, "PackedInt8", ByHalves),
        patch.object(dense, "has_instructions", lambda name: True),
    ):
        yield

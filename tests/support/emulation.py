"""What CUDA, and processors with AVX512-VNNI and AVX512-BF16, compute, on those without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from mdmmt.fast import linear as dense

HALF = 4  # bits


class ByHalves(dense.PackedInt8):
    """The inputs go through in two halves, of which no sum of two products overflows 16 bits."""

    def __call__(self, x: Tensor, activation: str = "none", spent: bool = False) -> Tensor:
        quantised, step, zero = dense.quantise(x.float(), self.steps, spent)
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


def efficient_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: None, begins_q: Tensor, begins_k: Tensor, most_q: int,
    most_k: int, dropout: float, mask_type: int, *, scale: float | None, seqlen_k: Tensor,
) -> tuple[Tensor]:  # fmt: skip
    """`aten::_efficient_attention_forward`, as far as it is used; that one runs on CUDA alone."""
    assert len(q) == len(k) == len(v) == 1  # what it requires with sequences of their own lengths
    assert len(begins_q) == len(begins_k) == len(seqlen_k) + 1
    for numbers in (begins_q, begins_k, seqlen_k):
        assert numbers.dtype == torch.int32 and numbers.is_contiguous()
    assert dropout == mask_type == 0 and bias is None
    assert q.shape[-1] % 8 == 0
    assert begins_q.diff().max() <= most_q and seqlen_k.max() <= most_k
    out = torch.full_like(q, float("nan"))
    bounds = zip(begins_q[:-1], begins_q[1:], begins_k[:-1], seqlen_k, strict=True)
    for begin, end, first, length in (map(int, one) for one in bounds):
        of_q, of_k = slice(begin, end), slice(first, first + length)
        parts = (x.transpose(1, 2) for x in (q[:, of_q], k[:, of_k], v[:, of_k]))
        out[:, of_q] = F.scaled_dot_product_attention(*parts, scale=scale).transpose(1, 2)
    return (out,)

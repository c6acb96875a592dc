"""What CUDA, and processors with AVX512-VNNI and AVX512-BF16, compute, on those without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from mdmmt.fast import precision
from mdmmt.kernels import cpu, linear, private
from mdmmt.towers.transformer import ACTIVATION

HALF = 4  # bits


class Int8LinearByHalves(linear.Int8Linear):
    """Multiplies its inputs in two halves, so that no sum of two products overflows 16 bits."""

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        quantized, step, zero = linear.quantize(x.float(), self.steps)
        high, low = quantized >> HALF, quantized & ((1 << HALF) - 1)
        y = self.product(high, step * (1 << HALF), 0, self.layer._replace(bias=None))
        y = y + self.product(low, step, zero, self.layer)
        return (y if activation == "none" else ACTIVATION[activation](y)).to(self.dtype)

    def product(self, x: Tensor, step: float, zero: int, layer: private.Int8Layer) -> Tensor:
        return private.int8_linear(x, step, zero, layer, torch.float32)


@contextmanager
def forgotten_probes(module: ModuleType) -> Iterator[None]:
    """All probes of a module compute anew within the block, and again after it."""
    probes = [one for one in vars(module).values() if hasattr(one, "cache_clear")]
    assert probes
    for probe in probes:
        probe.cache_clear()
    try:
        yield
    finally:
        for probe in probes:
            probe.cache_clear()


@contextmanager
def emulated_vnni() -> Iterator[None]:
    """Towers that are made here compute in int8 as those processors do."""
    with (
        patch.object(precision, "Int8Linear", Int8LinearByHalves),
        patch.object(cpu, "has_instructions", lambda name: True),
    ):
        yield


def efficient_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: None, begins_q: Tensor, begins_k: Tensor, max_q: int,
    max_k: int, dropout: float, mask_type: int, *, scale: float | None, seqlen_k: Tensor,
) -> tuple[Tensor]:  # fmt: skip
    """`aten::_efficient_attention_forward`, as far as it is used; that one runs on CUDA alone."""
    assert len(q) == len(k) == len(v) == 1  # what it requires with sequences of their own lengths
    assert len(begins_q) == len(begins_k) == len(seqlen_k) + 1
    for numbers in (begins_q, begins_k, seqlen_k):
        assert numbers.dtype == torch.int32 and numbers.is_contiguous()
    assert dropout == mask_type == 0 and bias is None
    assert q.shape[-1] % 8 == 0
    assert begins_q.diff().max() <= max_q and seqlen_k.max() <= max_k
    out = torch.full_like(q, float("nan"))
    bounds = zip(begins_q[:-1], begins_q[1:], begins_k[:-1], seqlen_k, strict=True)
    for begin, end, first, length in (map(int, one) for one in bounds):
        of_q, of_k = slice(begin, end), slice(first, first + length)
        parts = (x.transpose(1, 2) for x in (q[:, of_q], k[:, of_k], v[:, of_k]))
        out[:, of_q] = F.scaled_dot_product_attention(*parts, scale=scale).transpose(1, 2)
    return (out,)

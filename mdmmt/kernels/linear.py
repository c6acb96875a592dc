"""Linear layers for inference: exact, in bfloat16, or with 8-bit weights.

On x86 processors oneDNN computes all of them. It keeps the weights in its own blocked layout and,
where that is faster, computes the activation with the product. There, the public
`torch.nn.functional.linear` takes MKL, which is slower on AMD processors and with few tokens.

Shape notation: t tokens of all sequences together.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..storage.checkpoint import aligned
from . import cpu, private

# The steps from the least input to the greatest, with room for rounding, and the greatest weight.
# Without VNNI the processor adds two products in 16 bits, so the numbers must be smaller.
RANGES, RANGES_WITHOUT_VNNI = (253, 127), (180, 89)
NO_FRACTION = 3 << 22
QUANTIZED_AT_ONCE = 1 << 19  # numbers, 2 MB
SMALLEST = torch.finfo(torch.float32).tiny


class FastLinear(Protocol):
    """A linear layer for inference."""

    dtype: torch.dtype  # of its output

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """[t, d_in] -> [t, d_out]

        Args:
            activation: one of 'none', 'gelu', 'relu', 'swish'.
        """
        ...


class TorchLinear:
    """A linear layer that torch's public function computes, on CUDA and on processors but x86."""

    dtype = torch.float32  # of its weights, and of its output

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """From a weight [d_out, d_in] and a bias [d_out]."""
        self.weight = self.pack(weight.to(self.dtype))
        self.bias = bias.to(self.dtype)
        self.activations = private.in_place_activations(weight.device)

    @classmethod
    def consume(cls, layer: nn.Linear, mean_input: Tensor | None = None) -> TorchLinear:
        """Move the weights out of `layer`: its `weight` becomes None, so only one copy exists.

        Args:
            mean_input: not needed, since no weight is rounded to 8 bits.
        """
        return cls(take_weight(layer), layer.bias.detach())

    @staticmethod
    def pack(weight: Tensor) -> Tensor:
        """The weight in the layout that the product needs."""
        return aligned(weight)

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """[t, d_in] -> [t, d_out]"""
        y = F.linear(x.to(self.dtype), self.weight, self.bias)
        return self.activations[activation](y)


class TorchLinearBFloat16(TorchLinear):
    """The same in bfloat16, its weights cast once; `torch.autocast` casts them at each call."""

    dtype = torch.bfloat16


class TorchLinearFloat16(TorchLinear):
    """The same in float16, which is more exact than bfloat16 where no number is huge."""

    dtype = torch.float16


class OneDnnLinear(TorchLinear):
    """A linear layer with its weights packed for oneDNN, in float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """From a weight [d_out, d_in] and a bias [d_out]."""
        super().__init__(weight, bias)
        # Without AVX512, oneDNN's activation takes longer inside a float32 product than after it.
        self.fuses = cpu.has_avx512()

    @staticmethod
    def pack(weight: Tensor) -> Tensor:
        """The weight in the layout that the product needs."""
        return private.pack_weight(weight)

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """[t, d_in] -> [t, d_out]"""
        if self.fuses:
            return private.packed_linear(x.to(self.dtype), self.weight, self.bias, activation)
        y = private.packed_linear(x.to(self.dtype), self.weight, self.bias)
        return self.activations[activation](y)


class OneDnnLinearBFloat16(OneDnnLinear):
    """The same in bfloat16: half the memory, and faster where the processor has it."""

    dtype = torch.bfloat16


class Int8Linear:
    """A linear layer with 8-bit weights, a scale for each output, and 8-bit inputs.

    The bias makes up for the rounding of the weights, see `mdmmt.fast.calibration`. Each call
    quantises its inputs, with one scale for all tokens.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        mean_input: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """From a weight [d_out, d_in] and a bias [d_out].

        Args:
            mean_input: [d_in], for which the rounded weights give the exact output; None: any.
            dtype: of the output.
        """
        self.dtype = dtype
        has_vnni = cpu.has_instructions("avx512_vnni")
        self.steps, greatest = RANGES if has_vnni else RANGES_WITHOUT_VNNI
        rounded, scale = round_weight(weight, greatest)
        if mean_input is not None:
            error = weight - rounded * scale[:, None]
            bias = bias + (error * mean_input).sum(dim=1)
        self.layer = private.Int8Layer.pack(rounded, scale, bias)

    @classmethod
    def consume(
        cls,
        layer: nn.Linear,
        mean_input: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Int8Linear:
        """Move the weights out of `layer`: its `weight` becomes None, so only one copy exists.

        Args:
            mean_input, dtype: as for the constructor.
        """
        return cls(take_weight(layer), layer.bias.detach(), mean_input, dtype)

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """[t, d_in] -> [t, d_out]"""
        quantized, step, zero = quantize(x.to(torch.float32), self.steps)
        return private.int8_linear(quantized, step, zero, self.layer, self.dtype, activation)


def round_weight(weight: Tensor, greatest: int) -> tuple[Tensor, Tensor]:
    """Round a weight [d_out, ...] to whole numbers up to `greatest`.

    Returns:
        int8 of the shape of the weight, and the step of each output, [d_out].
    """
    scale = (weight.flatten(1).abs().amax(dim=1) / greatest).clamp_min(SMALLEST)
    return (weight / scale.view(-1, *[1] * (weight.dim() - 1))).round().to(torch.int8), scale


def float32_linear(device: torch.device) -> type[TorchLinear]:
    """The kind of exact linear layer for a device."""
    if cpu.has_onednn(device) and private.has_packed_linear(torch.float32):
        return OneDnnLinear
    return TorchLinear


def take_weight(layer: nn.Linear) -> Tensor:
    """Move the weight [d_out, d_in] out of a layer, which has none afterwards."""
    weight = layer.weight.detach()
    layer.register_parameter("weight", None)
    return weight


def quantize(x: Tensor, steps: int) -> tuple[Tensor, float, int]:
    """Round numbers to 8 bits.

    Args:
        steps: from the least number to the greatest.

    Returns:
        uint8 of the shape of x; the distance of two steps; and the number that stands for 0.
    """
    low, high = (bound.item() for bound in x.aminmax())
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / steps, SMALLEST)
    rows = max(1, QUANTIZED_AT_ONCE * len(x) // max(1, x.numel()))
    zero = math.floor(-low / step) + 1
    # A float32 of this size has no room for a fraction, and its lowest byte is the number added to
    # it, rounded. That takes two passes over x; `round` and `clamp` would take four.
    shift = torch.tensor(NO_FRACTION + zero, dtype=torch.float32, device="cpu")
    rounded = torch.empty(x.shape, dtype=torch.uint8, device="cpu")
    shifted = torch.empty_like(x[:rows])  # one for all parts, as it stays in the cache
    for part, rounded_part in zip(x.split(rows), rounded.split(rows), strict=True):
        summed = torch.add(shift, part, alpha=1 / step, out=shifted[: len(part)])
        rounded_part.copy_(summed.view(torch.int32))
    return rounded, step, zero

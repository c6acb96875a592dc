"""Linear layers for inference: exact, in bfloat16, or with 8-bit weights.

On x86 processors all of them are oneDNN's, with the weights in the blocked layout that it asks for
and, where that is faster, the activation inside the product. Its operators have no public name in
torch; what else there is, `torch.nn.functional.linear`, takes MKL, which leaves a quarter of an AMD
processor unused, and more with few tokens.

Shape notation: t tokens of all sequences together.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..storage.checkpoint import aligned
from .attention import AtOnce, Attend, OneByOne, batched_attention

PRECISIONS = ("exact", "bfloat16", "int8", "auto")
IN_PLACE = {
    "gelu": torch.ops.aten.gelu_,
    "relu": torch.relu_,
    "swish": partial(F.silu, inplace=True),
}
ALGORITHM = {"none": "", "gelu": "none", "relu": "", "swish": ""}  # oneDNN's erf is "none"
TOKENS_EXPECTED = 512  # for which oneDNN picks its layout of the weights
# Tokens with which a thread by itself is no slower than its share of all: in low precision, where
# the processor has bfloat16, and else.
FEW_TOKENS, MANY_TOKENS = 8, 96
# Steps from the least input to the greatest, with room for rounding, and the greatest weight.
# Without VNNI the processor adds up two products in 16 bits, which only smaller ones fit into.
RANGES, RANGES_WITHOUT_VNNI = (253, 127), (180, 89)
NO_FRACTION = 3 << 22
SMALLEST = torch.finfo(torch.float32).tiny


class Plain:
    """A linear layer as torch has it: for CUDA, and for processors other than x86."""

    dtype = torch.float32  # of its weights, and of what it puts out

    def __init__(self, layer: nn.Linear) -> None:
        """Takes the weights over: the layer has none afterwards, so that they are there once."""
        self.weight = self.pack(layer.weight.detach().to(self.dtype))
        self.bias = layer.bias.detach().to(self.dtype)
        layer.weight = None

    @staticmethod
    def pack(weight: Tensor) -> Tensor:
        """The weights as the products want them."""
        return aligned(weight)

    def __call__(self, x: Tensor, activation: str = "none", spent: bool = False) -> Tensor:
        """[t, d_in] -> [t, d_out]

        Args:
            activation: one of 'none', 'gelu', 'relu', 'swish'.
            spent: nobody needs x afterwards, so it may be overwritten.
        """
        return activate(F.linear(x.to(self.dtype), self.weight, self.bias), activation)


class PlainBFloat16(Plain):
    """The same in bfloat16, its weights cast once; `torch.autocast` casts them at each call."""

    dtype = torch.bfloat16


class Packed(Plain):
    """A linear layer with its weights packed for oneDNN, in float32."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        # Without AVX512, oneDNN's activation takes longer inside a float32 product than behind it.
        self.fuses = has_avx512()

    @staticmethod
    def pack(weight: Tensor) -> Tensor:
        """The weights as the products want them."""
        return torch.ops.mkldnn._reorder_linear_weight(weight, TOKENS_EXPECTED)

    def __call__(self, x: Tensor, activation: str = "none", spent: bool = False) -> Tensor:
        """[t, d_in] -> [t, d_out]"""
        inside = activation if self.fuses else "none"
        y = torch.ops.mkldnn._linear_pointwise(
            x.to(self.dtype), self.weight, self.bias, inside, [], ALGORITHM[inside]
        )
        return y if self.fuses else activate(y, activation)


class PackedBFloat16(Packed):
    """The same in bfloat16: half the memory, twice the speed where the processor has it."""

    dtype = torch.bfloat16


class PackedInt8:
    """A linear layer with 8-bit weights, a scale for each output, and 8-bit inputs.

    What rounding the weights shifts goes into the bias, see `mdmmt.fast.calibration`.
    The inputs are quantised as they come, with one scale for all tokens of a call.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype = torch.float32) -> None:
        """Takes the weights over, and puts out numbers of `dtype`."""
        self.dtype = dtype
        weight, layer.weight = layer.weight.detach(), None
        has_vnni = has_instructions("avx512_vnni")
        self.steps, greatest = RANGES if has_vnni else RANGES_WITHOUT_VNNI
        self.scale = weight.abs().amax(dim=1).clamp_min(SMALLEST) / greatest
        rounded = (weight / self.scale[:, None]).round()
        self.bias = layer.bias.detach()
        mean = getattr(layer, "mean_input", None)  # of a layer that was observed
        if mean is not None:
            self.bias = self.bias + ((weight - rounded * self.scale[:, None]) * mean).sum(dim=1)
        self.weight = torch.ops.onednn.qlinear_prepack(
            rounded.to(torch.int8), [TOKENS_EXPECTED, weight.shape[1]]
        )
        self.zero = torch.zeros(len(weight), dtype=torch.int32, device="cpu")

    def __call__(self, x: Tensor, activation: str = "none", spent: bool = False) -> Tensor:
        """[t, d_in] -> [t, d_out]"""
        quantised, step, zero = quantise(x.to(torch.float32), self.steps, spent)
        return torch.ops.onednn.qlinear_pointwise(
            quantised, step, zero, self.weight, self.scale, self.zero, self.bias,
            1.0, 0, self.dtype, activation, [], ALGORITHM[activation],
        )  # fmt: skip


def check_precision(precision: str) -> str:
    """The precision, if it is one.

    Raises:
        InputError: naming those that are.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    return precision


def resolve_precision(precision: str, device: torch.device) -> str:
    """What 'auto' stands for on a device; the others stand for themselves.

    'auto' is 'int8' on processors with instructions for it (AVX512-VNNI), 'bfloat16' on CUDA
    devices that compute in it, and 'exact' elsewhere: other processors are slow in bfloat16, and
    in int8 coarser, and slower with few tokens. Old releases of torch do not tell of VNNI.

    Raises:
        InputError: not a precision, or 'int8' on CUDA or on a processor other than x86.
    """
    check_precision(precision)
    if precision == "int8" and not has_onednn(device):
        raise InputError(
            "precision is 'int8', which needs an x86 processor; 'auto' takes what fits"
        )
    if precision != "auto":
        return precision
    if device.type == "cuda":
        with torch.cuda.device(device):
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if has_bfloat16 else "exact"
    return "int8" if has_onednn(device) and has_instructions("avx512_vnni") else "exact"


def quantise(x: Tensor, steps: int, spent: bool = False) -> tuple[Tensor, float, int]:
    """Round numbers to 8 bits: uint8 of the same shape, how far apart two are, and which is 0.

    `spent` lets x be overwritten: one large tensor less, which allocators hand back to the system
    and fetch again at each call, at the cost of a fifth of the time.
    """
    low, high = (bound.item() for bound in x.aminmax())
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / steps, SMALLEST)
    zero = math.floor(-low / step) + 1
    # So large a float32 has no room for a fraction, and its lowest byte is the number added to
    # it, rounded. That takes two passes over x where there are four by way of `round` and `clamp`.
    shift = torch.tensor(NO_FRACTION + zero, dtype=torch.float32, device="cpu")
    shifted = torch.add(shift, x, alpha=1 / step, out=x if spent else None)
    return shifted.view(torch.int32).to(torch.uint8), step, zero


def activate(y: Tensor, activation: str) -> Tensor:
    """An activation in place; 'none' is none."""
    return y if activation == "none" else IN_PLACE[activation](y)


Dense = Plain | PackedInt8


class Kinds(NamedTuple):
    """Of what to make the linear layers, and what computes attention."""

    queries: Callable[[nn.Linear], Dense]  # those of an attention's queries and keys
    values: Callable[[nn.Linear], Dense]  # of its values
    mixed: Callable[[nn.Linear], Dense]  # of what it puts out
    wide: Callable[[nn.Linear], Dense]  # those between the encoder's width and its greater one
    fine: Callable[[nn.Linear], Dense]  # all of the last layer, and of experts' features
    carried: torch.dtype  # what goes from layer to layer
    attention: Callable[..., Attend]  # of the runs of a batch, on a device
    calibrated: bool = False  # whether they want the mean of what they are given
    least: int | None = None  # tokens worth a thread of their own; None: threads share all


def kinds_of(precision: str, device: torch.device, rounds_values: bool = False) -> Kinds:
    """What a precision means on a device.

    In 'int8' queries, keys and the wide layers have 8 bits; attention itself, the last layer and
    what is made of features are in bfloat16, or exact. In 'bfloat16' on CUDA the sums and norms
    stay in float32, as they do under `torch.autocast`; on a processor they are in bfloat16, which
    is a tenth faster. What the last layer attends to is what is carried.

    Args:
        rounds_values: in 'int8' an attention's values and output have 8 bits, too, but in the first
            layer, which takes a seventh less time. For texts that is near enough; of a video of a
            single token the least cosine of a block would fall from 0.9996 to 0.9990.
    """
    packs = has_onednn(device)
    exact = Packed if packs else Plain
    half = PackedBFloat16 if packs and packs_bfloat16() else PlainBFloat16
    precision = resolve_precision(precision, device)
    has_bfloat16 = has_instructions("avx512_bf16")
    few = has_bfloat16 and precision != "exact"
    least = (FEW_TOKENS if few else MANY_TOKENS) if packs else None
    attention = AtOnce if attends_at_once(device, precision) else OneByOne
    if packs and has_avx512():  # with AVX2 it gains nothing
        attention = partial(OneByOne, attention=batched_attention)
    if precision == "bfloat16":
        carried = torch.bfloat16 if device.type == "cpu" else torch.float32
        return Kinds(half, half, half, half, half, carried, attention, least=least)
    if precision == "int8":
        fine = half if has_bfloat16 else exact
        queries = partial(PackedInt8, dtype=fine.dtype)
        values, mixed = (queries, PackedInt8) if rounds_values else (fine, fine)
        return Kinds(
            queries, values, mixed, PackedInt8, fine, torch.float32, attention,
            calibrated=True, least=least,
        )  # fmt: skip
    return Kinds(exact, exact, exact, exact, exact, torch.float32, attention, least=least)


def has_onednn(device: torch.device) -> bool:
    """Whether tensors there can go through oneDNN's operators."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return device.type == "cpu" and is_x86 and torch.backends.mkldnn.is_available()


def attends_at_once(device: torch.device, precision: str) -> bool:
    """Whether the kernel of `AtOnce` is there: NVIDIA's, in bfloat16 since compute capability 8."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return precision != "bfloat16" or torch.cuda.get_device_capability(device) >= (8, 0)


def has_avx512() -> bool:
    """Whether torch computes in AVX512 here; ATEN_CPU_CAPABILITY can hold it to less."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def has_instructions(name: str) -> bool:
    """Whether the processor has some further ones of AVX512.

    Torches that do not tell count as having none.
    """
    return has_avx512() and bool(getattr(torch.cpu, "get_capabilities", dict)().get(name))


def packs_bfloat16() -> bool:
    """Whether oneDNN takes bfloat16 weights here."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()

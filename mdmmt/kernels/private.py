"""All private operators of torch that towers and experts use, each behind a probe.

They have no public name, so any release of torch may drop or change them. A probe computes
something small once and compares it with the public operator. Where the private operator is
missing, fails or gives other numbers, the probe logs one warning, answers False, and the caller
takes the public way.

Shape notation: t tokens of all sequences, s sequences, h heads, d width. In convolutions: k clips,
t frames, h w pixels, d channels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import cpu

logger = logging.getLogger(__name__)

Activation = Callable[[Tensor], Tensor]
ACTIVATION: dict[str, Activation] = {  # by the names of configurations
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
}

TOKENS_EXPECTED = 512  # oneDNN picks the layout of the weights for this number of tokens
ROW_STEPS = 16  # numbers of rows that are computed from one power of two to the next
ALGORITHM = {"none": "", "gelu": "none", "relu": "", "swish": ""}  # oneDNN's erf is "none"
NO_DILATION = (1, 1, 1)
NOT_CAUSAL = 0  # the attention kernel's code for no mask beyond the bounds of the sequences
HEAD_ALIGNMENT = 8  # the attention kernel takes heads whose width is a multiple of this
CPU = torch.device("cpu")
CHANNELS_LAST = torch.channels_last_3d
# Largest difference between a private operator and the public one. In attention float32 may mean
# TensorFloat-32, as the caller has set it for CUDA.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2**-8, torch.bfloat16: 2**-6}
ATTENTION_TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 2**-6}


def pack_weight(weight: Tensor) -> Tensor:
    """Lay out a weight [d_out, d_in] as `packed_linear` needs it."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, TOKENS_EXPECTED)


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor, activation: str = "none") -> Tensor:
    """A linear layer and its activation in one product of oneDNN: [t, d_in] -> [t, d_out]

    Args:
        x: of the weight's dtype.
        weight: from `pack_weight`.
        activation: one of 'none', 'gelu', 'relu', 'swish'.
    """
    y: Tensor = torch.ops.mkldnn._linear_pointwise(
        pad_rows(x), weight, bias, activation, [], ALGORITHM[activation]
    )
    return y[: len(x)]


class Int8Layer(NamedTuple):
    """A linear layer whose weight is in 8 bits, laid out as `int8_linear` needs it."""

    weight: Tensor  # in the layout of oneDNN
    scale: Tensor  # [d_out], which multiplies the rows of the weight
    zeros: Tensor  # [d_out] int32, all 0: the operator asks for them
    bias: Tensor  # [d_out]

    @classmethod
    def pack(cls, weight: Tensor, scale: Tensor, bias: Tensor) -> Int8Layer:
        """From a weight [d_out, d_in] int8."""
        packed = torch.ops.onednn.qlinear_prepack(weight, [TOKENS_EXPECTED, weight.shape[1]])
        return cls(packed, scale, torch.zeros(len(weight), dtype=torch.int32, device=CPU), bias)


def int8_linear(
    x: Tensor,
    step: float,
    zero: int,
    layer: Int8Layer,
    dtype: torch.dtype,
    activation: str = "none",
) -> Tensor:
    """A linear layer on 8-bit numbers and its activation: [t, d_in] -> [t, d_out] of `dtype`

    Args:
        x: uint8, which stands for (x - zero) * step.
        activation: one of 'none', 'gelu', 'relu', 'swish'.
    """
    y: Tensor = torch.ops.onednn.qlinear_pointwise(
        pad_rows(x), step, zero, *layer, 1.0, 0, dtype, activation, [], ALGORITHM[activation]
    )
    return y[: len(x)]


def pad_rows(x: Tensor) -> Tensor:
    """Add rows of zeros up to the next of few numbers of rows: [t, d] -> [at least t, d]

    oneDNN compiles a product for each number of rows and keeps a thousand of them, about 1 MB each.
    A row of its product does not depend on the others, so no result changes.
    """
    step = max(1, (1 << len(x).bit_length()) // (2 * ROW_STEPS))
    more = -len(x) % step
    return F.pad(x, (0, 0, 0, more)) if more else x


class Stencil(NamedTuple):
    """The geometry of a convolution in three dimensions, or in two."""

    stride: tuple[int, ...] = (1, 1, 1)
    padding: tuple[int, ...] = (0, 0, 0)
    groups: int = 1


def pack_convolution(weight: Tensor, stencil: Stencil, size: Sequence[int]) -> Tensor:
    """Lay out a weight as `packed_convolution` needs it.

    Args:
        weight: [d_out, d_in / groups, h, w] or [d_out, d_in / groups, t, h, w].
        size: of the inputs to expect, [k, d_in, h, w] or [k, d_in, t, h, w]. Others are computed as
            well, but slower.
    """
    return torch.ops.mkldnn._reorder_convolution_weight(
        weight, stencil.padding, stencil.stride, NO_DILATION[: len(size) - 2], stencil.groups, size
    )


def packed_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, stencil: Stencil, activation: str = "none"
) -> Tensor:
    """A convolution in two dimensions or three, and its activation, by oneDNN.

    Args:
        x: [k, d_in, h, w] or [k, d_in, t, h, w] float32, channels last in memory.
        weight: from `pack_convolution`.
        activation: 'none' or 'relu'.

    Returns:
        [k, d_out, h', w'] or [k, d_out, t', h', w'], laid out as the input.
    """
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, stencil.padding, stencil.stride, NO_DILATION[: x.dim() - 2],
        stencil.groups, activation, [], "",
    )  # fmt: skip


def add_packed_convolution(
    out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stencil: Stencil
) -> Tensor:
    """relu(out + the convolution of x), in the memory of `out`; otherwise `packed_convolution`."""
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        out, x, weight, bias, stencil.padding, stencil.stride, NO_DILATION[: x.dim() - 2],
        stencil.groups, "add", 1.0, "relu", [], "",
    )  # fmt: skip


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first_query: Tensor,
    first_key: Tensor,
    keys: Tensor,
    max_queries: int,
    max_keys: int,
    scale: float,
) -> Tensor:
    """Attention of packed sequences of any lengths in one kernel of CUDA.

    It is what `F.scaled_dot_product_attention` itself takes for nested tensors.

    Args:
        q: [1, queries, h, d/h]; d/h is a multiple of `HEAD_ALIGNMENT`.
        k, v: [1, t, h, d/h].
        first_query, first_key: [s + 1] int32, where each sequence begins, and where the last ends.
        keys: [s] int32, the number of keys of each sequence.
        max_queries, max_keys: the most of any sequence.

    Returns:
        [1, queries, h, d/h].
    """
    out, *_ = torch.ops.aten._efficient_attention_forward(
        q, k, v, None, first_query, first_key, max_queries, max_keys,
        0.0, NOT_CAUSAL, scale=scale, seqlen_k=keys,
    )  # fmt: skip
    return out


def linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(a linear layer) in one product of CUDA: [t, d_in] -> [t, d_out]

    Args:
        weight: [d_out, d_in].
    """
    return torch.ops.aten._addmm_activation(bias, x, weight.t())


@lru_cache
def has_linear_relu(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `linear_relu` computes what `F.linear` and a ReLU do."""

    def compare() -> Iterator[tuple[Tensor, Tensor]]:
        x, weight, bias = (part.to(device, dtype) for part in _small_layer())
        yield linear_relu(x, weight, bias), torch.relu(F.linear(x, weight, bias))

    return agrees("aten._addmm_activation", "torch.nn.functional.linear", compare, device)


@lru_cache
def has_packed_linear(dtype: torch.dtype) -> bool:
    """Whether `packed_linear` computes in this dtype what `F.linear` does."""

    def compare() -> Iterator[tuple[Tensor, Tensor]]:
        x, weight, bias = (part.to(dtype) for part in _small_layer())
        packed = pack_weight(weight)
        for activation in ALGORITHM:
            y = F.linear(x.float(), weight.float(), bias.float())
            public = _activate(y, activation).to(dtype)
            yield packed_linear(x, packed, bias, activation), public

    return agrees(
        f"mkldnn._reorder_linear_weight with mkldnn._linear_pointwise in {dtype}",
        "torch.nn.functional.linear",
        compare,
        CPU,
    )


@lru_cache
def has_int8_linear(dtype: torch.dtype) -> bool:
    """Whether `int8_linear` computes what `F.linear` does, and puts it out in this dtype."""

    def compare() -> Iterator[tuple[Tensor, Tensor]]:
        x, weight, bias = _small_layer()
        step, zero = 0.25, 5
        x, weight = (x / step + zero).to(torch.uint8), (weight / step).to(torch.int8)
        scale = 0.125 * (1 + torch.arange(len(weight), device=CPU) % 3).to(torch.float32)
        y = F.linear((x.float() - zero) * step, weight.float() * scale[:, None], bias)
        layer = Int8Layer.pack(weight, scale, bias)
        for activation in ALGORITHM:
            private = int8_linear(x, step, zero, layer, dtype, activation)
            yield private, _activate(y, activation).to(dtype)

    return agrees(
        f"onednn.qlinear_prepack with onednn.qlinear_pointwise in {dtype}",
        "a precision of 16 or 32 bits",
        compare,
        CPU,
    )


@lru_cache
def has_packed_convolution() -> bool:
    """Whether `packed_convolution` and `add_packed_convolution` compute what torch does."""

    def compare() -> Iterator[tuple[Tensor, Tensor]]:
        d = 16
        volume, picture = (1, d, 3, 5, 4), (2, d, 5, 4)
        ones, twos = (1, 1, 1), (2, 2, 2)
        for size, taps, stencil in (
            (volume, 1, Stencil()),
            (volume, 1, Stencil(stride=twos)),
            (volume, 3, Stencil(padding=ones, groups=d)),
            (volume, 3, Stencil(stride=twos, padding=ones, groups=d)),
            (picture, 3, Stencil(stride=ones[:2], padding=ones[:2])),
        ):
            layout = torch.channels_last if size == picture else CHANNELS_LAST
            convolve = F.conv2d if size == picture else F.conv3d
            x = small_numbers(math.prod(size), 7).view(size) / 4
            x = x.contiguous(memory_format=layout)
            bias = small_numbers(d, 3) / 4
            shape = (d, d // stencil.groups, *[taps] * (len(size) - 2))
            weight = small_numbers(math.prod(shape), 5).view(shape) / 4
            y = convolve(x, weight, bias, stencil.stride, stencil.padding, 1, stencil.groups)
            packed = pack_convolution(weight, stencil, size)
            yield packed_convolution(x, packed, bias, stencil), y
            yield packed_convolution(x, packed, bias, stencil, "relu"), torch.relu(y)
            out = torch.ones_like(y, memory_format=layout)
            add_packed_convolution(out, x, packed, bias, stencil)
            yield out, torch.relu(1 + y)

    return agrees(
        "mkldnn._reorder_convolution_weight with mkldnn._convolution_pointwise",
        "torch's own convolution",
        compare,
        CPU,
    )


@lru_cache
def has_varlen_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `varlen_attention` computes what `F.scaled_dot_product_attention` does."""

    def compare() -> Iterator[tuple[Tensor, Tensor]]:
        heads, width, scale = 2, HEAD_ALIGNMENT, 0.3
        bounds = (0, 3, 8)  # of two sequences; no query attends to the first key of the first one
        q, k, v = (
            (small_numbers(bounds[-1] * heads * width, period) / 4)
            .view(1, bounds[-1], heads, width)
            .to(device, dtype)
            for period in (7, 5, 11)
        )
        first_query, first_key, keys = (
            torch.tensor(numbers, dtype=torch.int32, device=device)
            for numbers in ((0, 3, 8), (1, 3, 8), (2, 5))
        )
        private = varlen_attention(q, k, v, first_query, first_key, keys, 5, 5, scale)
        for queries, begin, end in ((slice(0, 3), 1, 3), (slice(3, 8), 3, 8)):
            public = F.scaled_dot_product_attention(
                q[:, queries].transpose(1, 2),
                k[:, begin:end].transpose(1, 2),
                v[:, begin:end].transpose(1, 2),
                scale=scale,
            )
            yield private[:, queries], public.transpose(1, 2)

    return agrees(
        f"aten._efficient_attention_forward in {dtype}",
        "torch.nn.functional.scaled_dot_product_attention",
        compare,
        device,
        ATTENTION_TOLERANCE,
    )


@lru_cache
def supports_bfloat16() -> bool:
    """Whether oneDNN takes bfloat16 here; where torch does not tell, AVX512 decides."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except Exception as error:  # whatever torch raises for an operator that changed
        _warn("mkldnn._is_mkldnn_bf16_supported", "a look at the processor", str(error))
        return cpu.has_avx512()


@lru_cache
def in_place_activations(device: torch.device) -> dict[str, Activation]:
    """Activations that overwrite their argument, by name; 'none' returns it unchanged."""
    gelu = torch.ops.aten.gelu_ if _has_in_place_gelu(device) else F.gelu
    silu = partial(F.silu, inplace=True)
    return {"none": _unchanged, "gelu": gelu, "relu": torch.relu_, "swish": silu}


def _has_in_place_gelu(device: torch.device) -> bool:
    """Whether the in-place GELU, which has no public name, computes what `F.gelu` does."""

    def compare() -> Iterator[tuple[Tensor, Tensor]]:
        x = small_numbers(16, 9).to(device)
        public = F.gelu(x)
        torch.ops.aten.gelu_(x)
        yield x, public

    return agrees("aten.gelu_", "torch.nn.functional.gelu", compare, device)


def agrees(
    operators: str,
    instead: str,
    compare: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    device: torch.device,
    tolerance: Mapping[torch.dtype, float] = TOLERANCE,
) -> bool:
    """Whether all pairs of a private and a public result are equal but for rounding.

    Args:
        operators, instead: the private and the public ones, for the warning.
        tolerance: the largest difference, absolute and relative, for each dtype.
    """
    reason = ""
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for private, public in compare():
                if not _is_close(private, public, tolerance[public.dtype]):
                    reason = "it computes other numbers"
                    break
    except Exception as error:  # whatever torch raises for an operator that changed
        reason = str(error) or type(error).__name__
    if reason:
        _warn(operators, instead, reason)
    return not reason


def _is_close(private: Tensor, public: Tensor, tolerance: float) -> bool:
    alike = private.shape == public.shape and private.dtype == public.dtype
    return alike and torch.allclose(private, public, rtol=tolerance, atol=tolerance)


def _warn(operators: str, instead: str, reason: str) -> None:
    first_line = reason.strip().split("\n")[0]
    logger.warning(
        "%s cannot be used with torch %s (%s): %s takes its place, which may be slower",
        operators,
        torch.__version__,
        first_line,
        instead,
    )


def _small_layer() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [5, 32], weight [16, 32] and bias [16], whose numbers and sums bfloat16 can hold."""
    x = small_numbers(5 * 32, 7).view(5, 32) / 4
    weight = small_numbers(16 * 32, 5).view(16, 32) / 4
    return x, weight, small_numbers(16, 3) / 4


def small_numbers(count: int, period: int) -> Tensor:
    """Whole numbers around 0 for a probe, [count] float32; no random generator is touched."""
    return (torch.arange(count, device=CPU) % period - period // 2).to(torch.float32)


def _activate(y: Tensor, activation: str) -> Tensor:
    return y if activation == "none" else ACTIVATION[activation](y)


def _unchanged(y: Tensor) -> Tensor:
    return y

"""Precisions: the linear layers, the attention and the dtypes for each on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

import torch
from torch import Tensor, nn

from ..config import PRECISIONS
from ..errors import InputError, warn
from ..kernels import cpu, private
from ..kernels.linear import (
    FastLinear,
    Int8Linear,
    OneDnnLinearBFloat16,
    TorchLinear,
    TorchLinearBFloat16,
    float32_linear,
)
from .attention import (
    Attention,
    GroupedAttention,
    SequenceGroup,
    VarlenAttention,
    batched_attention,
)

RESOLVED = tuple(name for name in PRECISIONS if name != "auto")
# The tokens of a batch from which on it is worth a thread of its own. With fewer, all threads share
# the batch. The first number is for low precision on a processor with instructions for bfloat16.
FEW_TOKENS, MANY_TOKENS = 8, 96
# A linear layer whose time tells how fast a processor is in bfloat16: rows, width, and runs of it.
TRIAL_ROWS, TRIAL_WIDTH, TRIAL_RUNS = 256, 768, 7
SLOWDOWN_TO_TELL = 1.15  # a smaller one may be noise

MakeAttention = Callable[[Sequence[SequenceGroup], torch.device], Attention]


class ConsumeLinear(Protocol):
    """Makes a layer for inference from a linear layer, whose weights it takes away."""

    def __call__(self, layer: nn.Linear, mean_input: Tensor | None = None, /) -> FastLinear:
        """Move the weights out of `layer`.

        Args:
            mean_input: [d_in], the mean of the layer's inputs, for layers that need calibration.
        """
        ...


@dataclass(frozen=True)
class LayerPlan:
    """How the linear layers of an encoder are made, and how its attention is computed."""

    query_key: ConsumeLinear  # the queries and keys of an attention
    value: ConsumeLinear  # its values
    attention_output: ConsumeLinear  # its output projection
    feed_forward: ConsumeLinear  # both layers between the encoder's width and the wider one
    full_precision: ConsumeLinear  # the first layer, the last one, and the experts' features
    residual_dtype: torch.dtype  # of the numbers that go from layer to layer
    attention: MakeAttention
    needs_calibration: bool = False  # whether `ConsumeLinear` needs the mean inputs
    min_tokens_per_thread: int | None = None  # None: all threads share each batch


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve 'auto', and 'int8' where torch's operators for it have changed.

    'auto' is 'int8' on processors with instructions for it (AVX512-VNNI), 'bfloat16' on CUDA
    devices that compute in it, and 'exact' elsewhere: other processors are slow in bfloat16, and
    in int8 coarser, and slower with few tokens. Old releases of torch do not tell of VNNI.

    Where 'bfloat16' is slower than 'exact', a warning says so.

    Returns:
        'exact', 'bfloat16' or 'int8'.

    Raises:
        InputError: not one of `PRECISIONS`, or 'int8' on CUDA or on a processor other than x86.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision == "int8" and not cpu.has_onednn(device):
        raise InputError(
            "precision is 'int8', which needs an x86 processor; 'auto' takes what fits"
        )
    if precision == "bfloat16" and device.type == "cpu":
        slowdown = bfloat16_slowdown(torch.get_num_threads())
        if slowdown > SLOWDOWN_TO_TELL:
            warn(
                f"precision is 'bfloat16', in which a layer takes {slowdown:.1f} times as long as "
                f"in 'exact' on this processor; 'auto' would be {_best_precision(device)!r}"
            )
    if precision == "auto":
        precision = _best_precision(device)
    has_bfloat16 = cpu.has_instructions("avx512_bf16")
    if precision == "int8" and not private.has_int8_linear(
        torch.bfloat16 if has_bfloat16 else torch.float32
    ):
        return "bfloat16" if has_bfloat16 else "exact"
    return precision


@lru_cache
@torch.inference_mode()
def bfloat16_slowdown(threads: int) -> float:
    """How many times as long as exactly a linear layer takes in bfloat16 on the processor.

    The instructions alone do not tell: processors of Intel with AVX512-BF16 and without AMX are
    slower with it than in float32, those of AMD are faster. The measurement takes a tenth of a
    second.

    Args:
        threads: of torch, for which the cache keeps the result.
    """
    device = torch.device("cpu")
    weight = torch.ones(TRIAL_WIDTH, TRIAL_WIDTH, device=device)
    bias = torch.zeros(TRIAL_WIDTH, device=device)
    layers = [
        (linear(weight, bias), linear.dtype)
        for linear in (_bfloat16(device), float32_linear(device))
    ]
    times: list[list[float]] = [[], []]
    for _ in range(TRIAL_RUNS):
        for (layer, dtype), taken in zip(layers, times, strict=True):
            x = torch.ones(TRIAL_ROWS, TRIAL_WIDTH, dtype=dtype, device=device)
            started = time.perf_counter()
            layer(x)
            taken.append(time.perf_counter() - started)
    low, exact = (statistics.median(taken) for taken in times)
    return low / exact


def _best_precision(device: torch.device) -> str:
    """Resolve 'auto' on a device."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if has_bfloat16 else "exact"
    return "int8" if cpu.has_onednn(device) and cpu.has_instructions("avx512_vnni") else "exact"


def plan_layers(precision: str, device: torch.device, quantize_values: bool = False) -> LayerPlan:
    """Choose layers and attention for a precision on a device.

    In 'int8' queries, keys and the feed-forward layers have 8 bits; attention itself, the last
    layer, and the layers for the experts' features are in bfloat16, or exact. In 'bfloat16' on
    CUDA the sums and norms stay in float32, as they do under `torch.autocast`; on a processor they
    are in bfloat16, which is faster. The last layer attends to numbers of the residual
    dtype.

    Args:
        precision: from `resolve_precision`.
        quantize_values: in 'int8' the values and the output of an attention have 8 bits, too, but
            in the first layer. That takes less time. Texts stay near enough; a video with a single
            token would not.
    """
    if precision not in RESOLVED:
        raise ValueError(f"precision is {precision!r}, expected one from resolve_precision")
    has_onednn = cpu.has_onednn(device)
    has_bfloat16 = cpu.has_instructions("avx512_bf16")
    is_low = has_bfloat16 and precision != "exact"
    min_tokens = (FEW_TOKENS if is_low else MANY_TOKENS) if has_onednn else None
    attention = plan_attention(precision, device)
    if precision == "int8":
        full: type[TorchLinear] = _bfloat16(device) if has_bfloat16 else float32_linear(device)
        query_key = partial(Int8Linear.consume, dtype=full.dtype)
        wide = Int8Linear.consume
        value, output = (query_key, wide) if quantize_values else (full.consume, full.consume)
        return LayerPlan(
            query_key, value, output, wide, full.consume, torch.float32, attention,
            needs_calibration=True, min_tokens_per_thread=min_tokens,
        )  # fmt: skip
    linear = _bfloat16(device) if precision == "bfloat16" else float32_linear(device)
    residual_dtype = linear.dtype if device.type == "cpu" else torch.float32
    return plan_alike(linear.consume, residual_dtype, attention, min_tokens)


def plan_alike(
    linear: ConsumeLinear,
    residual_dtype: torch.dtype,
    attention: MakeAttention,
    min_tokens_per_thread: int | None = None,
) -> LayerPlan:
    """A plan in which all linear layers are of one kind."""
    return LayerPlan(
        linear, linear, linear, linear, linear, residual_dtype, attention,
        min_tokens_per_thread=min_tokens_per_thread,
    )  # fmt: skip


def plan_attention(precision: str, device: torch.device) -> MakeAttention:
    """Choose the attention for a precision on a device."""
    if cpu.has_onednn(device) and cpu.has_avx512():  # with AVX2 it gains nothing
        return partial(GroupedAttention, attention=batched_attention)
    if device.type != "cuda" or torch.version.hip is not None:  # AMD's kernel masks no tokens
        return GroupedAttention
    dtypes = [torch.float32]  # in which the last layer attends, in each precision
    if precision == "bfloat16":
        if torch.cuda.get_device_capability(device) < (8, 0):
            return GroupedAttention
        dtypes.append(torch.bfloat16)
    if all(private.has_varlen_attention(device, dtype) for dtype in dtypes):
        return VarlenAttention
    return GroupedAttention


def _bfloat16(device: torch.device) -> type[TorchLinear]:
    if (
        cpu.has_onednn(device)
        and private.supports_bfloat16()
        and private.has_packed_linear(torch.bfloat16)
    ):
        return OneDnnLinearBFloat16
    return TorchLinearBFloat16

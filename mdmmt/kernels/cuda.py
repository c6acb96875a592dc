"""Operators of irCSN-152 on CUDA, by kernels of Triton where those run.

Triton comes with torch for CUDA, and compiles a kernel at its first use, which takes a C compiler
and a few seconds; it keeps what it compiled in a cache of its own. Each kernel stands behind a
probe, see `mdmmt.kernels.private`: where it cannot be used, public operators of torch take its
place.

Shape notation: k clips, t frames, h w pixels, c d channels, n rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .private import agrees, small_numbers

# The stem of irCSN-152 sees 3 frames of 7 x 7 pixels of 3 colours, and takes every second pixel.
STEM_FRAMES, STEM_SIDE, COLOURS = 3, 7, 3
LINE_WEIGHTS = 32  # for a line of a frame: STEM_SIDE * COLOURS, and zeros
LINE_PIXELS = 16  # the length of a padded line is a multiple of this, for fast loads
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2**-7}


def depthwise_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """relu(the depth-wise 3 x 3 x 3 convolution of x with a border of zeros).

    cuDNN's takes three quarters of the time of irCSN-152 in float16.

    Args:
        x: [k, t, h, w, c], contiguous. On CUDA c is a multiple of 64, or a power of 2.
        weight: [27, c].
        bias: [c].
        stride: in time, height and width.

    Returns:
        [k, t / stride, h / stride, w / stride, c], each rounded up.
    """
    if x.is_cuda and has_depthwise(x.device, x.dtype):
        with torch.cuda.device_of(x):
            return _kernels().depthwise_relu(x.contiguous(), weight, bias, stride)
    return _depthwise_relu(x, weight, bias, stride)


def _depthwise_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    c = len(bias)
    y = F.conv3d(x.permute(0, 4, 1, 2, 3), weight.t().reshape(c, 1, 3, 3, 3), bias, stride, 1, 1, c)
    return y.relu_().permute(0, 2, 3, 4, 1)


def add_linear_relu(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """relu(out + the linear layer of x), in the memory of `out`.

    Args:
        out: [n, d], contiguous. On CUDA d is a multiple of 128, or a power of 2.
        x: [n, c], contiguous. On CUDA c is a multiple of 64, or a power of 2 from 16.
        weight: [d, c], contiguous.
        bias: [d].
    """
    if x.is_cuda and has_add_linear(x.device, x.dtype):
        with torch.cuda.device_of(x):
            _kernels().add_linear_relu(out, x, weight, bias)
    else:
        _add_linear_relu(out, x, weight, bias)


def _add_linear_relu(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    out.add_(F.linear(x, weight, bias)).relu_()


def stem_weight(weight: Tensor) -> Tensor:
    """Lay out a weight [d, 3 colours, 3, 7, 7] as `stem_relu` needs it: [21 * 32, d]"""
    lines = weight.permute(2, 3, 4, 1, 0).reshape(STEM_FRAMES * STEM_SIDE, -1, len(weight))
    return F.pad(lines, (0, 0, 0, LINE_WEIGHTS - lines.shape[1])).flatten(0, 1).contiguous()


def stem_input(clips: Tensor, border: Tensor) -> Tensor:
    """Put a border of a colour around each clip, as `stem_relu` needs it.

    Args:
        clips: [k, t, h, w, 3].
        border: [3].

    Returns:
        [k, t + 2, h + 6, more than 3 * (w + 6)] of the dtype of `border`.
    """
    k, t, h, w, _ = clips.shape
    side = STEM_SIDE // 2
    # A program reads 32 numbers of a line for the last pixel, though it needs 21.
    line = -(-(w + 2 * side + 4) // LINE_PIXELS) * LINE_PIXELS
    x = border.repeat(k, t + STEM_FRAMES - 1, h + 2 * side, line, 1)
    x[:, 1 : 1 + t, side : side + h, side : side + w] = clips
    return x.flatten(3)


def stem_relu(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
    """relu(the first convolution of irCSN-152).

    Args:
        x: from `stem_input`.
        weight: from `stem_weight`.
        bias: [d]. On CUDA d is a power of 2 from 16.
        height, width: of the clips.

    Returns:
        [k, t, h / 2, w / 2, d], each rounded up.
    """
    if x.is_cuda and has_stem(x.device, x.dtype):
        with torch.cuda.device_of(x):
            return _kernels().stem_relu(x, weight, bias, height, width)
    return _stem_relu(x, weight, bias, height, width)


def _stem_relu(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
    lines = weight.view(STEM_FRAMES * STEM_SIDE, LINE_WEIGHTS, -1)[:, : STEM_SIDE * COLOURS]
    kernel = lines.reshape(STEM_FRAMES, STEM_SIDE, STEM_SIDE, COLOURS, -1).permute(4, 3, 0, 1, 2)
    clips = x.unflatten(3, (-1, COLOURS))[:, :, :, : width + STEM_SIDE - 1]
    y = F.conv3d(clips.permute(0, 4, 1, 2, 3), kernel, bias.to(x.dtype), (1, 2, 2))
    return y.relu_().permute(0, 2, 3, 4, 1).contiguous()


def max_pool(x: Tensor) -> Tensor:
    """The greatest of 3 x 3 pixels, at every second one, of numbers that are not negative.

    Args:
        x: [n, h, w, c], contiguous. On CUDA c is a power of 2.

    Returns:
        [n, h / 2, w / 2, c], each rounded up.
    """
    if x.is_cuda and has_max_pool(x.device, x.dtype):
        with torch.cuda.device_of(x):
            return _kernels().max_pool(x)
    return _max_pool(x)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x.permute(0, 3, 1, 2), 3, 2, 1).permute(0, 2, 3, 1).contiguous()


@lru_cache
def has_depthwise(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton's depth-wise convolution computes what `F.conv3d` does."""

    def compare() -> Iterator[tuple[Tensor, Tensor]]:
        x = _numbers((2, 3, 5, 4, 32), 7, device, dtype)
        weight, bias = _numbers((27, 32), 5, device, dtype), _numbers((32,), 3, device, dtype)
        for stride in (1, 2):
            yield (
                _kernels().depthwise_relu(x, weight, bias, stride),
                _depthwise_relu(x, weight, bias, stride).contiguous(),
            )

    return _agrees("depth-wise convolution", "torch.nn.functional.conv3d", compare, device)


@lru_cache
def has_add_linear(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton's sum with a linear layer computes what `F.linear` does."""

    def compare() -> Iterator[tuple[Tensor, Tensor]]:
        x, out = _numbers((70, 32), 7, device, dtype), _numbers((70, 64), 9, device, dtype)
        weight, bias = _numbers((64, 32), 5, device, dtype), _numbers((64,), 3, device, dtype)
        public = out.clone()
        _add_linear_relu(public, x, weight, bias)
        _kernels().add_linear_relu(out, x, weight, bias)
        yield out, public

    return _agrees("linear layer", "torch.nn.functional.linear", compare, device)


@lru_cache
def has_stem(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton's first convolution computes what `F.conv3d` does."""

    def compare() -> Iterator[tuple[Tensor, Tensor]]:
        clips = _numbers((2, 2, 6, 10, COLOURS), 7, device, dtype)
        weight = stem_weight(_numbers((16, COLOURS, 3, 7, 7), 5, device, dtype) / 4)
        bias = _numbers((16,), 3, device, torch.float32)
        x = stem_input(clips, _numbers((COLOURS,), 3, device, dtype))
        yield _kernels().stem_relu(x, weight, bias, 6, 10), _stem_relu(x, weight, bias, 6, 10)

    return _agrees("first convolution", "torch.nn.functional.conv3d", compare, device)


@lru_cache
def has_max_pool(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton's pooling computes what `F.max_pool2d` does."""

    def compare() -> Iterator[tuple[Tensor, Tensor]]:
        x = _numbers((2, 5, 6, 16), 7, device, dtype).relu_()
        yield _kernels().max_pool(x), _max_pool(x)

    return _agrees("pooling", "torch.nn.functional.max_pool2d", compare, device)


def _kernels() -> Any:
    from . import triton_kernels  # imported late: torch for processors has no Triton

    return triton_kernels


def _agrees(name: str, instead: str, compare: Any, device: torch.device) -> bool:
    with torch.cuda.device(device if device.type == "cuda" else -1):
        return agrees(f"Triton's {name}", instead, compare, device, TOLERANCE)


def _numbers(
    shape: tuple[int, ...], period: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    count = torch.Size(shape).numel()
    return (small_numbers(count, period) / 4).view(shape).to(device, dtype)

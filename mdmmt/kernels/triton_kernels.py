"""The kernels of Triton behind `mdmmt.kernels.cuda`, which alone imports this module.

All tensors are contiguous, with their channels last.

Shape notation: k clips, t frames, h w pixels, c d channels, n rows.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# What one program computes, and the warps it takes. These were the fastest of some ten choices for
# irCSN-152 on an H200.
STENCIL_PIXELS, STENCIL_CHANNELS, STENCIL_WARPS = 32, 64, 4
LINEAR_ROWS, LINEAR_COLUMNS, LINEAR_INPUTS, LINEAR_WARPS, LINEAR_STAGES = 64, 128, 64, 4, 3
STEM_PIXELS, STEM_WARPS = 128, 4
POOL_PIXELS, POOL_WARPS = 8, 2
WINDOW = 32  # numbers of a line that a program of the stem takes for one pixel


@triton.jit  # type: ignore[untyped-decorator]
def _walk(  # type: ignore[no-untyped-def]
    x, weight, bias, out, frames, height, width,
    channels: tl.constexpr, pixels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The depth-wise convolution without a stride.

    A program computes some pixels of a line in all frames, and so reads each frame once. The 9
    products of a frame are added in the dtype of x, their sums in float32.
    """
    line = tl.program_id(0) % height
    clip = tl.program_id(0) // height
    columns = tl.program_id(1) * pixels + tl.arange(0, pixels)
    lanes = tl.program_id(2) * block + tl.arange(0, block)
    inside = columns < width
    start = tl.zeros((pixels, block), tl.float32) + tl.load(bias + lanes)[None, :].to(tl.float32)
    before = start  # of the output's frame before this one, which lacks this one's part
    now = start
    for frame in range(0, frames):
        to_next = tl.zeros((pixels, block), x.dtype.element_ty)
        to_same = to_next
        to_last = to_next
        for j in tl.static_range(3):
            y = line + j - 1
            in_clip = (y >= 0) & (y < height)
            first = ((clip * frames + frame) * height + y).to(tl.int64) * width
            for i in tl.static_range(3):
                column = columns + i - 1
                is_there = in_clip & (column >= 0) & (column < width)
                place = (first + column)[:, None] * channels + lanes[None, :]
                value = tl.load(x + place, mask=is_there[:, None], other=0.0)
                factor = weight + (j * 3 + i) * channels + lanes
                to_next += value * tl.load(factor)[None, :]
                to_same += value * tl.load(factor + 9 * channels)[None, :]
                to_last += value * tl.load(factor + 18 * channels)[None, :]
        total = tl.maximum(before + to_last.to(tl.float32), 0.0).to(out.dtype.element_ty)
        row = ((clip * frames + frame - 1) * height + line).to(tl.int64) * width
        place = (row + columns)[:, None] * channels + lanes[None, :]
        tl.store(out + place, total, mask=(inside & (frame > 0))[:, None])
        before = now + to_same.to(tl.float32)
        now = start + to_next.to(tl.float32)
    row = ((clip * frames + frames - 1) * height + line).to(tl.int64) * width
    place = (row + columns)[:, None] * channels + lanes[None, :]
    total = tl.maximum(before, 0.0).to(out.dtype.element_ty)
    tl.store(out + place, total, mask=inside[:, None])


@triton.jit  # type: ignore[untyped-decorator]
def _stride(  # type: ignore[no-untyped-def]
    x, weight, bias, out, frames, height, width, out_frames, out_height, out_width,
    channels: tl.constexpr, stride: tl.constexpr, pixels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The depth-wise convolution with a stride. A program computes some pixels of a line."""
    row = tl.program_id(0)
    line = row % out_height
    time = (row // out_height) % out_frames
    clip = row // (out_height * out_frames)
    columns = tl.program_id(1) * pixels + tl.arange(0, pixels)
    lanes = tl.program_id(2) * block + tl.arange(0, block)
    total = tl.zeros((pixels, block), tl.float32) + tl.load(bias + lanes)[None, :].to(tl.float32)
    for f in tl.static_range(3):
        frame = time * stride + f - 1
        of_frame = tl.zeros((pixels, block), x.dtype.element_ty)
        for j in tl.static_range(3):
            y = line * stride + j - 1
            in_clip = (frame >= 0) & (frame < frames) & (y >= 0) & (y < height)
            first = ((clip * frames + frame) * height + y).to(tl.int64) * width
            for i in tl.static_range(3):
                column = columns * stride + i - 1
                is_there = in_clip & (column >= 0) & (column < width)
                place = (first + column)[:, None] * channels + lanes[None, :]
                value = tl.load(x + place, mask=is_there[:, None], other=0.0)
                factor = tl.load(weight + (f * 9 + j * 3 + i) * channels + lanes)
                of_frame += value * factor[None, :]
        total += of_frame.to(tl.float32)
    place = (row.to(tl.int64) * out_width + columns)[:, None] * channels + lanes[None, :]
    total = tl.maximum(total, 0.0).to(out.dtype.element_ty)
    tl.store(out + place, total, mask=(columns < out_width)[:, None])


def depthwise_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """See `cuda.depthwise_relu`."""
    k, *size, c = x.shape
    t, h, w = (-(-side // stride) for side in size)
    out = torch.empty(k, t, h, w, c, device=x.device, dtype=x.dtype)
    block = min(c, STENCIL_CHANNELS)
    lines = k * h if stride == 1 else k * t * h
    grid = lines, triton.cdiv(w, STENCIL_PIXELS), c // block
    walk: Any = _walk
    strided: Any = _stride
    if stride == 1:
        walk[grid](x, weight, bias, out, t, h, w, c, STENCIL_PIXELS, block, num_warps=STENCIL_WARPS)
    else:
        strided[grid](
            x, weight, bias, out, *size, t, h, w, c, stride, STENCIL_PIXELS, block,
            num_warps=STENCIL_WARPS,
        )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _add_linear(  # type: ignore[no-untyped-def]
    out, x, weight, bias, count, d, c,
    rows: tl.constexpr, columns: tl.constexpr, inputs: tl.constexpr,
):  # fmt: skip
    """A program computes a block of rows and columns of the output."""
    blocks = d // columns
    row = (tl.program_id(0) // blocks) * rows + tl.arange(0, rows)
    column = (tl.program_id(0) % blocks) * columns + tl.arange(0, columns)
    step = tl.arange(0, inputs)
    is_there = (row < count)[:, None]
    row = row.to(tl.int64)[:, None]
    total = tl.zeros((rows, columns), tl.float32)
    of_rows = x + row * c + step[None, :]
    of_columns = weight + step[:, None] + column[None, :] * c
    for i in range(0, c, inputs):
        part = tl.load(of_rows + i, mask=is_there, other=0.0)
        total = tl.dot(part, tl.load(of_columns + i), total)
    place = out + row * d + column[None, :]
    total += tl.load(place, mask=is_there, other=0.0).to(tl.float32)
    total += tl.load(bias + column)[None, :].to(tl.float32)
    tl.store(place, tl.maximum(total, 0.0).to(out.dtype.element_ty), mask=is_there)


def add_linear_relu(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """See `cuda.add_linear_relu`."""
    (n, c), d = x.shape, len(weight)
    columns, inputs = min(d, LINEAR_COLUMNS), min(c, LINEAR_INPUTS)
    add: Any = _add_linear
    add[(triton.cdiv(n, LINEAR_ROWS) * (d // columns),)](
        out, x, weight, bias, n, d, c, LINEAR_ROWS, columns, inputs,
        num_warps=LINEAR_WARPS, num_stages=LINEAR_STAGES,
    )  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator]
def _stem(  # type: ignore[no-untyped-def]
    x, weight, bias, out, frames, lines, out_height, out_width, line,
    pixels: tl.constexpr, window: tl.constexpr, channels: tl.constexpr,
):  # fmt: skip
    """A program computes some pixels of a line of the output.

    A pixel of the output sees 7 lines of 3 frames: 7 pixels of 3 colours of each, which lie side by
    side, so each line is one matrix product.
    """
    row = tl.program_id(0)
    y = row % out_height
    time = (row // out_height) % frames
    clip = row // (out_height * frames)
    columns = tl.program_id(1) * pixels + tl.arange(0, pixels)
    is_there = (columns < out_width)[:, None]
    step = tl.arange(0, window)
    lanes = tl.arange(0, channels)
    total = tl.zeros((pixels, channels), tl.float32)
    first = x + ((clip * (frames + 2) + time).to(tl.int64) * lines + y * 2) * line
    windows = columns[:, None] * 6 + step[None, :]
    for i in range(21):
        begin = first + ((i // 7) * lines + i % 7) * line
        part = tl.load(begin + windows, mask=is_there, other=0.0)
        factor = tl.load(weight + (i * window + step[:, None]) * channels + lanes[None, :])
        total = tl.dot(part, factor, total)
    total = tl.maximum(total + tl.load(bias + lanes)[None, :].to(tl.float32), 0.0)
    place = (row.to(tl.int64) * out_width + columns)[:, None] * channels + lanes[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=is_there)


def stem_relu(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
    """See `cuda.stem_relu`."""
    k, frames, lines, line = x.shape
    t, h, w, channels = frames - 2, -(-height // 2), -(-width // 2), weight.shape[1]
    out = torch.empty(k, t, h, w, channels, device=x.device, dtype=x.dtype)
    stem: Any = _stem
    stem[(k * t * h, triton.cdiv(w, STEM_PIXELS))](
        x, weight, bias, out, t, lines, h, w, line, STEM_PIXELS, WINDOW, channels,
        num_warps=STEM_WARPS,
    )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _max_pool(  # type: ignore[no-untyped-def]
    x, out, height, width, out_height, out_width, channels: tl.constexpr, pixels: tl.constexpr
):
    """A program computes some pixels of a line of the output."""
    row = tl.program_id(0)
    picture = row // out_height
    columns = tl.program_id(1) * pixels + tl.arange(0, pixels)
    lanes = tl.arange(0, channels)
    greatest = tl.zeros((pixels, channels), x.dtype.element_ty)
    for j in tl.static_range(3):
        y = (row % out_height) * 2 + j - 1
        first = (picture * height + y).to(tl.int64) * width
        for i in tl.static_range(3):
            column = columns * 2 + i - 1
            is_there = (y >= 0) & (y < height) & (column >= 0) & (column < width)
            place = (first + column)[:, None] * channels + lanes[None, :]
            greatest = tl.maximum(greatest, tl.load(x + place, mask=is_there[:, None], other=0.0))
    place = (row.to(tl.int64) * out_width + columns)[:, None] * channels + lanes[None, :]
    tl.store(out + place, greatest, mask=(columns < out_width)[:, None])


def max_pool(x: Tensor) -> Tensor:
    """See `cuda.max_pool`."""
    n, height, width, c = x.shape
    h, w = -(-height // 2), -(-width // 2)
    out = torch.empty(n, h, w, c, device=x.device, dtype=x.dtype)
    pool: Any = _max_pool
    pool[(n * h, triton.cdiv(w, POOL_PIXELS))](
        x, out, height, width, h, w, c, POOL_PIXELS, num_warps=POOL_WARPS
    )
    return out

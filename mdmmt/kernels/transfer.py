"""Tensors from the CPU to the device that computes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

MANY_STRETCHES = 8


def upload(x: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor to a device; to CUDA from pinned memory, so that nothing waits for the copy.

    Args:
        x: on the CPU.
    """
    if device.type != "cuda" or not len(x):
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def gather(rows: list[Tensor], device: torch.device) -> Tensor:
    """Join tensors of shape [n, ...] along n, on a device."""
    if any(part.device.type != "cpu" for part in rows):
        return torch.cat([part.to(device) for part in rows])
    if device.type != "cuda" or not any(map(len, rows)):
        return torch.cat(rows).to(device)
    shape = (sum(map(len, rows)), *rows[0].shape[1:])
    pinned = torch.empty(shape, dtype=rows[0].dtype, device="cpu", pin_memory=True)
    _join(rows, pinned)
    return pinned.to(device, non_blocking=True)


def _join(rows: list[Tensor], out: Tensor) -> None:
    """Write tensors of shape [n, ...] one after another into `out`.

    A copy of a large tensor takes all cores, but each copy has a price of its own, and so has each
    tensor of `torch.cat`.
    """
    stretches = list(_stretches(rows))
    if len(stretches) > MANY_STRETCHES:
        np.concatenate([stretch.numpy() for stretch in stretches], out=out.numpy())
        return
    for place, stretch in zip(out.split([*map(len, stretches)]), stretches, strict=True):
        place.copy_(stretch)


def _stretches(rows: list[Tensor]) -> Iterator[Tensor]:
    """The same rows in fewer tensors: those that lie side by side in memory become one."""
    run: list[Tensor] = []
    for part in filter(len, rows):
        if run and not _follows(part, run[-1]):
            yield _as_one(run)
            run = []
        run.append(part)
    yield _as_one(run)


def _as_one(run: list[Tensor]) -> Tensor:
    shape = (sum(map(len, run)), *run[0].shape[1:])
    return run[0].as_strided(shape, run[0].stride())


def _follows(part: Tensor, last: Tensor) -> bool:
    """Whether a tensor begins in memory where the last one ends, in the same storage."""
    return (
        part.dtype == last.dtype
        and part.stride() == last.stride()
        and part.storage_offset() == last.storage_offset() + last.numel()
        and part.is_contiguous()
        and last.is_contiguous()
        and part.untyped_storage().data_ptr() == last.untyped_storage().data_ptr()
    )

"""Tensors from the CPU to the device that computes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


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
    # `torch.cat` takes longer with many tensors, and the device would wait.
    np.concatenate([part.numpy() for part in rows], out=pinned.numpy())
    return pinned.to(device, non_blocking=True)

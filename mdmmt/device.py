"""The device on which a model runs."""

from __future__ import annotations

import torch

from .errors import InputError, InputTypeError


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The torch device of a name; None means CUDA if there is a GPU, else the CPU.

    'mps' is the GPU of Apple's processors. Nobody has run this package on one yet, so only a name
    chooses it.

    Raises:
        InputError, InputTypeError: not a device, one that this package does not run on, or one
            that this machine lacks.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    expected = "expected 'cpu', 'cuda', 'cuda:N', 'mps' or None"
    if not isinstance(device, str | torch.device):
        raise InputTypeError(f"device is a {type(device).__name__}, {expected}")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device is {device!r}, {expected}") from error
    if resolved.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device is {str(device)!r}, {expected}")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {str(device)!r}, but torch sees {torch.cuda.device_count()} CUDA devices "
            "here; device='cpu' needs no GPU, device=None chooses"
        )
    is_there = torch.backends.mps.is_available() and not resolved.index
    if resolved.type == "mps" and not is_there:
        raise InputError(
            f"device is {str(device)!r}, which torch does not see here; device='cpu' needs no GPU"
        )
    return resolved

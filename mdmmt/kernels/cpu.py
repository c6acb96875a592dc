"""The capabilities of the processor, and of oneDNN and OpenVINO on it."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from typing import Any

import torch


def has_onednn(device: torch.device) -> bool:
    """Whether oneDNN's operators take tensors of this device: on x86 processors alone."""
    return _is_x86(device) and torch.backends.mkldnn.is_available()


def has_openvino(device: torch.device) -> bool:
    """Whether OpenVINO, which is an extra, takes the place of torch: on x86 processors alone."""
    return _is_x86(device) and find_spec("openvino") is not None


def _is_x86(device: torch.device) -> bool:
    return device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")


def has_avx512() -> bool:
    """Whether torch computes in AVX512 here; ATEN_CPU_CAPABILITY can restrict it to less."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def has_instructions(name: str) -> bool:
    """Whether the processor has a further set of AVX512 instructions, such as 'avx512_vnni'.

    Old releases of torch do not tell, and count as having none.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return has_avx512() and bool(capabilities.get(name))

"""What torch tells of the processor, and what is made of it."""

from __future__ import annotations

import platform

import pytest
import torch

from mdmmt.kernels.cpu import has_avx512, has_instructions, has_onednn


@pytest.mark.parametrize(
    ("machine", "device", "built", "has"),
    [
        ("x86_64", "cpu", True, True),
        ("AMD64", "cpu", True, True),
        ("aarch64", "cpu", True, False),
        ("x86_64", "cuda", True, False),
        ("x86_64", "cpu", False, False),
    ],
)
def test_has_onednn_needs_an_x86_processor(machine, device, built, has, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: built)
    assert has_onednn(torch.device(device)) is has


@pytest.mark.parametrize(
    ("capability", "vnni", "has"),
    [("AVX512", True, True), ("AVX512", False, False), ("AVX2", True, False)],
)
def test_has_instructions_needs_avx512_in_use(capability, vnni, has, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": vnni}, raising=False)
    assert has_avx512() is (capability == "AVX512")
    assert has_instructions("avx512_vnni") is has
    assert has_instructions("avx512_of_another_name") is False


def test_has_instructions_is_false_where_torch_does_not_tell(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_instructions("avx512_vnni") is False

"""What a precision means on a device."""

from __future__ import annotations

import pytest
import torch
from fast_towers import CPU, on_x86

from mdmmt import InputError
from mdmmt.config import PRECISIONS
from mdmmt.fast import precision, resolve_precision
from mdmmt.fast.attention import (
    GroupedAttention,
    SequenceGroup,
    VarlenAttention,
    batched_attention,
)
from mdmmt.fast.precision import plan_layers
from mdmmt.kernels import cpu, private
from mdmmt.kernels.linear import OneDnnLinear, TorchLinearBFloat16


def test_resolve_precision_refuses_other_names():
    assert resolve_precision("exact", CPU) == "exact"
    assert resolve_precision("bfloat16", CPU) == "bfloat16"
    assert resolve_precision("auto", CPU) in ("exact", "int8")
    with pytest.raises(InputError, match="precision is 'fp8', expected one of exact, bfloat16"):
        resolve_precision("fp8", CPU)


@on_x86
def test_resolve_precision_looks_at_the_processor(monkeypatch):
    for capability, vnni, wanted in (
        ("AVX512", True, "int8"),
        ("AVX512", False, "exact"),
        ("AVX2", True, "exact"),
    ):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda v=vnni: {"avx512_vnni": v}, raising=False
        )
        assert resolve_precision("auto", CPU) == wanted


def test_resolve_precision_needs_x86_for_int8(monkeypatch):
    with pytest.raises(InputError, match="needs an x86 processor"):
        resolve_precision("int8", torch.device("cuda"))
    monkeypatch.setattr(cpu, "has_onednn", lambda device: False)
    assert resolve_precision("auto", CPU) == "exact"
    with pytest.raises(InputError, match="needs an x86 processor"):
        resolve_precision("int8", CPU)


@on_x86
def test_plan_layers_gives_threads_fewer_tokens_in_bfloat16(monkeypatch):
    for names, low in ((("avx512_vnni", "avx512_bf16"), 8), (("avx512_vnni",), 96), ((), 96)):
        monkeypatch.setattr(cpu, "has_instructions", lambda name, names=names: name in names)
        precisions = ("exact", "bfloat16", "int8")
        min_tokens = [plan_layers(one, CPU).min_tokens_per_thread for one in precisions]
        assert min_tokens == [96, low, low]
    monkeypatch.setattr(cpu, "has_onednn", lambda device: False)
    assert plan_layers("exact", CPU).min_tokens_per_thread is None
    assert plan_layers("bfloat16", torch.device("meta")).min_tokens_per_thread is None


@on_x86
def test_plan_layers_without_bfloat16(monkeypatch):
    """Torch's own way, and beside 8-bit weights float32."""
    monkeypatch.setattr(private, "supports_bfloat16", lambda: False)
    monkeypatch.setattr(cpu, "has_instructions", lambda name: False)
    assert plan_layers("bfloat16", CPU).feed_forward == TorchLinearBFloat16.consume
    assert plan_layers("int8", CPU).full_precision == OneDnnLinear.consume


@pytest.mark.parametrize(
    ("name", "capability", "hip", "varlen"),
    [
        ("exact", (7, 0), None, True),
        ("bfloat16", (7, 5), None, False),  # has no such kernel
        ("bfloat16", (8, 0), None, True),
        ("exact", (9, 0), "6.4", False),  # AMD's kernel does not mask tokens
    ],
)
def test_plan_layers_takes_varlen_attention_on_cuda(name, capability, hip, varlen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(private, "has_varlen_attention", lambda device, dtype: True)
    attention = plan_layers(name, torch.device("cuda")).attention
    assert attention is (VarlenAttention if varlen else GroupedAttention)


@on_x86
@pytest.mark.parametrize("name", PRECISIONS)
def test_plan_layers_takes_batched_attention_with_avx512(name, monkeypatch):
    for capability in ("AVX512", "AVX2"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        plan = precision.plan_layers(resolve_precision(name, CPU), CPU)
        attend = plan.attention([SequenceGroup(1, 2, 0)], CPU)
        assert (attend.attention is batched_attention) == (capability == "AVX512")

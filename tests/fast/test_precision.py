"""What a precision means on a device."""

from __future__ import annotations

import time
import warnings

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
from mdmmt.fast.precision import bfloat16_slowdown, plan_layers
from mdmmt.kernels import cpu, private
from mdmmt.kernels.linear import OneDnnLinear, TorchLinearBFloat16


def test_resolve_precision_refuses_other_names():
    assert resolve_precision("exact", CPU) == "exact"
    assert resolve_precision("bfloat16", CPU) == "bfloat16"
    assert resolve_precision("auto", CPU) in ("exact", "int8")
    with pytest.raises(InputError, match="precision is 'fp8', expected one of exact, bfloat16"):
        resolve_precision("fp8", CPU)


def test_resolve_precision_warns_where_bfloat16_is_slower(monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_slowdown", lambda threads: 1.66)
    with pytest.warns(UserWarning, match="takes 1.7 times as long as in 'exact' on this proc") as w:
        assert resolve_precision("bfloat16", CPU) == "bfloat16"
    assert w[0].filename == __file__
    monkeypatch.setattr(precision, "bfloat16_slowdown", lambda threads: 1.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve_precision("bfloat16", CPU)
        monkeypatch.setattr(precision, "bfloat16_slowdown", lambda threads: 1.66)
        for other in ("exact", "int8", "auto"):
            if other != "int8" or cpu.has_onednn(CPU):
                resolve_precision(other, CPU)


@pytest.mark.parametrize("slow", [torch.bfloat16, torch.float32])
def test_bfloat16_slowdown_is_the_ratio_of_the_times(monkeypatch, slow):
    """A layer that sleeps before each product is the slower one."""

    def make(dtype):
        class Layer:
            def __init__(self, weight, bias):
                self.dtype = dtype

            def __call__(self, x):
                assert x.dtype == dtype
                time.sleep(0.02 if dtype == slow else 0.001)

        Layer.dtype = dtype
        return lambda device: Layer

    monkeypatch.setattr(precision, "_bfloat16", make(torch.bfloat16))
    monkeypatch.setattr(precision, "float32_linear", make(torch.float32))
    bfloat16_slowdown.cache_clear()
    ratio = bfloat16_slowdown(1)
    bfloat16_slowdown.cache_clear()
    assert (ratio > 3) if slow == torch.bfloat16 else (ratio < 1 / 3)


def test_bfloat16_slowdown_leaves_random_numbers_alone():
    before = torch.get_rng_state()
    bfloat16_slowdown.cache_clear()
    assert 0 < bfloat16_slowdown(torch.get_num_threads()) < 1000
    assert torch.equal(torch.get_rng_state(), before)


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

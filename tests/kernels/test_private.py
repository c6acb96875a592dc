"""Torch's private operators: without them, or with wrong ones, the vectors are the same."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from emulation import efficient_attention, forgotten_probes
from fast_towers import (
    CPU,
    TINY_COSINE,
    is_close,
    make_video,
    min_cosine,
    on_x86,
    run_plain_video,
)

from mdmmt.fast import FastVideoTower, resolve_precision, towers
from mdmmt.fast.attention import GroupedAttention, VarlenAttention
from mdmmt.fast.precision import bfloat16_slowdown, plan_layers
from mdmmt.kernels import cpu, private
from mdmmt.kernels.linear import Int8Linear

# Their results are no usual tensors.
PACKING = (
    "_reorder_linear_weight",
    "_reorder_convolution_weight",
    "qlinear_prepack",
)


class Operators:
    """The operators of one namespace of torch, with another operator or none of one name."""

    def __init__(self, operators: object, name: str, replacement: Callable | None) -> None:
        self.operators, self.name, self.replacement = operators, name, replacement

    def __getattr__(self, name: str) -> Any:
        if name != self.name:
            return getattr(self.operators, name)
        if self.replacement is None:
            raise AttributeError(f"there is no operator {name!r}")
        return self.replacement


@pytest.fixture(autouse=True)
def _forget_probes():
    bfloat16_slowdown(torch.get_num_threads())  # it probes too, and is measured once
    with forgotten_probes(private):
        yield


@pytest.fixture
def replace_operator(monkeypatch):
    """Replaces an operator by none, by one that raises, or by one that computes other numbers."""

    def replace(namespace: str, name: str, how: str) -> None:
        operators = getattr(torch.ops, namespace)
        original = getattr(operators, name)

        def broken(*args, **kwargs):
            raise RuntimeError("the operator takes other arguments")

        def wrong(first, *args, **kwargs):
            if name in PACKING:
                return original(first * 2, *args, **kwargs)
            result = original(first, *args, **kwargs)
            return (result[0] * 1.1, *result[1:]) if isinstance(result, tuple) else result.mul_(1.1)

        replacement = {"missing": None, "broken": broken, "wrong": wrong}[how]
        monkeypatch.setattr(torch.ops, namespace, Operators(operators, name, replacement))

    return replace


def embed(tiny, precision: str, videos):
    resolved = resolve_precision(precision, CPU)
    return [
        FastVideoTower.consume(copy.deepcopy(tiny.ours_video), resolved)(videos) for _ in range(2)
    ][1]


def check_same_vectors(tiny, precision: str, caplog, operator: str | None) -> None:
    """Two towers give the plain tower's vectors, and one warning names the operator."""
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1)), make_video((45, 1, 1))]
    wanted = run_plain_video(tiny.ours_video, videos)
    with caplog.at_level(logging.WARNING, logger="mdmmt"):
        result = embed(tiny, precision, videos)
    if precision == "exact":
        assert is_close(result, wanted)
    else:
        assert min_cosine(result, wanted, 24) > TINY_COSINE[precision]
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("mdmmt")]
    assert len(warnings) == (0 if operator is None else 1), warnings
    assert operator is None or operator in warnings[0]


@pytest.mark.parametrize("precision", ["exact", "bfloat16", pytest.param("int8", marks=on_x86)])
def test_operators_of_this_torch_pass_their_probes(tiny, precision, caplog):
    check_same_vectors(tiny, precision, caplog, None)


@on_x86
@pytest.mark.parametrize("how", ["missing", "broken", "wrong"])
@pytest.mark.parametrize("name", ["_reorder_linear_weight", "_linear_pointwise"])
@pytest.mark.parametrize("precision", ["exact", "bfloat16", "int8"])
def test_has_packed_linear_falls_back(tiny, precision, name, how, replace_operator, caplog):
    if precision == "bfloat16" and not private.supports_bfloat16():
        pytest.skip("oneDNN takes no bfloat16 here, so there is nothing to replace")
    replace_operator("mkldnn", name, how)
    check_same_vectors(tiny, precision, caplog, name)


@on_x86
@pytest.mark.parametrize(
    ("name", "how"),
    [
        *itertools.product(
            ["_reorder_convolution_weight", "_convolution_pointwise"],
            ["missing", "broken", "wrong"],
        ),
        ("_convolution_pointwise_", "missing"),
        ("_convolution_pointwise_", "broken"),
    ],
)
def test_has_packed_convolution_falls_back(name, how, replace_operator, caplog):
    assert private.has_packed_convolution()
    private.has_packed_convolution.cache_clear()
    replace_operator("mkldnn", name, how)
    with caplog.at_level(logging.WARNING, logger="mdmmt"):
        assert not private.has_packed_convolution()
    assert "torch's own convolution takes its place" in caplog.text


@on_x86
@pytest.mark.parametrize("how", ["missing", "broken", "wrong"])
@pytest.mark.parametrize("name", ["qlinear_prepack", "qlinear_pointwise"])
def test_has_int8_linear_falls_back(tiny, name, how, replace_operator, caplog):
    replace_operator("onednn", name, how)
    assert resolve_precision("int8", CPU) != "int8"
    check_same_vectors(tiny, "int8", caplog, name)


@on_x86
@pytest.mark.parametrize("how", ["missing", "broken"])
def test_supports_bfloat16_falls_back(tiny, how, replace_operator, caplog):
    replace_operator("mkldnn", "_is_mkldnn_bf16_supported", how)
    check_same_vectors(tiny, "bfloat16", caplog, "_is_mkldnn_bf16_supported")
    assert private.supports_bfloat16() == cpu.has_avx512()


@on_x86
def test_supports_bfloat16_may_be_wrong(tiny, replace_operator, monkeypatch, caplog):
    """A processor that does not have what torch says fails the probe of the product."""
    replace_operator("mkldnn", "_linear_pointwise", "broken")
    monkeypatch.setattr(private, "supports_bfloat16", lambda: True)
    check_same_vectors(tiny, "bfloat16", caplog, "_linear_pointwise")


@pytest.mark.parametrize("how", ["missing", "broken", "wrong"])
def test_in_place_activations_fall_back(tiny, how, replace_operator, monkeypatch, caplog):
    monkeypatch.setattr(cpu, "has_onednn", lambda device: False)  # so that torch's own are used
    replace_operator("aten", "gelu_", how)
    check_same_vectors(tiny, "exact", caplog, "gelu_")


@pytest.mark.parametrize("how", ["right", "missing", "broken", "wrong"])
def test_has_varlen_attention_falls_back(tiny, how, replace_operator, monkeypatch, caplog):
    """The operator is emulated: it runs on CUDA alone."""
    monkeypatch.setattr(torch.ops.aten, "_efficient_attention_forward", efficient_attention)
    if how != "right":
        replace_operator("aten", "_efficient_attention_forward", how)
    probe = private.has_varlen_attention
    monkeypatch.setattr(private, "has_varlen_attention", lambda device, dtype: probe(CPU, dtype))
    plan = plan_layers("exact", torch.device("cuda"))
    assert plan.attention is (VarlenAttention if how == "right" else GroupedAttention)
    monkeypatch.setattr(towers, "plan_layers", lambda *_, **__: plan)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (0 if how == "right" else 1)
    assert all("_efficient_attention_forward" in message for message in messages)
    caplog.clear()
    check_same_vectors(tiny, "exact", caplog, None)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_has_varlen_attention_on_cuda(dtype, cuda_without_tf32):
    assert private.has_varlen_attention(torch.device("cuda"), dtype)


@on_x86
def test_probes_do_not_touch_the_random_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    private.has_packed_linear(torch.float32)
    private.has_int8_linear(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


@on_x86
def test_probes_give_the_same_within_autocast_and_on_other_default_devices():
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        assert private.has_packed_linear(torch.float32)
        assert private.has_int8_linear(torch.float32)
        assert private.in_place_activations(CPU)["gelu"] is torch.ops.aten.gelu_


def test_int8_linear_is_what_int8_towers_use(tiny, monkeypatch):
    """So that the fallback above replaces something."""
    if resolve_precision("auto", CPU) != "int8":
        pytest.skip("int8 is not the best precision here")
    seen = []
    call = Int8Linear.__call__
    monkeypatch.setattr(
        Int8Linear, "__call__", lambda self, *args, **kw: seen.append(1) or call(self, *args, **kw)
    )
    embed(tiny, "auto", [make_video((2, 0, 3))])
    assert seen

"""Linear layers for inference, beside torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from emulation import Int8LinearByHalves
from fast_towers import CPU, on_x86
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mdmmt.kernels import cpu, linear, private
from mdmmt.towers.transformer import ACTIVATION

STEPS = linear.RANGES[0]
ACTIVATIONS = {"none": lambda y: y} | ACTIVATION
with_bfloat16 = pytest.mark.skipif(
    not (cpu.has_onednn(CPU) and private.supports_bfloat16()), reason="oneDNN takes no bfloat16"
)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])  # activations behind and in products
@pytest.mark.parametrize(
    ("kind", "atol"),
    [
        (linear.TorchLinear, 1e-5),
        (linear.TorchLinearBFloat16, 0.05),
        pytest.param(linear.OneDnnLinear, 1e-5, marks=on_x86),
        pytest.param(linear.OneDnnLinearBFloat16, 0.05, marks=with_bfloat16),
    ],
)
def test_linear_computes_what_torch_does(kind, atol, capability, activation, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    layer, x = nn.Linear(32, 8), torch.randn(5, 32)
    given = x.clone()
    with torch.inference_mode():
        wanted = ACTIVATIONS[activation](layer(x))
        result = kind.consume(layer)(x, activation)
    assert result.dtype == kind.dtype
    assert torch.allclose(result.float(), wanted, rtol=0, atol=atol)
    assert torch.equal(x, given)


@pytest.mark.parametrize(
    "kind", [linear.TorchLinear, pytest.param(linear.Int8Linear, marks=on_x86)]
)
def test_consume_empties_the_layer_and_the_constructor_does_not(kind):
    layer = nn.Linear(32, 8)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    before = weight.clone()
    built = kind(weight, bias)
    assert torch.equal(layer.weight, before)
    consumed = kind.consume(layer)
    assert layer.weight is None
    x = torch.randn(3, 32)
    assert torch.equal(consumed(x), built(x))


@settings(deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(-3, 3), st.integers(1, 200), st.integers(0, 99))
def test_quantize_rounds_to_the_nearest(scale, shift, n, seed):
    x = (torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) + shift) * scale
    given = x.clone()
    eight_bits, step, zero = linear.quantize(given, STEPS)
    assert eight_bits.dtype == torch.uint8
    back = (eight_bits.double() - zero) * step
    assert (back - x.double()).abs().max() <= step * 0.501
    assert step <= 2 * max(x.abs().max(), x.max() - x.min()) / STEPS
    assert eight_bits.max() <= STEPS + 1
    assert torch.equal(given, x)


def test_quantize_rounds_zeros_to_zero():
    eight_bits, _, zero = linear.quantize(torch.zeros(2, 3), STEPS)
    assert (eight_bits == zero).all()


@on_x86
def test_int8_linear_never_overflows():
    """Without VNNI the processor adds up two products in 16 bits."""
    layer = nn.Linear(64, 8)
    layer.weight.data = torch.ones(8, 64) - torch.arange(8)[:, None] / 4
    x = torch.cat([torch.ones(3, 64), -torch.ones(2, 64)])
    result = linear.Int8Linear.consume(copy.deepcopy(layer))(x)
    by_halves = Int8LinearByHalves.consume(copy.deepcopy(layer))(x)
    assert torch.allclose(result, by_halves, atol=1e-4)
    assert torch.allclose(result, layer(x), atol=0.5)


@on_x86
def test_int8_linear_corrects_the_bias_for_the_mean_input():
    """The exact output for the mean input, as far as the rounding of the weights is concerned."""
    layer, mean_input = nn.Linear(64, 32), torch.randn(64)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    errors = []
    for mean in (None, mean_input):
        quantized = linear.Int8Linear(weight, bias, mean)
        scale = quantized.layer.scale[:, None]
        output = ((weight / scale).round() * scale) @ mean_input + quantized.layer.bias
        errors.append((output - layer(mean_input)).abs().max().item())
    assert errors[1] < 1e-5 < 1e-3 < errors[0]


@on_x86
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_int8_linear_puts_out_either_dtype(activation):
    """Beside values in bfloat16 the queries and keys are in bfloat16, too."""
    layer, x = nn.Linear(32, 8), torch.randn(5, 32)
    with torch.no_grad():
        wanted = ACTIVATIONS[activation](layer(x))
    for dtype, atol in ((torch.float32, 0.05), (torch.bfloat16, 0.06)):
        result = linear.Int8Linear.consume(copy.deepcopy(layer), dtype=dtype)(x, activation)
        assert result.dtype == dtype
        assert torch.allclose(result.float(), wanted, rtol=0, atol=atol)


@on_x86
def test_int8_linear_uses_all_8_bits_with_vnni(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for has, ranges in ((True, linear.RANGES), (False, linear.RANGES_WITHOUT_VNNI)):
        capabilities = {"avx512_vnni": has}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda c=capabilities: c, raising=False)
        assert linear.Int8Linear.consume(nn.Linear(4, 4)).steps == ranges[0]

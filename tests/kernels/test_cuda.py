"""The operators of irCSN-152: equal to torch's own, by Triton's kernels or without them."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from emulation import forgotten_probes
from torch import Tensor
from torch.nn import functional as F

from mdmmt.kernels import cuda

CPU = torch.device("cpu")
PROBES = (cuda.has_depthwise, cuda.has_add_linear, cuda.has_stem, cuda.has_max_pool)
# The largest difference, as a share of the largest number. In float32 on CUDA cuDNN may use
# TensorFloat-32, so `cuda_without_tf32` switches that off.
TOLERANCE = {torch.float16: 3e-3, torch.float32: 1e-5}

devices = pytest.mark.parametrize(
    "device", [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.cuda)], ids=str
)
dtypes = pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)


@pytest.fixture(autouse=True)
def fresh():
    with forgotten_probes(cuda):
        yield


@pytest.fixture
def draw(device, request):
    """Draws numbers on the device; on CUDA the kernels of Triton must then run."""
    if device.type == "cuda":
        request.getfixturevalue("cuda_without_tf32")
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    return draw


def exact(x: Tensor) -> Tensor:
    """In float64 on the CPU: on CUDA torch 2.11 gives a wrong convolution of a single pixel."""
    return x.double().cpu()


def check(ours: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """wanted: of numbers from `exact`."""
    assert ours.shape == wanted.shape and ours.dtype == dtype and ours.is_contiguous()
    assert (exact(ours) - wanted).abs().max() <= TOLERANCE[dtype] * wanted.abs().max()


@devices
@dtypes
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(2, 3, 5, 4, 64), (1, 1, 1, 1, 32), (1, 4, 7, 33, 128)], ids=str)
def test_depthwise_relu_is_the_convolution(draw, device, dtype, size, stride):
    c = size[-1]
    x, weight, bias = (draw(*shape, dtype=dtype) for shape in (size, (27, c), (c,)))
    taps = exact(weight).t().reshape(c, 1, 3, 3, 3)
    wanted = F.conv3d(exact(x).movedim(-1, 1), taps, exact(bias), stride, 1, 1, c)
    ours = cuda.depthwise_relu(x, weight, bias, stride)
    check(ours.contiguous(), wanted.relu().movedim(1, -1), dtype)


@devices
@dtypes
@pytest.mark.parametrize("n", [1, 64, 151])
@pytest.mark.parametrize(("c", "d"), [(64, 256), (128, 64), (512, 128)])
def test_add_linear_relu_is_the_layer_and_the_sum(draw, device, dtype, n, c, d):
    if device.type == "cuda" and dtype == torch.float32:
        pytest.skip("on CUDA it serves float16 alone")
    out, x, weight, bias = (draw(*shape, dtype=dtype) for shape in ((n, d), (n, c), (d, c), (d,)))
    wanted = (exact(out) + F.linear(exact(x), exact(weight), exact(bias))).relu()
    cuda.add_linear_relu(out, x, weight, bias)
    check(out, wanted, dtype)


@devices
@dtypes
@pytest.mark.parametrize("size", [(1, 2, 12, 10), (2, 1, 7, 9), (1, 3, 16, 260)], ids=str)
def test_stem_relu_is_the_first_convolution(draw, device, dtype, size):
    if device.type == "cuda" and dtype == torch.float32:
        pytest.skip("on CUDA it serves float16 alone")
    *_, h, w = size
    clips = torch.randint(256, (*size, 3), generator=torch.Generator().manual_seed(1))
    clips, border = clips.to(device, torch.uint8), draw(3, dtype=dtype) * 50
    weight, bias = draw(64, 3, 3, 7, 7, dtype=dtype), draw(64, dtype=torch.float32)
    taps = exact(weight)
    centred = (exact(clips) - exact(border)).movedim(-1, 1)
    of_border = (taps.sum(dim=(2, 3, 4)) * exact(border)).sum(dim=1) + exact(bias)
    convolution = F.conv3d(centred, taps, of_border, (1, 2, 2), (1, 3, 3))
    wanted = convolution.relu().movedim(1, -1)
    x = cuda.stem_input(clips, border)
    check(cuda.stem_relu(x, cuda.stem_weight(weight), bias, h, w), wanted, dtype)


@devices
@dtypes
@pytest.mark.parametrize("size", [(2, 8, 6, 64), (1, 7, 21, 16), (3, 1, 1, 32)], ids=str)
def test_max_pool_is_the_pooling(draw, device, dtype, size):
    x = draw(*size, dtype=dtype).abs()
    wanted = F.max_pool2d(exact(x).movedim(-1, 1), 3, 2, 1).movedim(1, -1)
    check(cuda.max_pool(x), wanted, dtype)


@pytest.mark.cuda
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
def test_kernels_of_triton_pass_their_probes(probe, cuda_without_tf32, caplog):
    with caplog.at_level(logging.WARNING, logger="mdmmt"):
        assert probe(torch.device("cuda"), torch.float16)
    assert not caplog.records


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
def test_without_triton_torch_takes_the_place_of_each_kernel(probe, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "mdmmt.kernels.triton_kernels", raising=False)
    with caplog.at_level(logging.WARNING, logger="mdmmt"):
        assert not probe(CPU, torch.float16)
    (record,) = caplog.records
    assert "takes its place, which may be slower" in record.getMessage()


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
def test_a_kernel_that_computes_other_numbers_is_not_used(probe, monkeypatch, caplog):
    class Wrong:
        def __getattr__(self, name):
            def run(*arguments):
                public = getattr(cuda, f"_{name}")(*arguments)
                if public is None:  # the sum of `add_linear_relu` is in place
                    arguments[0].add_(1)
                    return None
                return public + 1

            return run

    monkeypatch.setattr(cuda, "_kernels", Wrong)
    with caplog.at_level(logging.WARNING, logger="mdmmt"):
        assert not probe(CPU, torch.float16)
    assert "it computes other numbers" in caplog.text

"""Tensors on their way to the device."""

from __future__ import annotations

import pytest
import torch
from fast_towers import CPU

from mdmmt.fast.transfer import gather, upload


@pytest.fixture(
    params=[
        CPU,
        torch.device("meta"),
        pytest.param(torch.device("cuda"), marks=pytest.mark.cuda),
    ],
    ids=str,
)
def device(request) -> torch.device:
    if request.param.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    return request.param


@pytest.mark.parametrize("n", [0, 3])
def test_upload_brings_a_tensor_to_the_device(device, n):
    x = torch.arange(2.0 * n).view(n, 2)
    there = upload(x, device)
    assert there.device.type == device.type and there.shape == x.shape
    if device.type != "meta":
        assert torch.equal(there.cpu(), x)


@pytest.mark.parametrize("lengths", [(2, 1, 3), (0, 2), (0, 0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_gather_joins_the_rows_in_order(device, dtype, lengths):
    rows = [torch.full((n, 4), i, dtype=dtype) for i, n in enumerate(lengths)]
    there = gather(rows, device)
    assert there.device.type == device.type and there.dtype == dtype
    assert there.shape == (sum(lengths), 4)
    if device.type != "meta":
        numbers = [i for i, n in enumerate(lengths) for _ in range(n)]
        assert there[:, 0].tolist() == numbers


def test_gather_takes_rows_of_another_device():
    rows = [torch.zeros(2, 4, device="meta"), torch.zeros(1, 4)]
    assert gather(rows, torch.device("meta")).shape == (3, 4)

"""Tensors on their way to the device."""

from __future__ import annotations

import pytest
import torch
from fast_towers import CPU
from hypothesis import assume, given
from hypothesis import strategies as st

from mdmmt.kernels import transfer
from mdmmt.kernels.transfer import gather, upload


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


@given(st.data())
def test_join_writes_the_rows_in_order(data):
    """Whether or not they lie side by side in memory."""
    base = torch.arange(60.0).view(20, 3)
    other = torch.rand(4, 6)
    slices = st.tuples(st.integers(0, 20), st.integers(0, 4)).map(lambda s: base[s[0] : sum(s)])
    parts = st.one_of(
        slices, st.just(base.split(2)), st.just([other[:, ::2]]), st.just([base.t()[:, :3]])
    )
    rows = [
        row
        for part in data.draw(st.lists(parts, min_size=1, max_size=12))
        for row in (part if isinstance(part, list | tuple) else [part])
    ]
    wanted = torch.cat(rows)
    assume(len(wanted))
    out = torch.empty_like(wanted)
    transfer._join(rows, out)
    assert torch.equal(out, wanted)


def test_parts_of_one_tensor_are_joined_as_one():
    base = torch.rand(20, 3)
    rows = [torch.zeros(2, 3), *base.split([4, 0, 6, 10])]
    assert [len(stretch) for stretch in transfer._stretches(rows)] == [2, 20]


def test_gather_takes_rows_of_another_device():
    rows = [torch.zeros(2, 4, device="meta"), torch.zeros(1, 4)]
    assert gather(rows, torch.device("meta")).shape == (3, 4)

"""Attention over packed sequences."""

from __future__ import annotations

import pytest
import torch
from emulation import efficient_attention
from fast_towers import CPU, is_close
from torch.nn import functional as F

from mdmmt.fast.attention import (
    GroupedAttention,
    SequenceGroup,
    VarlenAttention,
    batched_attention,
    group_by_shape,
)

MIXED = [SequenceGroup(2, 9, 2), SequenceGroup(1, 4, 0), SequenceGroup(3, 4, 3)]


def test_group_by_shape_joins_neighbours():
    assert group_by_shape([(9, 2), (9, 2), (4, 0), (4, 3), (4, 3), (4, 3)]) == MIXED
    assert group_by_shape([]) == []


@pytest.mark.parametrize("sequences", [1, 40])
@pytest.mark.parametrize(("rows", "scale"), [(None, None), (3, 0.3)])
def test_batched_attention_computes_what_torch_does(sequences, rows, scale):
    """In other steps, whether there are few tokens or many."""
    groups = [SequenceGroup(sequences, 9, masked=2), SequenceGroup(sequences, 4, masked=0)]
    q = torch.randn(sequences * (2 * rows if rows else 13), 32)
    k, v = torch.randn(2, sequences * 13, 32)
    for dtype, atol in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        result, wanted = (
            GroupedAttention(groups, CPU, way)(*(x.to(dtype) for x in (q, k, v)), 4, rows, scale)
            for way in (batched_attention, F.scaled_dot_product_attention)
        )
        assert result.dtype == dtype
        assert torch.allclose(result, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("width", [3, 8])
def test_varlen_attention_computes_what_grouped_attention_does(width, monkeypatch):
    monkeypatch.setattr(torch.ops.aten, "_efficient_attention_forward", efficient_attention)
    qkv = torch.randn(34, 3 * 4 * width).split(4 * width, dim=1)
    for rows, scale in ((None, None), (3, 0.3)):
        q = torch.randn(18, 4 * width) if rows else qkv[0]
        result, wanted = (
            kind(MIXED, CPU)(q, *qkv[1:], 4, rows, scale)
            for kind in (VarlenAttention, GroupedAttention)
        )
        assert is_close(result, wanted)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [3, 8, 64, 512])
def test_varlen_attention_on_cuda(dtype, width, cuda_without_tf32):
    cuda = torch.device("cuda")
    q, k, v = torch.randn(34, 3 * 2 * width, device=cuda, dtype=dtype).split(2 * width, dim=1)
    for heads, rows, scale in ((2, None, None), (1, 3, 0.1)):
        queries = q[: 3 * 6] if rows else q
        result, wanted = (
            kind(MIXED, cuda)(queries, k, v, heads, rows, scale)
            for kind in (VarlenAttention, GroupedAttention)
        )
        assert result.dtype == dtype
        atol = 1e-5 if dtype == torch.float32 else 0.05
        assert torch.allclose(result, wanted, rtol=0, atol=atol)

"""Videos and texts for the fast towers, and the plain towers to compare them with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from hypothesis import strategies as st
from oracle import block_cosines
from tiny import TINY
from torch import Tensor

from mdmmt.config import ExpertConfig
from mdmmt.features.tokens import Tokens, VideoTokens
from mdmmt.kernels import cpu
from mdmmt.sample.batches import pad_videos
from mdmmt.towers.text import TextTower
from mdmmt.towers.video import VideoTower

CPU = torch.device("cpu")
HAS_VNNI = cpu.has_instructions("avx512_vnni")
# The least cosine of an expert's block with the exact one. Narrow layers have fewer errors to
# average than those of full size.
TINY_COSINE = {"bfloat16": 0.999, "int8": 0.995 if HAS_VNNI else 0.98}

on_x86 = pytest.mark.skipif(not cpu.has_onednn(CPU), reason="8-bit products are oneDNN's, on x86")
token_counts = st.tuples(*[st.sampled_from([0, 1, 2, 5, 6, 45])] * 3).filter(any)


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def make_video(
    counts: Sequence[int], seed: int = 0, experts: Sequence[ExpertConfig] = TINY.video.experts
) -> VideoTokens:
    """Features of that many tokens of each expert; experts without any are absent."""
    generator = torch.Generator().manual_seed(seed)
    return {
        expert.name: Tokens(
            torch.randn(n, expert.dim, generator=generator),
            torch.rand(n, generator=generator) * 40 - 3,  # below and above the table, too
        )
        for expert, n in zip(experts, counts, strict=True)
        if n
    }


@torch.no_grad()
def run_plain_video(tower: VideoTower, videos: Sequence[VideoTokens]) -> Tensor:
    return tower(*pad_videos(videos, tower.config.experts))


@torch.no_grad()
def run_plain_text(tower: TextTower, ids: Sequence[Sequence[int]]) -> Tensor:
    mask = torch.tensor([[1] * len(row) + [0] * (max(map(len, ids)) - len(row)) for row in ids])
    padded = torch.zeros(mask.shape, dtype=torch.long)
    padded[mask.bool()] = torch.tensor([token for row in ids for token in row])
    return tower(padded, mask.bool())


def min_cosine(a: Tensor, b: Tensor, width: int) -> Tensor:
    """The least cosine of any block with its counterpart."""
    return block_cosines(a, b, width).min()


def is_close(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=1e-5)

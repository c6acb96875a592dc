"""Attention over packed sequences: each attends to itself, and those of one shape go together.

Shape notation: s sequences of n tokens, t tokens of all sequences together, r rows that attend,
h heads, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .transfer import upload

ALIGNED = 8  # the kernel takes heads whose width is a multiple of this
NOT_CAUSAL = 0  # the kernel's name for no mask but the sequences' bounds
FEW, LONG = 3, 128  # sequences of a run, and tokens of each, for which torch's attention is better
REGISTER = 64  # bytes, with AVX512


class Run(NamedTuple):
    """Neighbouring sequences of one shape."""

    sequences: int
    tokens: int  # of each
    hidden: int  # of them, the first ones, to which none attends


def runs_of(shapes: Iterable[tuple[int, int]]) -> list[Run]:
    """Put neighbours together: (tokens, hidden) of each sequence -> runs."""
    return [Run(len(list(same)), *shape) for shape, same in groupby(shapes)]


class OneByOne:
    """Attention of a batch, one run after the other; on any device."""

    def __init__(
        self,
        runs: Sequence[Run],
        device: torch.device,
        attention: Callable[..., Tensor] = F.scaled_dot_product_attention,
    ) -> None:
        """Of these runs, with torch's attention or one like it."""
        self.runs, self.attention = runs, attention
        self.sequences = sum(run.sequences for run in runs)

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        rows: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Each sequence to itself: q [r, d], k and v [t, d] -> [r, d]

        Args:
            rows: how many of q belong to each sequence; None: as many as it has tokens.
            scale: of the products; None: the usual one.
        """
        out, row, token = q.new_empty(q.shape), 0, 0
        for sequences, tokens, hidden in self.runs:
            queries = sequences * (rows or tokens)
            of_q = slice(row, row := row + queries)
            of_x = slice(token, token := token + sequences * tokens)
            seen = self.attention(
                split(q[of_q], sequences, heads),
                split(k[of_x], sequences, heads)[:, :, hidden:],
                split(v[of_x], sequences, heads)[:, :, hidden:],
                scale=scale,
            )
            split(out[of_q], sequences, heads).copy_(seen)
        return out


class AtOnce:
    """Attention of a batch in one kernel, which is told where each sequence begins; on CUDA.

    There a kernel's launch costs more than what it computes for a run, and a batch of videos may
    have nearly as many runs as videos. The kernel is what `F.scaled_dot_product_attention` itself
    takes for nested tensors, in float32 too; it has no public name.
    """

    def __init__(self, runs: Sequence[Run], device: torch.device) -> None:
        """Of these runs; the numbers go to the device once for all layers."""
        each = torch.tensor(runs, dtype=torch.int32, device="cpu")
        _, tokens, hidden = each.repeat_interleave(each[:, 0], dim=0).unbind(dim=1)
        self.sequences, self.most = len(tokens), int(tokens.max())
        begins = F.pad(tokens.cumsum(0, dtype=torch.int32), (1, 0))
        keys = F.pad(tokens - hidden, (0, 1))
        table = torch.stack([begins, begins + F.pad(hidden, (0, 1)), keys])
        self.begins, self.first_key, self.keys = upload(table, device)

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        rows: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """See `OneByOne`."""
        begins = self.begins
        if rows is not None:
            end = rows * self.sequences
            begins = torch.arange(0, end + 1, rows, dtype=torch.int32, device=q.device)
        width = q.shape[1] // heads
        q, k, v = (x.unflatten(1, (heads, -1))[None] for x in (q, k, v))
        if missing := -width % ALIGNED:  # as zeros they change no product
            q, k, v = (F.pad(x, (0, missing)) for x in (q, k, v))
        out, *_ = torch.ops.aten._efficient_attention_forward(
            q, k, v, None, begins, self.first_key, rows or self.most, self.most,
            0.0, NOT_CAUSAL, scale=scale or width**-0.5, seqlen_k=self.keys[:-1],
        )  # fmt: skip
        return out[0, ..., :width].flatten(1)


Attend = OneByOne | AtOnce


def split(x: Tensor, sequences: int, heads: int) -> Tensor:
    """[s * n, d] -> [s, h, n, d/h]"""
    return x.view(sequences, len(x) // sequences, heads, x.shape[1] // heads).transpose(1, 2)


def batched_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """`F.scaled_dot_product_attention` as batched products, for processors.

    torch's goes through one sequence and head after the other, which takes up to twice as long
    in bfloat16 where there are many short ones; elsewhere it is what is computed.

    Args:
        q: [s, h, r/s, d/h]
        k, v: [s, h, n, d/h]
        scale: of the products; None: the usual one.
    """
    sequences, _, tokens, width = k.shape
    if k.dtype != torch.bfloat16 or sequences <= FEW or tokens > LONG:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    scores = (q @ k.transpose(-1, -2)).mul_(scale or width**-0.5)
    return softmax(scores) @ v


def softmax(scores: Tensor) -> Tensor:
    """Of rows, [..., n].

    torch's takes the numbers of a row by one, where they do not fill a register; laid out the other
    way, one of each row goes into it.
    """
    if scores.shape[-1] * scores.element_size() >= REGISTER:
        return scores.softmax(dim=-1)
    return scores.movedim(-1, 0).contiguous().softmax(dim=0).movedim(0, -1)

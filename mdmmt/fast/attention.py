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

SHORT = 128  # tokens of a sequence that counts as short, and of a run that counts as small


class Run(NamedTuple):
    """Neighbouring sequences of one shape."""

    sequences: int
    tokens: int  # of each
    hidden: int  # of them, the first ones, to which none attends


def runs_of(shapes: Iterable[tuple[int, int]]) -> list[Run]:
    """Put neighbours together: (tokens, hidden) of each sequence -> runs."""
    return [Run(len(list(same)), *shape) for shape, same in groupby(shapes)]


def attend(
    attention: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    runs: Sequence[Run],
    heads: int,
    rows: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Each sequence to itself: q [r, d], k and v [t, d] -> [r, d]

    Args:
        attention: of the sequences of a run, `F.scaled_dot_product_attention` or one like it.
        rows: how many of q belong to each sequence; None: as many as it has tokens.
        scale: of the products; None: the usual one.
    """
    parts, row, token = [], 0, 0
    for sequences, tokens, hidden in runs:
        queries = sequences * (rows or tokens)
        of_q = slice(row, row := row + queries)
        of_x = slice(token, token := token + sequences * tokens)
        out = attention(
            split(q[of_q], sequences, heads),
            split(k[of_x], sequences, heads)[:, :, hidden:],
            split(v[of_x], sequences, heads)[:, :, hidden:],
            scale=scale,
        )
        parts.append(out.transpose(1, 2).reshape(queries, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def split(x: Tensor, sequences: int, heads: int) -> Tensor:
    """[s * n, d] -> [s, h, n, d/h]"""
    return x.view(sequences, len(x) // sequences, heads, x.shape[1] // heads).transpose(1, 2)


def batched_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """`F.scaled_dot_product_attention` as batched products, for processors.

    torch's goes through one sequence and head after the other, which takes up to twice as long
    where there are many short ones; with few tokens in all, or many of a sequence, it is better.

    Args:
        q: [s, h, r/s, d/h]
        k, v: [s, h, n, d/h]
        scale: of the products; None: the usual one.
    """
    sequences, _, tokens, width = k.shape
    if tokens > SHORT or sequences * tokens <= SHORT:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    scores = (q @ k.transpose(-1, -2)).mul_(scale or width**-0.5)
    return scores.softmax(dim=-1) @ v

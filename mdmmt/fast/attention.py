"""Attention over packed sequences: each attends to itself, and those of one shape go together.

Shape notation: s sequences of n tokens, t tokens of all sequences together, r query rows,
h heads, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels import private
from ..kernels.transfer import upload

# Torch's own attention is faster with fewer sequences in a group, or with more tokens in each.
MIN_SEQUENCES, MAX_TOKENS = 4, 128
REGISTER_BYTES = 64  # with AVX512


class SequenceGroup(NamedTuple):
    """Neighbouring sequences of one shape."""

    sequences: int
    tokens: int  # of each sequence
    masked: int  # leading tokens of each sequence that no query may attend to


class Attention(Protocol):
    """Attention of one batch of packed sequences."""

    sequences: int

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        queries_per_sequence: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Let each sequence attend to itself: q [r, d], k and v [t, d] -> [r, d]

        Args:
            queries_per_sequence: None: one for each token.
            scale: of the products; None: one over the root of a head's width.
        """
        ...


def group_by_shape(shapes: Iterable[tuple[int, int]]) -> list[SequenceGroup]:
    """Group neighbours of one shape: (tokens, masked) of each sequence -> groups."""
    return [SequenceGroup(len(list(same)), *shape) for shape, same in groupby(shapes)]


class GroupedAttention:
    """Attention of a batch, one group after the other; on any device."""

    def __init__(
        self,
        groups: Sequence[SequenceGroup],
        device: torch.device,
        attention: Callable[..., Tensor] = F.scaled_dot_product_attention,
    ) -> None:
        """For the groups that a batch consists of.

        Args:
            attention: torch's, or one with its arguments q, k, v and `scale`.
        """
        self.groups, self.attention = groups, attention
        self.sequences = sum(group.sequences for group in groups)

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        queries_per_sequence: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """See `Attention`."""
        out, row, token = q.new_empty(q.shape), 0, 0
        for sequences, tokens, masked in self.groups:
            queries = sequences * (queries_per_sequence or tokens)
            of_q = slice(row, row := row + queries)
            of_k = slice(token, token := token + sequences * tokens)
            attended = self.attention(
                split_heads(q[of_q], sequences, heads),
                split_heads(k[of_k], sequences, heads)[:, :, masked:],
                split_heads(v[of_k], sequences, heads)[:, :, masked:],
                scale=scale,
            )
            split_heads(out[of_q], sequences, heads).copy_(attended)
        return out


class VarlenAttention:
    """Attention of a batch in one kernel, which is told where each sequence begins; on CUDA.

    There the launch of a kernel costs more than the computation of a group, and a batch of videos
    may have nearly as many groups as videos.
    """

    def __init__(self, groups: Sequence[SequenceGroup], device: torch.device) -> None:
        """For the groups that a batch consists of; their bounds go to the device once."""
        each = torch.tensor(groups, dtype=torch.int32, device="cpu")
        _, tokens, masked = each.repeat_interleave(each[:, 0], dim=0).unbind(dim=1)
        self.sequences, self.max_tokens = len(tokens), int(tokens.max())
        begins = F.pad(tokens.cumsum(0, dtype=torch.int32), (1, 0))
        keys = F.pad(tokens - masked, (0, 1))
        table = torch.stack([begins, begins + F.pad(masked, (0, 1)), keys])
        self.begins, self.first_key, self.keys = upload(table, device)

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        queries_per_sequence: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """See `Attention`."""
        begins = self.begins
        if queries_per_sequence is not None:
            end, step = queries_per_sequence * self.sequences, queries_per_sequence
            begins = torch.arange(0, end + 1, step, dtype=torch.int32, device=q.device)
        width = q.shape[1] // heads
        q, k, v = (x.unflatten(1, (heads, -1))[None] for x in (q, k, v))
        if missing := -width % private.HEAD_ALIGNMENT:  # zeros change no product
            q, k, v = (F.pad(x, (0, missing)) for x in (q, k, v))
        out = private.varlen_attention(
            q, k, v, begins, self.first_key, self.keys[:-1],
            queries_per_sequence or self.max_tokens, self.max_tokens, scale or width**-0.5,
        )  # fmt: skip
        return out[0, ..., :width].flatten(1)


def split_heads(x: Tensor, sequences: int, heads: int) -> Tensor:
    """[s * n, d] -> [s, h, n, d/h]"""
    return x.view(sequences, len(x) // sequences, heads, x.shape[1] // heads).transpose(1, 2)


def batched_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """`F.scaled_dot_product_attention` as batched products, for processors.

    Torch's own function takes the sequences and heads one by one, which is slow in bfloat16 with
    many short sequences. In all other cases this function calls it.

    Args:
        q: [s, h, r/s, d/h]
        k, v: [s, h, n, d/h]
        scale: of the products; None: one over the root of a head's width.

    Returns:
        [s, h, r/s, d/h]
    """
    sequences, _, tokens, width = k.shape
    if k.dtype != torch.bfloat16 or sequences < MIN_SEQUENCES or tokens > MAX_TOKENS:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    scores = (q @ k.transpose(-1, -2)).mul_(scale or width**-0.5)
    return softmax(scores) @ v


def softmax(scores: Tensor) -> Tensor:
    """The softmax of rows, [..., n] -> [..., n].

    If a row does not fill a register, torch's own function takes its numbers one by one. This
    function transposes such rows, so that a register holds one number of each of many rows.
    """
    if scores.shape[-1] * scores.element_size() >= REGISTER_BYTES:
        return scores.softmax(dim=-1)
    return scores.movedim(-1, 0).contiguous().softmax(dim=0).movedim(0, -1)

"""The transformer encoder of `mdmmt.transformer` over packed tokens.

The sequences of a batch lie one behind the other, none of them padded. All linear layers work on
all tokens at once; only attention has to know where a sequence ends. The last layer computes just
the rows that are read.

Shape notation: t tokens of all sequences together, r rows that are read, h heads, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import EncoderConfig
from ..transformer import AddNorm, Encoder, Layer
from .dense import Dense, Kinds


class Run(NamedTuple):
    """Neighbouring sequences of one shape."""

    sequences: int
    tokens: int  # of each
    hidden: int  # of them, the first ones, to which none attends


def runs_of(shapes: Iterable[tuple[int, int]]) -> list[Run]:
    """Put neighbours together: (tokens, hidden) of each sequence -> runs."""
    return [Run(len(list(same)), *shape) for shape, same in groupby(shapes)]


class FastEncoder:
    """The stack of layers, for inference."""

    def __init__(
        self, encoder: Encoder, config: EncoderConfig, kinds: Kinds, compiled: bool
    ) -> None:
        """Empties `encoder`, so that there never are two copies of more than one layer."""
        self.carried = kinds.carried
        self.layers = []
        while encoder.layer:
            self.layers.append(FastLayer(encoder.layer.pop(0), config, kinds, compiled))

    def __call__(self, x: Tensor, runs: Sequence[Run], read: Tensor) -> Tensor:
        """Encode packed sequences.

        Args:
            x: [t, d].
            runs: what x consists of.
            read: [r] int64, the rows wanted, as many of each sequence, in the sequences' order.

        Returns:
            [r, d] float32.
        """
        x = x.to(self.carried)
        for layer in self.layers[:-1]:
            x = layer(x, x, runs)
        return self.layers[-1](x[read], x, runs).float()


class FastLayer:
    """`mdmmt.transformer.Layer` for inference."""

    def __init__(self, layer: Layer, config: EncoderConfig, kinds: Kinds, compiled: bool) -> None:
        attention = layer.attention
        self.heads = config.num_attention_heads
        self.activation = config.hidden_act
        self.query = kinds.queries(attention.self.query)
        self.key = kinds.queries(attention.self.key)
        self.value = kinds.values(attention.self.value)
        self.mix = FastAddNorm(attention.output, kinds.values, kinds.carried)
        self.widen = kinds.wide(layer.intermediate.dense)
        self.narrow = FastAddNorm(layer.output, kinds.wide, kinds.carried)
        if compiled:  # all layers share the one graph, whatever the number of rows
            self.finish = torch.compile(self.finish, dynamic=True)

    def __call__(self, rows: Tensor, x: Tensor, runs: Sequence[Run]) -> Tensor:
        """rows [r, d] of x [t, d], which attend to x -> [r, d]"""
        seen = attend(self.query(rows), self.key(x), self.value(x), runs, self.heads)
        return self.finish(seen, rows)

    def finish(self, seen: Tensor, rows: Tensor) -> Tensor:
        """What attention has seen [r, d], and the rows [r, d] that did -> [r, d]"""
        rows = self.mix(seen, rows)
        return self.narrow(self.widen(rows, self.activation), rows)


class FastAddNorm:
    """`mdmmt.transformer.AddNorm` for inference."""

    def __init__(
        self, part: AddNorm, dense: Callable[[nn.Linear], Dense], carried: torch.dtype
    ) -> None:
        self.dense = dense(part.dense)
        self.norm = part.get_submodule(part.norm_name).to(carried)

    def __call__(self, x: Tensor, residual: Tensor) -> Tensor:
        """x [t, d_in], which it may overwrite, residual [t, d] -> [t, d]"""
        return self.norm(residual + self.dense(x, spent=True))


def attend(q: Tensor, k: Tensor, v: Tensor, runs: Sequence[Run], heads: int) -> Tensor:
    """Each sequence to itself: q [r, d], k and v [t, d] -> [r, d]"""
    rows_each = len(q) // sum(run.sequences for run in runs) if len(q) != len(k) else None
    parts, row, token = [], 0, 0
    for sequences, tokens, hidden in runs:
        rows = rows_each or tokens
        of_q = slice(row, row := row + sequences * rows)
        of_x = slice(token, token := token + sequences * tokens)
        out = F.scaled_dot_product_attention(
            split(q[of_q], sequences, heads),
            split(k[of_x], sequences, heads)[:, :, hidden:],
            split(v[of_x], sequences, heads)[:, :, hidden:],
        )
        parts.append(out.transpose(1, 2).reshape(sequences * rows, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def split(x: Tensor, sequences: int, heads: int) -> Tensor:
    """[s * n, d] -> [s, h, n, d/h]"""
    return x.unflatten(-1, (heads, -1)).unflatten(0, (sequences, -1)).transpose(1, 2)

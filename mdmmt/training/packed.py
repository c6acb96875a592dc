"""The towers in training, without masked tokens.

They compute what the modules of `mdmmt.towers` compute, with gradients and dropout, on packed
sequences: the linear layers see the tokens that are there, and nothing else. Attention alone is
padded, which costs little beside them. The last layer computes only the rows that are read: the AGG
tokens of a video, and the first token of a text.

Shape notation: b sequences of at most n tokens, t tokens of all sequences, r output rows,
m experts, h heads, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..fast.packing import count_tokens, pack
from ..fast.towers import PackedEmbeddings
from ..features.tokens import VideoTokens
from ..towers.text import TextTower
from ..towers.transformer import Encoder, Layer, SelfAttention
from ..towers.video import VideoTower


def encode_videos(tower: VideoTower, videos: Sequence[VideoTokens]) -> Tensor:
    """Embed videos as the tower does, [b, m * same_dim]."""
    experts = tower.config.experts
    counts = count_tokens(videos, experts)
    table_rows, output_rows, groups = pack(counts)
    reduce: list[Any] = [tower.video_dim_reduce[expert.name].fc for expert in experts]
    embeddings = PackedEmbeddings(tower, reduce)
    x = embeddings(videos, counts, table_rows.to(embeddings.device))
    x = tower.vid_bert.embeddings.dropout(x)
    lengths = [(group.tokens, group.masked) for group in groups for _ in range(group.sequences)]
    x = encode(tower.vid_bert.encoder, x, lengths, output_rows.to(x.device))
    return tower.heads(x.float().unflatten(0, (len(videos), -1)).unbind(dim=1))


def encode_texts(tower: TextTower, ids: Sequence[Sequence[int]]) -> Tensor:
    """BERT's first token of each text, [b, d]; the tower's `heads` make embeddings of them."""
    lengths = [len(row) for row in ids]
    device = tower.txt_bert.embeddings.LayerNorm.weight.device
    tokens = torch.tensor(list(chain.from_iterable(ids)), device=device)
    positions = torch.tensor(list(chain.from_iterable(map(range, lengths))), device=device)
    first = torch.tensor([0, *lengths[:-1]], device=device).cumsum(dim=0)
    x = tower.txt_bert.embeddings(tokens, positions)
    return encode(tower.txt_bert.encoder, x, [(n, 0) for n in lengths], first).float()


def encode(
    encoder: Encoder, x: Tensor, lengths: Sequence[tuple[int, int]], output_rows: Tensor
) -> Tensor:
    """Encode packed sequences.

    Args:
        x: [t, d].
        lengths: of each sequence its tokens, and how many at its beginning are masked.
        output_rows: [r] int64, as many rows of each sequence, in the order of the sequences.

    Returns:
        [r, d]
    """
    attend = PaddedAttention(lengths, x.device)
    *layers, last = encoder.layer
    for layer in layers:
        x = _compute(layer, x, x, attend)
    return _compute(last, x.index_select(0, output_rows), x, attend)


def _compute(layer: Any, rows: Tensor, x: Tensor, attend: PaddedAttention) -> Tensor:
    """One layer for the rows [r, d] of x [t, d] -> [r, d]"""
    assert isinstance(layer, Layer)
    attended = attend(layer.attention.self, rows, x)
    rows = layer.attention.output(attended, rows)
    return layer.output(layer.intermediate(rows), rows)


class PaddedAttention:
    """Attention of packed sequences, each of which is padded for it."""

    def __init__(self, lengths: Sequence[tuple[int, int]], device: torch.device) -> None:
        """For sequences of these tokens, the first of which are masked; see `encode`."""
        tokens, masked = torch.tensor(lengths).unbind(dim=1)
        self.sequences, self.longest = len(tokens), int(tokens.max())
        at = torch.arange(self.longest)
        there = at < tokens[:, None]
        may_be_seen = there & (at >= masked[:, None])
        # Where each token lies among the padded ones; None: there is no padding.
        self.slots = None if there.all() else there.flatten().nonzero()[:, 0].to(device)
        self.mask = None if may_be_seen.all() else may_be_seen[:, None, None, :].to(device)

    def __call__(self, own: SelfAttention, rows: Tensor, x: Tensor) -> Tensor:
        """Let rows attend to the tokens of their sequence.

        Args:
            own: the layer's attention.
            rows: [r, d], all tokens or as many of each sequence.
            x: [t, d].

        Returns:
            [r, d]
        """
        q, k, v = own.query(rows), self._pad(own.key(x)), self._pad(own.value(x))
        all_rows = len(rows) == len(x)
        if all_rows:
            q = self._pad(q)
        q, k, v = (
            one.view(self.sequences, -1, own.heads, one.shape[-1] // own.heads).transpose(1, 2)
            for one in (q, k, v)
        )
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=self.mask,
            dropout_p=own.dropout_p if own.training else 0.0,
        )
        out = out.transpose(1, 2).flatten(2).flatten(0, 1)
        return out.index_select(0, self.slots) if all_rows and self.slots is not None else out

    def _pad(self, x: Tensor) -> Tensor:
        """[t, d] -> [b * n, d]"""
        if self.slots is None:
            return x
        padded = x.new_zeros(self.sequences * self.longest, x.shape[1])
        return padded.index_copy(0, self.slots, x)

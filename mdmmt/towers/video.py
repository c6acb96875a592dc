"""The video tower of MDMMT (arXiv 2103.10699, section 3.3): expert features -> embedding.

A BERT encoder reads, for each expert, one AGG token and that expert's feature tokens; the AGG
tokens of the last layer, each L2-normalised, are the embedding. Sub-modules carry the names of
the released checkpoint, which are those of MMT (Gabeur et al., 2020).

Shape notation: b batch, m experts, n tokens of an expert, d width (`hidden_size`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import CLS_TYPE, NO_POSITION, UNKNOWN_POSITION, EncoderConfig, VideoConfig
from .transformer import Encoder, Pooler, init_weights


class ReduceDim(nn.Module):
    """A linear layer onto the unit sphere."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.fc = nn.Linear(d_in, d_out)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., d_out], unit length"""
        return F.normalize(self.fc(x), dim=-1)


class VideoEmbeddings(nn.Module):
    """Feature + position + type, normalised: what BERT's word embeddings are to text."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, d)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, d)
        self.layer_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, features: Tensor, positions: Tensor, types: Tensor) -> Tensor:
        """features [b, n, d], positions [b, n], types [n] -> [b, n, d]"""
        x = features + self.position_embeddings(positions) + self.token_type_embeddings(types)
        return self.dropout(self.layer_norm(x))


class VideoBert(nn.Module):
    """BERT over features instead of words."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.embeddings = VideoEmbeddings(config)
        self.encoder = Encoder(config, norm="layer_norm")
        self.pooler = Pooler(config)

    def forward(self, features: Tensor, positions: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """features [b, n, d], positions and mask [b, n], types [n] -> [b, n, d]"""
        return self.encoder(self.embeddings(features, positions, types), mask)


class VideoTower(nn.Module):
    """Features of m experts -> (b, m * same_dim), one unit-length block an expert."""

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.config = config
        d = config.encoder.hidden_size
        self.vid_bert = VideoBert(config.encoder)
        self.video_dim_reduce = nn.ModuleDict(
            {expert.name: ReduceDim(expert.dim, d) for expert in config.experts}
        )
        self.video_dim_reduce_out = nn.ModuleDict(
            {expert.name: ReduceDim(d, config.same_dim) for expert in config.experts}
            if config.same_dim != d
            else {}
        )
        init_weights(self.vid_bert, config.encoder.initializer_range)

    def forward(
        self, features: dict[str, Tensor], times: dict[str, Tensor], mask: dict[str, Tensor]
    ) -> Tensor:
        """Embed a batch of videos.

        Args:
            features: for each expert [b, n, dim] float, n >= 1; what masked rows hold is not read.
            times: for each expert [b, n] float, 2 + seconds; an expert of a video with a NaN
                among its valid times has no known times.
            mask: for each expert [b, n] bool, true for tokens that are there.

        Returns:
            [b, m * same_dim] float. An expert without tokens still has its block.
        """
        first = features[self.config.experts[0].name]
        b, d = first.shape[0], self.config.encoder.hidden_size
        tokens = [first.new_zeros(b, 1, d)]  # [CLS]
        positions = [torch.full((b, 1), NO_POSITION, device=first.device)]
        types = [torch.tensor([CLS_TYPE], device=first.device)]
        valid = [torch.ones(b, 1, dtype=torch.bool, device=first.device)]
        agg_at = []
        for expert in self.config.experts:
            agg_at.append(sum(block.shape[1] for block in tokens))
            raw, there = features[expert.name], mask[expert.name]
            raw = raw.masked_fill(~there[..., None], 0.0)
            raw = torch.cat([max_pool(raw, there)[:, None], raw], dim=1)  # [b, 1+n, dim]
            tokens.append(self.video_dim_reduce[expert.name](raw))
            positions.append(self.positions(times[expert.name], there))
            types.append(types[0].new_full((raw.shape[1],), expert.type_id))
            valid.append(torch.cat([there.any(dim=1, keepdim=True), there], dim=1))
        x = self.vid_bert(
            torch.cat(tokens, dim=1),
            torch.cat(positions, dim=1),
            torch.cat(types),
            torch.cat(valid, dim=1),
        )
        return self.heads([x[:, i] for i in agg_at])

    def heads(self, blocks: Sequence[Tensor]) -> Tensor:
        """The encoded AGG token of each expert, m times [b, d] -> [b, m * same_dim]"""
        if self.video_dim_reduce_out:
            # Each expert's own layer; `towhee.models` takes the last expert's for all.
            outs = (self.video_dim_reduce_out[expert.name] for expert in self.config.experts)
            blocks = [out(block) for out, block in zip(outs, blocks, strict=True)]
        return torch.cat([F.normalize(block, dim=-1) for block in blocks], dim=-1)

    def positions(self, times: Tensor, mask: Tensor) -> Tensor:
        """times [b, n], mask [b, n] -> [b, 1+n] rows of the position table, AGG first"""
        unknown = (times.isnan() & mask).any(dim=1, keepdim=True)
        times = times.masked_fill(unknown, UNKNOWN_POSITION).masked_fill(~mask, NO_POSITION)
        last = self.config.encoder.max_position_embeddings - 1
        return F.pad(times.clamp(0, last).long(), (1, 0), value=NO_POSITION)


def max_pool(x: Tensor, mask: Tensor) -> Tensor:
    """Element-wise maximum over the valid tokens, zeros if none: [b, n, dim] -> [b, dim]"""
    highest = x.masked_fill(~mask[..., None], float("-inf")).amax(dim=1)
    return highest.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)

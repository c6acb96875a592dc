"""Both towers for inference, on sequences without padding.

They compute what `VideoTower` and `TextTower` do. They share the small parts of those modules, and
take over the linear layers that cost the time. They compute only what an embedding needs: no masked
tokens, and in the last layer only the rows of the AGG tokens, or of the first token of a text.

All tensors are made on the CPU by name, whatever torch's default device is.

Shape notation: b batch, m experts, n tokens of an expert, t tokens of all sequences, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import CLS_TYPE, NO_POSITION, TIME_OFFSET, UNKNOWN_POSITION, ExpertConfig
from ..features.tokens import Tokens, VideoTokens
from ..kernels.linear import FastLinear
from ..kernels.transfer import gather, upload
from ..storage.checkpoint import align
from ..towers.text import TextTower
from ..towers.video import VideoTower
from .attention import group_by_shape
from .batching import Batch, encode_in_batches
from .encoder import FastEncoder
from .packing import TokenCounts, count_tokens, pack, packed_shapes
from .precision import plan_layers

SAMPLES, SAMPLE_TOKENS = 32, 8  # to calibrate with; for videos, tokens of each expert


class FastVideoTower:
    """Features of m experts -> (b, m * same_dim), one unit-length block an expert."""

    def __init__(
        self,
        embeddings: PackedEmbeddings,
        encoder: FastEncoder,
        tower: VideoTower,
        min_tokens_per_thread: int | None,
    ) -> None:
        """From the encoder's input, the encoder, and a tower whose `heads` follow it."""
        self.embeddings, self.encoder, self.tower = embeddings, encoder, tower
        self.experts, self.device = tower.config.experts, embeddings.device
        self.min_tokens_per_thread = min_tokens_per_thread

    @classmethod
    def consume(
        cls, tower: VideoTower, precision: str = "exact", compiled: bool = False
    ) -> FastVideoTower:
        """Move the weights out of a tower, which cannot be used afterwards.

        Args:
            tower: loaded, on its device.
            precision: from `resolve_precision`.
            compiled: fuse the steps between the products by `torch.compile`; for CUDA.
        """
        tower.eval()
        plan = plan_layers(precision, tower.vid_bert.embeddings.layer_norm.weight.device)
        experts, reductions = tower.config.experts, tower.video_dim_reduce
        reduce = [plan.full_precision(cast(nn.Linear, reductions[e.name].fc)) for e in experts]
        embeddings = PackedEmbeddings(tower, reduce)
        sample = embeddings.sample() if plan.needs_calibration else None
        encoder = FastEncoder.consume(
            tower.vid_bert.encoder, tower.config.encoder, plan, compiled, sample
        )
        align(tower)
        return cls(embeddings, encoder, tower, plan.min_tokens_per_thread)

    @torch.inference_mode()
    def __call__(self, videos: Sequence[VideoTokens], batch_size: int | None = None) -> Tensor:
        """Embed videos.

        Args:
            videos: the valid tokens of each, see `mdmmt.features.tokens`.
            batch_size: the most videos that are computed at once; None: all of them.

        Returns:
            [b, m * same_dim] float32, as `VideoTower` gives it.
        """
        counts = count_tokens(videos, self.experts)

        def encode(batch: Batch) -> Tensor:
            return self.encode([videos[i] for i in batch], counts[batch])

        shapes = packed_shapes(counts)
        return encode_in_batches(
            encode, shapes, self.device, self.min_tokens_per_thread, batch_size
        )

    def encode(self, videos: Sequence[VideoTokens], counts: TokenCounts) -> Tensor:
        """Embed one batch, in which videos of one shape lie side by side."""
        index, output_rows, groups = pack(counts)
        x = self.embeddings(videos, counts, upload(index, self.device))
        x = self.encoder(x, groups, upload(output_rows, self.device))
        return self.tower.heads(x.unflatten(0, (len(videos), -1)).unbind(dim=1))


class PackedEmbeddings:
    """The input of a video tower's encoder, for packed videos."""

    def __init__(self, tower: VideoTower, reduce: Sequence[FastLinear]) -> None:
        """From a tower and, for each expert, the layer that brings its features to width d."""
        self.experts, self.reduce = tower.config.experts, reduce
        self.parts = tower.vid_bert.embeddings
        self.device = self.parts.layer_norm.weight.device
        self.max_position = tower.config.encoder.max_position_embeddings - 1

    def __call__(self, videos: Sequence[VideoTokens], counts: TokenCounts, index: Tensor) -> Tensor:
        """The rows `index` [t] of the table of all tokens -> [t, d]

        The table holds [CLS] and then, for each expert, the AGG of each video, and all tokens; see
        `mdmmt.fast.packing`.
        """
        owners = np.arange(len(videos), dtype=np.int64)
        types = self.parts.token_type_embeddings.weight
        table = [types[CLS_TYPE][None]]
        positions = [torch.full((1,), NO_POSITION, device=self.device)]
        for expert, reduce, n in zip(self.experts, self.reduce, counts.T, strict=True):
            raw, times = self.join(videos, expert)
            owner = upload(torch.from_numpy(owners.repeat(n)), self.device)
            # AGG is the maximum of the tokens, and stays zeros where there are none.
            agg, tokens = raw.tensor_split([len(videos)])
            if len(owner):
                agg_of_token = owner[:, None].expand_as(tokens)
                agg.scatter_reduce_(0, agg_of_token, tokens, "amax", include_self=False)
            reduced = reduce(raw).float()
            table.append(F.normalize(reduced, dim=-1) + types[expert.type_id])
            positions.append(torch.full((len(videos),), NO_POSITION, device=self.device))
            positions.append(self.positions(times, owner, len(videos)))
        at = torch.cat(positions)[index]
        x = torch.cat(table)[index] + self.parts.position_embeddings.weight[at]
        return self.parts.layer_norm(x)

    def join(self, videos: Sequence[VideoTokens], expert: ExpertConfig) -> tuple[Tensor, Tensor]:
        """The features of an expert [b + n, d_in], after zeros for each video, and times [n]."""
        given = [video[expert.name] for video in videos if expert.name in video]
        zeros = torch.zeros(len(videos), expert.dim, dtype=torch.float32, device="cpu")
        raw = gather([zeros, *(tokens.features for tokens in given)], self.device)
        times = gather([zeros[:0, 0], *(tokens.times for tokens in given)], self.device)
        return raw, times

    def positions(self, times: Tensor, owner: Tensor, videos: int) -> Tensor:
        """The rows [n] of the position table; see `VideoTower.positions`.

        Args:
            times: [n].
            owner: [n], the index of each token's video.
            videos: their number.
        """
        if len(times):
            unknown = times.new_zeros(videos).index_add_(0, owner, times.isnan().to(times.dtype))
            times = times.masked_fill(unknown[owner] > 0, UNKNOWN_POSITION)
        return times.clamp(0, self.max_position).long()

    @torch.inference_mode()
    def sample(self) -> Tensor:
        """Drawn videos, always the same, as the encoder reads them: [b, n, d]"""
        draw = torch.Generator(device="cpu").manual_seed(0)
        n = SAMPLE_TOKENS
        videos = [
            {
                expert.name: Tokens(
                    torch.rand(n, expert.dim, generator=draw, dtype=torch.float32, device="cpu"),
                    torch.arange(n, dtype=torch.float32, device="cpu") + TIME_OFFSET,
                )
                for expert in self.experts
            }
            for _ in range(SAMPLES)
        ]
        counts = count_tokens(videos, self.experts)
        return self(videos, counts, pack(counts).table_rows).unflatten(0, (SAMPLES, -1))


class FastTextTower:
    """Token ids -> (b, m * same_dim): a unit vector an expert times that expert's weight."""

    def __init__(
        self, encoder: FastEncoder, tower: TextTower, min_tokens_per_thread: int | None
    ) -> None:
        """From the encoder, and a tower whose embeddings and `heads` stand around it."""
        self.encoder, self.tower = encoder, tower
        self.device = tower.txt_bert.embeddings.LayerNorm.weight.device
        self.min_tokens_per_thread = min_tokens_per_thread

    @classmethod
    def consume(
        cls, tower: TextTower, precision: str = "exact", compiled: bool = False
    ) -> FastTextTower:
        """Move the weights out of a tower, which cannot be used afterwards.

        Args:
            tower: loaded, on its device.
            precision: from `resolve_precision`.
            compiled: fuse the steps between the products by `torch.compile`; for CUDA.
        """
        tower.eval()
        device = tower.txt_bert.embeddings.LayerNorm.weight.device
        plan = plan_layers(precision, device, quantize_values=True)
        sample = sample_texts(tower) if plan.needs_calibration else None
        encoder = FastEncoder.consume(
            tower.txt_bert.encoder, tower.config.bert, plan, compiled, sample
        )
        align(tower)
        return cls(encoder, tower, plan.min_tokens_per_thread)

    @torch.inference_mode()
    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        batch_size: int | None = None,
        finished: Callable[[int], object] = lambda count: None,
    ) -> Tensor:
        """Embed tokenised texts.

        Args:
            ids: the token ids of each text, without padding.
            batch_size: the most texts that are computed at once; None: all of them.
            finished: is called after each batch with its number of texts, in any thread.

        Returns:
            [b, m * same_dim] float32, as `TextTower` gives it.
        """

        def encode(batch: Batch) -> Tensor:
            vectors = self.encode([ids[i] for i in batch])
            finished(len(batch))
            return vectors

        shapes = [(len(row), 0) for row in ids]
        return encode_in_batches(
            encode, shapes, self.device, self.min_tokens_per_thread, batch_size
        )

    def encode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Embed one batch, in which texts of one length lie side by side."""
        lengths = [len(row) for row in ids]
        tokens = torch.tensor(list(chain.from_iterable(ids)), device="cpu")
        positions = torch.tensor(list(chain.from_iterable(map(range, lengths))), device="cpu")
        first = torch.tensor([0, *lengths[:-1]], device="cpu").cumsum(dim=0)
        x = self.tower.txt_bert.embeddings(*(upload(x, self.device) for x in (tokens, positions)))
        groups = group_by_shape((n, 0) for n in lengths)
        return self.tower.heads(self.encoder(x, groups, upload(first, self.device)))


@torch.inference_mode()
def sample_texts(tower: TextTower) -> Tensor:
    """Drawn texts, always the same, as the encoder reads them: [b, n, d]"""
    draw = torch.Generator(device="cpu").manual_seed(0)
    config = tower.config.bert
    shape = SAMPLES, min(SAMPLE_TOKENS, config.max_position_embeddings)
    assert config.vocab_size is not None  # as in the encoder of a video tower
    ids = torch.randint(config.vocab_size, shape, generator=draw, device="cpu")
    positions = torch.arange(shape[1], device="cpu").expand(shape)
    return tower.txt_bert.embeddings(ids, positions)

"""Both towers for inference, on sequences without padding.

They compute what `VideoTower` and `TextTower` do, sharing those modules' small parts and taking
over the linear layers that cost the time. What is not read is not computed: masked tokens, and in
the last layer every row but the AGG tokens, or the first token of a text.

What is made here is made on the CPU by name, whatever torch's default device is.

Shape notation: b batch, m experts, n tokens of an expert, t tokens of all sequences, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..config import CLS_TYPE, NO_POSITION, TIME_OFFSET, UNKNOWN_POSITION, ExpertConfig
from ..features.tokens import Tokens, Video
from ..storage.checkpoint import align
from ..towers.text import TextTower
from ..towers.video import VideoTower
from .attention import Run, runs_of
from .batching import in_portions
from .encoder import FastEncoder
from .linear import kinds_of
from .transfer import gather, upload

Counts = NDArray[np.int64]

SAMPLES, SAMPLE_TOKENS = 32, 8  # to calibrate with; for videos, tokens of each expert
CLS_ROW = 0  # of the table of tokens


class FastVideoTower:
    """Packed features of m experts -> (b, m * same_dim), one unit-length block an expert."""

    def __init__(self, tower: VideoTower, precision: str = "exact", compiled: bool = False) -> None:
        """Take over a tower, which must not be used afterwards: its encoder is emptied.

        Args:
            tower: loaded, on its device.
            precision: see `resolve_precision`.
            compiled: fuse what stands between the products by `torch.compile`; for CUDA.
        """
        self.config = tower.config
        self.tower = tower.eval()
        self.device = tower.vid_bert.embeddings.layer_norm.weight.device
        kinds = kinds_of(precision, self.device)
        self.least = kinds.least
        reduce = [tower.video_dim_reduce[e.name].fc for e in self.config.experts]
        self.reduce = [kinds.fine(layer) for layer in reduce]
        encoder = tower.vid_bert.encoder
        self.encoder = FastEncoder(encoder, self.config.encoder, kinds, compiled, self.sample)
        align(tower)

    @torch.inference_mode()
    def __call__(self, videos: Sequence[Video]) -> Tensor:
        """Embed a batch of videos; it is fastest where they have equally many tokens.

        Args:
            videos: of each the valid tokens of some experts, see `mdmmt.features.tokens`.

        Returns:
            [b, m * same_dim] float32, as `VideoTower` gives it.
        """
        counts = count_tokens(videos, self.config.experts)

        def encode(part: list[int]) -> Tensor:
            return self.encode([videos[i] for i in part], counts[part])

        return in_portions(encode, shapes_of(counts), self.device, self.least)

    def encode(self, videos: Sequence[Video], counts: Counts) -> Tensor:
        """The same for videos that are sorted, and go through at once."""
        index, read, runs = layout(counts)
        x = self.embed(videos, counts, upload(index, self.device))
        x = self.encoder(x, runs, upload(read, self.device)).unflatten(0, (len(videos), -1))
        return self.tower.heads(x.unbind(dim=1))

    @torch.inference_mode()
    def sample(self) -> Tensor:
        """Drawn videos as the encoder reads them, [b, n, d]."""
        draw = torch.Generator(device="cpu").manual_seed(0)
        experts, n = self.config.experts, SAMPLE_TOKENS
        videos = [
            {
                expert.name: Tokens(
                    torch.rand(n, expert.dim, generator=draw, dtype=torch.float32, device="cpu"),
                    torch.arange(n, dtype=torch.float32, device="cpu") + TIME_OFFSET,
                )
                for expert in experts
            }
            for _ in range(SAMPLES)
        ]
        counts = count_tokens(videos, experts)
        index, _, _ = layout(counts)
        return self.embed(videos, counts, index).unflatten(0, (SAMPLES, -1))

    def embed(self, videos: Sequence[Video], counts: Counts, index: Tensor) -> Tensor:
        """What the encoder reads: [t, d], the rows `index` of the table of all tokens.

        The table holds [CLS], and then of each expert the AGG of each video, and all tokens.
        """
        owners = np.arange(len(videos), dtype=np.int64)
        embeddings = self.tower.vid_bert.embeddings
        types = embeddings.token_type_embeddings.weight
        table = [types[CLS_TYPE][None]]
        positions = [torch.full((1,), NO_POSITION, device=self.device)]
        for expert, reduce, n in zip(self.config.experts, self.reduce, counts.T, strict=True):
            raw, times = self.read(videos, expert)
            owner = upload(torch.from_numpy(owners.repeat(n)), self.device)
            # AGG is the maximum of the tokens, and stays zeros where there are none.
            agg, tokens = raw.tensor_split([len(videos)])
            if len(owner):
                of_each = owner[:, None].expand_as(tokens)
                agg.scatter_reduce_(0, of_each, tokens, "amax", include_self=False)
            reduced = reduce(raw).float()
            table.append(F.normalize(reduced, dim=-1) + types[expert.type_id])
            positions.append(torch.full((len(videos),), NO_POSITION, device=self.device))
            positions.append(self.positions(times, owner, len(videos)))
        at = torch.cat(positions)[index]
        x = torch.cat(table)[index] + embeddings.position_embeddings.weight[at]
        return embeddings.layer_norm(x)

    def read(self, videos: Sequence[Video], expert: ExpertConfig) -> tuple[Tensor, Tensor]:
        """An expert's features [b + n, d_in], after zeros for each video, and times [n]."""
        given = [video[expert.name] for video in videos if expert.name in video]
        zeros = torch.zeros(len(videos), expert.dim, dtype=torch.float32, device="cpu")
        raw = gather([zeros, *(tokens.features for tokens in given)], self.device)
        times = gather([zeros[:0, 0], *(tokens.times for tokens in given)], self.device)
        return raw, times

    def positions(self, times: Tensor, owner: Tensor, videos: int) -> Tensor:
        """The rows [n] of the position table; see `VideoTower.positions`."""
        if len(times):
            unknown = times.new_zeros(videos).index_add_(0, owner, times.isnan().to(times.dtype))
            times = times.masked_fill(unknown[owner] > 0, UNKNOWN_POSITION)
        return times.clamp(0, self.config.encoder.max_position_embeddings - 1).long()


def count_tokens(videos: Sequence[Video], experts: Sequence[ExpertConfig]) -> Counts:
    """Valid tokens of each expert in each video, [b, m]."""
    nothing = ((), ())
    rows = [[len(video.get(e.name, nothing)[1]) for e in experts] for video in videos]
    return np.array(rows, dtype=np.int64)


def shapes_of(counts: Counts) -> list[tuple[int, int]]:
    """Packed tokens of each video, and how many of them are the AGG of absent experts."""
    tokens, hidden = counts.sum(axis=1) + counts.shape[1] + 1, (counts == 0).sum(axis=1)
    return list(zip(tokens.tolist(), hidden.tolist(), strict=True))


def layout(counts: Counts) -> tuple[Tensor, Tensor, list[Run]]:
    """Where each video's tokens are in the table of `FastVideoTower.embed`, and in the packing.

    A video is packed as the AGG tokens of absent experts, to which no token attends, [CLS], and
    then each expert's AGG and tokens.

    Args:
        counts: see `count_tokens`.

    Returns:
        index [t] int64, the table's row of each packed one; read [b * m] int64, the packed rows of
        the AGG tokens; and the runs.
    """
    b, m = counts.shape
    sizes = b + counts.sum(axis=0)
    of_expert = CLS_ROW + 1 + sizes.cumsum() - sizes  # where an expert's rows begin
    agg = of_expert + np.arange(b)[:, None]
    first = of_expert + b + counts.cumsum(axis=0) - counts
    # Each video is 3m + 1 stretches of the table, of which some are empty.
    begins = np.full((b, 3 * m + 1), CLS_ROW, dtype=np.int64)
    begins[:, :m], begins[:, m + 1 :: 2], begins[:, m + 2 :: 2] = agg, agg, first
    lengths = np.ones_like(begins)
    absent = counts == 0
    lengths[:, :m], lengths[:, m + 1 :: 2], lengths[:, m + 2 :: 2] = absent, ~absent, counts
    packed = (lengths.cumsum() - lengths.ravel()).reshape(begins.shape)
    index = np.arange(lengths.sum(), dtype=np.int64) + (begins - packed).repeat(lengths.ravel())
    read = np.where(absent, packed[:, :m], packed[:, m + 1 :: 2]).ravel()
    return torch.from_numpy(index), torch.from_numpy(read), runs_of(shapes_of(counts))


class FastTextTower:
    """Token ids -> (b, m * same_dim): a unit vector an expert times that expert's weight."""

    def __init__(self, tower: TextTower, precision: str = "exact", compiled: bool = False) -> None:
        """Take over a tower, which must not be used afterwards: its encoder is emptied.

        Args:
            tower: loaded, on its device.
            precision: see `resolve_precision`.
            compiled: fuse what stands between the products by `torch.compile`; for CUDA.
        """
        self.tower = tower.eval()
        self.device = tower.txt_bert.embeddings.LayerNorm.weight.device
        kinds = kinds_of(precision, self.device, rounds_values=True)
        self.least = kinds.least
        encoder = tower.txt_bert.encoder
        self.encoder = FastEncoder(encoder, tower.config.bert, kinds, compiled, self.sample)
        align(tower)

    @torch.inference_mode()
    def __call__(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Embed a batch of tokenised texts; it is fastest where they are equally long.

        Args:
            ids: of each text its token ids, without padding.

        Returns:
            [b, m * same_dim] float32, as `TextTower` gives it.
        """

        def encode(part: list[int]) -> Tensor:
            return self.encode([ids[i] for i in part])

        return in_portions(encode, [(len(row), 0) for row in ids], self.device, self.least)

    @torch.inference_mode()
    def sample(self) -> Tensor:
        """Drawn texts as the encoder reads them, [b, n, d]."""
        draw = torch.Generator(device="cpu").manual_seed(0)
        config = self.tower.config.bert
        shape = SAMPLES, min(SAMPLE_TOKENS, config.max_position_embeddings)
        ids = torch.randint(config.vocab_size, shape, generator=draw, device="cpu")
        positions = torch.arange(shape[1], device="cpu").expand(shape)
        return self.tower.txt_bert.embeddings(ids, positions)

    def encode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """The same for texts that are sorted, and go through at once."""
        lengths = [len(row) for row in ids]
        tokens = torch.tensor(list(chain.from_iterable(ids)), device="cpu")
        positions = torch.tensor(list(chain.from_iterable(map(range, lengths))), device="cpu")
        first = torch.tensor([0, *lengths[:-1]], device="cpu").cumsum(dim=0)
        x = self.tower.txt_bert.embeddings(*(upload(x, self.device) for x in (tokens, positions)))
        x = self.encoder(x, runs_of((n, 0) for n in lengths), upload(first, self.device))
        return self.tower.heads(x)

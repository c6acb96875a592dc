"""Both towers for inference, on sequences without padding.

They compute what `VideoTower` and `TextTower` do, sharing those modules' small parts and taking
over the linear layers that cost the time. What is not read is not computed: masked tokens, and in
the last layer every row but the AGG tokens, or the first token of a text.

What is made here is made on the CPU by name, whatever torch's default device is.

Shape notation: b batch, m experts, n tokens of an expert, t tokens of all sequences, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import ExpertConfig
from ..features import Tokens, Video
from ..text_tower import TextTower
from ..video_tower import CLS_TYPE, NO_POSITION, UNKNOWN_POSITION, VideoTower
from ..weights import align
from .attention import Run, runs_of
from .dense import kinds_of
from .encoder import FastEncoder

CLS_ROW = 0  # of the table of tokens
TOKENS_AT_ONCE = 1536  # half or twice as many are a few percent slower, whatever the precision
TOKENS_AT_ONCE_ON_CUDA = 1 << 16


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
        self.encoder = FastEncoder(tower.vid_bert.encoder, self.config.encoder, kinds, compiled)
        align(tower)
        self.reduce = [kinds.values(tower.video_dim_reduce[e.name].fc) for e in self.config.experts]

    @torch.inference_mode()
    def __call__(self, videos: Sequence[Video]) -> Tensor:
        """Embed a batch of videos; it is fastest where they have equally many tokens.

        Args:
            videos: of each the valid tokens of some experts, see `mdmmt.features.read_videos`.

        Returns:
            [b, m * same_dim] float32, as `VideoTower` gives it.
        """
        shapes = [_shape(video, self.config.experts) for video in videos]
        return in_portions(self.encode, videos, shapes, self.device)

    def encode(self, videos: Sequence[Video]) -> Tensor:
        """The same for videos that are sorted, and go through at once."""
        experts = self.config.experts
        index, read, runs = layout(videos, experts)
        x = self.embed(videos, upload(index, self.device))
        x = self.encoder(x, runs, upload(read, self.device)).unflatten(0, (-1, len(experts)))
        return self.tower.heads(x.unbind(dim=1))

    def embed(self, videos: Sequence[Video], index: Tensor) -> Tensor:
        """What the encoder reads: [t, d], the rows `index` of the table of all tokens.

        The table holds [CLS], and then for each expert, for each video, AGG and tokens.
        """
        embeddings = self.tower.vid_bert.embeddings
        types = embeddings.token_type_embeddings.weight
        no_position = torch.tensor([NO_POSITION], device="cpu")
        table, positions = [types[CLS_TYPE][None]], [no_position]
        for expert, reduce in zip(self.config.experts, self.reduce, strict=True):
            raw = []
            for video in videos:
                tokens = video.get(expert.name)
                positions.append(no_position)
                if tokens is None:
                    raw.append(torch.zeros(1, expert.dim, dtype=torch.float32, device="cpu"))
                else:
                    raw += [tokens.features.amax(dim=0, keepdim=True), tokens.features]
                    positions.append(self.positions(tokens))
            reduced = reduce(gather(raw, self.device)).float()
            table.append(F.normalize(reduced, dim=-1) + types[expert.type_id])
        at = gather(positions, self.device)[index]
        x = torch.cat(table)[index] + embeddings.position_embeddings.weight[at]
        return embeddings.layer_norm(x)

    def positions(self, tokens: Tokens) -> Tensor:
        """The rows [n] of the position table; see `VideoTower.positions`."""
        times = tokens.times.cpu()
        if times.isnan().any():
            times = torch.full_like(times, UNKNOWN_POSITION)
        return times.clamp(0, self.config.encoder.max_position_embeddings - 1).long()


def layout(
    videos: Sequence[Video], experts: Sequence[ExpertConfig]
) -> tuple[Tensor, Tensor, list[Run]]:
    """Where each video's tokens are in the table of `FastVideoTower.embed`, and in the packing.

    A video is packed as the AGG tokens of absent experts, to which no token attends, [CLS], and
    then each expert's AGG and tokens.

    Returns:
        index [t] int64, the table's row of each packed one; read [b * m] int64, the packed rows of
        the AGG tokens; and the runs.
    """
    first, starts = CLS_ROW + 1, []  # starts[j][i]: the AGG row of expert j, video i
    for expert in experts:
        starts.append([])
        for video in videos:
            starts[-1].append(first)
            first += 1 + _count(video, expert)
    index, read, shapes = [], [], []
    for i, video in enumerate(videos):
        begin = len(index)
        absent = [j for j, expert in enumerate(experts) if expert.name not in video]
        index += [starts[j][i] for j in absent] + [CLS_ROW]
        agg = {j: begin + row for row, j in enumerate(absent)}
        for j, expert in enumerate(experts):
            if j not in agg:
                agg[j] = len(index)
                index += range(starts[j][i], starts[j][i] + 1 + _count(video, expert))
        read += [agg[j] for j in range(len(experts))]
        shapes.append((len(index) - begin, len(absent)))
    return torch.tensor(index, device="cpu"), torch.tensor(read, device="cpu"), runs_of(shapes)


def _count(video: Video, expert: ExpertConfig) -> int:
    return len(video[expert.name].times) if expert.name in video else 0


def _shape(video: Video, experts: Sequence[ExpertConfig]) -> tuple[int, int]:
    """Packed tokens, and absent experts: videos that agree in both share one run."""
    given = sum(len(tokens.times) for tokens in video.values())
    return 1 + len(experts) + given, len(experts) - len(video)


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
        kinds = kinds_of(precision, self.device)
        self.encoder = FastEncoder(tower.txt_bert.encoder, tower.config.bert, kinds, compiled)
        align(tower)

    @torch.inference_mode()
    def __call__(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Embed a batch of tokenised texts; it is fastest where they are equally long.

        Args:
            ids: of each text its token ids, without padding.

        Returns:
            [b, m * same_dim] float32, as `TextTower` gives it.
        """
        return in_portions(self.encode, ids, [(len(row), 0) for row in ids], self.device)

    def encode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """The same for texts that are sorted, and go through at once."""
        lengths = [len(row) for row in ids]
        tokens = torch.tensor(list(chain.from_iterable(ids)), device="cpu")
        positions = gather([torch.arange(n, device="cpu") for n in lengths], self.device)
        first = torch.tensor([0, *lengths[:-1]], device="cpu").cumsum(dim=0)
        x = self.tower.txt_bert.embeddings(upload(tokens, self.device), positions)
        x = self.encoder(x, runs_of((n, 0) for n in lengths), upload(first, self.device))
        return self.tower.heads(x)


def portions(order: Sequence[int], lengths: Sequence[int], device: torch.device) -> list[list[int]]:
    """Cut a batch where what one pass computes would leave the processor's cache.

    The parts are about equally large, as few tokens by themselves take more time each.

    Args:
        order: numbers of the sequences.
        lengths: tokens of each, in that order.
    """
    limit = TOKENS_AT_ONCE if device.type == "cpu" else TOKENS_AT_ONCE_ON_CUDA
    total, before = sum(lengths), 0
    parts: list[list[int]] = [[] for _ in range(math.ceil(total / limit))]
    for number, length in zip(order, lengths, strict=True):
        middle = before + length / 2
        parts[int(middle / total * len(parts))].append(number)
        before += length
    return [part for part in parts if part]


def in_portions(
    encode: Callable[[list[Any]], Tensor],
    items: Sequence[Any],
    shapes: Sequence[tuple[int, int]],
    device: torch.device,
) -> Tensor:
    """Encode sequences, those of one shape side by side, and put the rows into their order.

    Args:
        shapes: tokens of each, and how many of them are hidden.
    """
    order = sorted(range(len(items)), key=shapes.__getitem__)
    parts = portions(order, [shapes[i][0] for i in order], device)
    with torch.autocast(device.type, enabled=False):  # whatever the caller is within
        rows = torch.cat([encode([items[i] for i in part]) for part in parts])
    result = torch.empty_like(rows)
    result[upload(torch.tensor(order, device="cpu"), device)] = rows
    return result


def gather(rows: list[Tensor], device: torch.device) -> Tensor:
    """Put tensors one behind the other, on a device."""
    if all(part.device.type == "cpu" for part in rows):
        return upload(torch.cat(rows), device)
    return torch.cat([part.to(device) for part in rows])


def upload(x: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor to a device; to CUDA from pinned memory, so that nothing waits for the copy.

    Args:
        x: on the CPU.
    """
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x

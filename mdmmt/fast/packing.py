"""Videos without padding: the tokens of a batch follow one another.

The tokens of a batch are first made expert by expert, as rows of one table. For two videos and
the experts A and B, where video 0 has two tokens of A, and video 1 one of A and two of B:

    row of the table   0      1      2      3     4     5     6      7      8     9
    holds              [CLS]  A.AGG  A.AGG  A     A     A     B.AGG  B.AGG  B     B
    of video           all    0      1      0     0     1     0      1      1     1

A video is packed as the masked AGG tokens of the experts that it lacks, [CLS], and then for each
expert that it has, its AGG and its tokens:

    packed row         0      1      2      3     4     5      6      7     8      9     10
    holds              B.AGG  [CLS]  A.AGG  A     A     [CLS]  A.AGG  A     B.AGG  B     B
    of video           0      0      0      0     0     1      1      1     1      1     1
    row of the table   6      0      1      3     4     0      2      5     7      8     9

    output rows        2, 0 and 6, 8, the AGG tokens of A and B in both videos
    groups             (1 sequence of 5 tokens, 1 masked), (1 sequence of 6 tokens, 0 masked)

Shape notation: b batch, m experts, t tokens of all sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import ExpertConfig
from ..features.tokens import VideoTokens
from .attention import SequenceGroup, group_by_shape

TokenCounts = NDArray[np.int64]  # [b, m]

CLS_ROW = 0  # of the table


class Packing(NamedTuple):
    """Where the tokens of a batch are."""

    table_rows: Tensor  # [t] int64, the row of each packed token
    output_rows: Tensor  # [b * m] int64, the packed rows of the AGG tokens
    groups: list[SequenceGroup]


def count_tokens(videos: Sequence[VideoTokens], experts: Sequence[ExpertConfig]) -> TokenCounts:
    """Count the valid tokens of each expert in each video, [b, m]."""
    counts = [
        [len(video[e.name].times) if e.name in video else 0 for e in experts] for video in videos
    ]
    return np.array(counts, dtype=np.int64)


def packed_shapes(counts: TokenCounts) -> list[tuple[int, int]]:
    """Packed tokens of each video, and how many of them are the masked AGG of absent experts."""
    tokens, masked = counts.sum(axis=1) + counts.shape[1] + 1, (counts == 0).sum(axis=1)
    return list(zip(tokens.tolist(), masked.tolist(), strict=True))


def pack(counts: TokenCounts) -> Packing:
    """Lay out the packed tokens of a batch; the module's docstring has an example."""
    b, m = counts.shape
    sizes = b + counts.sum(axis=0)
    of_expert = CLS_ROW + 1 + sizes.cumsum() - sizes  # where the rows of each expert begin
    agg = of_expert + np.arange(b)[:, None]
    first = of_expert + b + counts.cumsum(axis=0) - counts
    # Each video is 3m + 1 stretches of the table, some of them empty: the AGG of each absent
    # expert, [CLS], and in turn the AGG and the tokens of each expert.
    begins = np.full((b, 3 * m + 1), CLS_ROW, dtype=np.int64)
    begins[:, :m], begins[:, m + 1 :: 2], begins[:, m + 2 :: 2] = agg, agg, first
    lengths = np.ones_like(begins)
    absent = counts == 0
    lengths[:, :m], lengths[:, m + 1 :: 2], lengths[:, m + 2 :: 2] = absent, ~absent, counts
    packed = (lengths.cumsum() - lengths.ravel()).reshape(begins.shape)
    index = np.arange(lengths.sum(), dtype=np.int64) + (begins - packed).repeat(lengths.ravel())
    output_rows = np.where(absent, packed[:, :m], packed[:, m + 1 :: 2]).ravel()
    groups = group_by_shape(packed_shapes(counts))
    return Packing(torch.from_numpy(index), torch.from_numpy(output_rows), groups)

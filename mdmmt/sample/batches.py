"""Videos and texts padded into the batches that the plain towers take.

Shape notation: b batch, n tokens of the longest in the batch, d width of an expert's features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ..config import ExpertConfig
from ..features.tokens import Tokens, VideoTokens
from ..towers.tokenizer import Tokenizer


def pad_videos(
    videos: Sequence[VideoTokens], experts: Sequence[ExpertConfig]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Pad videos into the batch that the video tower takes.

    Returns:
        features [b, n, d] float32, times [b, n] float32, mask [b, n] bool of each expert. The
        experts differ in n, which is at least 1.
    """
    features, times, mask = {}, {}, {}
    for expert in experts:
        no_features = torch.zeros(0, expert.dim, dtype=torch.float32)
        nothing = Tokens(no_features, torch.zeros(0, dtype=torch.float32))
        rows = [video.get(expert.name, nothing) for video in videos]
        lengths = torch.tensor([len(row.times) for row in rows])
        n = max(1, int(lengths.max()))
        padded = pad_sequence([row.features for row in rows], batch_first=True)
        padded_t = pad_sequence([row.times for row in rows], batch_first=True)
        missing = n - padded.shape[1]  # 1 where no video of the batch has this expert
        features[expert.name] = F.pad(padded, (0, 0, 0, missing))
        times[expert.name] = F.pad(padded_t, (0, missing))
        mask[expert.name] = torch.arange(n) < lengths[:, None]
    return features, times, mask


def pad_texts(ids: Sequence[Sequence[int]], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Pad the token ids of texts into the batch that the text tower takes.

    Returns:
        ids [b, n] int64 and mask [b, n] bool.
    """
    rows = [torch.tensor(row) for row in ids]
    mask = [torch.ones(len(row), dtype=torch.bool) for row in ids]
    padding = tokenizer.tokenizer.pad_token_id
    return (
        pad_sequence(rows, batch_first=True, padding_value=padding),
        pad_sequence(mask, batch_first=True),
    )

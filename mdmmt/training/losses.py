"""The losses of a batch of pairs, over the inner products of its texts and videos.

Text i belongs to video i. Every other text and video of the batch is a negative, unless the two
have the same caption or the same video: those are no wrong answers.

Shape notation: b pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def negatives(captions: Tensor, videos: Tensor) -> Tensor:
    """Which texts and videos of a batch do not belong together, [b, b] bool.

    Args:
        captions: [b], a number for each distinct caption.
        videos: [b], a number for each distinct video.
    """
    return (captions[:, None] != captions) & (videos[:, None] != videos)


def max_margin_loss(scores: Tensor, negative: Tensor, margin: float) -> Tensor:
    """The bidirectional max-margin ranking loss of MMT (Gabeur et al., 2020).

    Args:
        scores: [b, b], of text i and video j.
        negative: [b, b] bool.
        margin: by which the score of a pair must exceed those of its negatives.

    Returns:
        [], the mean over the negatives of all texts and of all videos; 0 if there is none.
    """
    own = scores.diagonal()
    to_video = F.relu(margin + scores - own[:, None])
    to_text = F.relu(margin + scores - own[None, :])
    total = ((to_video + to_text) * negative).sum()
    return total / (2 * negative.sum()).clamp(min=1)


def info_nce_loss(scores: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE: the cross-entropy of texts over videos and of videos over texts.

    Args:
        scores: [b, b], of text i and video j.
        negative: [b, b] bool.
        temperature: by which the scores are divided.

    Returns:
        [], the mean of both directions.
    """
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    logits = (scores / temperature).masked_fill(~(negative | own), float("-inf"))
    target = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

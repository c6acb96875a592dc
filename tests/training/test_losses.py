"""The losses, beside loops over all pairs."""

from __future__ import annotations

import math

import pytest
import torch

from mdmmt.training.losses import info_nce_loss, max_margin_loss, negatives

CAPTIONS = torch.tensor([0, 1, 2, 0, 3])
VIDEOS = torch.tensor([0, 1, 1, 2, 3])


def are_negatives(i: int, j: int) -> bool:
    return bool(CAPTIONS[i] != CAPTIONS[j] and VIDEOS[i] != VIDEOS[j])


def naive_max_margin(scores, margin):
    terms = []
    for i in range(5):
        for j in range(5):
            if are_negatives(i, j):
                terms.append(max(0.0, margin + scores[i][j] - scores[i][i]))
                terms.append(max(0.0, margin + scores[j][i] - scores[i][i]))
    return sum(terms) / len(terms)


def naive_info_nce(scores, temperature):
    total = 0.0
    for i in range(5):
        rivals = [j for j in range(5) if j == i or are_negatives(i, j)]
        own = math.exp(scores[i][i] / temperature)
        total -= math.log(own / sum(math.exp(scores[i][j] / temperature) for j in rivals))
        total -= math.log(own / sum(math.exp(scores[j][i] / temperature) for j in rivals))
    return total / 10


@pytest.mark.parametrize("seed", range(5))
def test_losses_are_those_of_a_loop_over_pairs(seed):
    scores = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    negative = negatives(CAPTIONS, VIDEOS)
    loss = max_margin_loss(scores, negative, 0.2)
    assert loss.item() == pytest.approx(naive_max_margin(scores.tolist(), 0.2), abs=1e-12)
    loss = info_nce_loss(scores, negative, 0.3)
    assert loss.item() == pytest.approx(naive_info_nce(scores.tolist(), 0.3), abs=1e-12)


def test_pairs_of_the_same_caption_or_video_are_no_negatives():
    negative = negatives(CAPTIONS, VIDEOS)
    assert negative.tolist() == [[are_negatives(i, j) for j in range(5)] for i in range(5)]
    scores = torch.rand(5, 5, requires_grad=True)
    (max_margin_loss(scores, negative, 1.0) + info_nce_loss(scores, negative, 1.0)).backward()
    own = torch.eye(5, dtype=torch.bool)
    assert (scores.grad[~negative & ~own] == 0).all()
    assert (scores.grad[negative] != 0).all()


def test_a_batch_without_negatives_has_no_loss():
    scores = torch.rand(3, 3, requires_grad=True)
    negative = negatives(torch.zeros(3), torch.zeros(3))
    for loss in (max_margin_loss(scores, negative, 0.1), info_nce_loss(scores, negative, 0.1)):
        assert loss.item() == 0

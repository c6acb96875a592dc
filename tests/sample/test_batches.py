"""Batches of padded videos and texts."""

from __future__ import annotations

import copy

import torch
from fast_towers import make_video
from tiny import TINY

from mdmmt.sample.batches import pad_texts, pad_videos
from mdmmt.towers.tokenizer import Tokenizer


def test_pad_videos_pads_each_expert_to_its_own_longest():
    videos = [make_video((4, 4, 0)), make_video((2, 2, 0), seed=1)]
    features, times, mask = pad_videos(videos, TINY.video.experts)
    assert features["wide"].shape == (2, 4, 11)
    assert torch.equal(features["wide"][1, :2], videos[1]["wide"].features)
    assert times["narrow"].shape == (2, 4)
    assert mask["narrow"].tolist() == [[True] * 4, [True, True, False, False]]
    assert mask["middle"].tolist() == [[False], [False]]


def test_pad_texts_pads_with_the_id_of_the_tokenizer(tiny):
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.pad_token = "[MASK]"
    assert tokenizer.pad_token_id != 0
    ids, mask = pad_texts([[5], [6, 7]], Tokenizer(tokenizer, tiny.config.text))
    assert ids.tolist() == [[5, tokenizer.pad_token_id], [6, 7]]
    assert mask.tolist() == [[True, False], [True, True]]

"""The towers without masked tokens, beside the plain towers and those of towhee.models."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from caption_pairs import write_pairs
from tiny import TINY

from mdmmt.features.files import read_features
from mdmmt.features.tokens import Tokens, tokens_of
from mdmmt.sample.batches import pad_texts, pad_videos
from mdmmt.towers.tokenizer import Tokenizer
from mdmmt.training.losses import max_margin_loss
from mdmmt.training.packed import encode_texts, encode_videos

TEXTS = ("Hello world", "the red ball", "dog", "a man is playing the ball and sings", "cat", "x y")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Videos of different lengths, some of which lack an expert."""
    folder = write_pairs(tmp_path_factory.mktemp("videos"), 6, seed=1).features
    files = sorted(folder.glob("*.safetensors"))
    videos = [tokens_of(read_features(file).features, TINY.video.experts) for file in files]
    assert {len(video) for video in videos} == {2, 3}
    return videos


@pytest.fixture(scope="module")
def ids(tiny):
    return Tokenizer(tiny.tokenizer, TINY.text)(TEXTS)


def without_dropout(module):
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        for name in ("dropout_p", "dropout_prob"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    return module


@torch.no_grad()
def test_the_towers_give_what_the_plain_ones_give(tiny, videos, ids, assert_parity):
    plain = tiny.ours_video(*pad_videos(videos, TINY.video.experts))
    assert_parity(encode_videos(tiny.ours_video, videos), plain, "training, video")
    tokenizer = Tokenizer(tiny.tokenizer, TINY.text)
    plain = tiny.ours_text(*pad_texts(ids, tokenizer))
    packed = tiny.ours_text.heads(encode_texts(tiny.ours_text, ids))
    assert_parity(packed, plain, "training, text")


@torch.no_grad()
def test_full_sequences_need_no_padding(tiny, assert_parity):
    rng = np.random.default_rng(0)
    videos = [
        {
            expert.name: Tokens(
                torch.from_numpy(rng.normal(size=(6, expert.dim)).astype(np.float32)),
                torch.arange(6.0) + 2,
            )
            for expert in TINY.video.experts
        }
        for _ in range(3)
    ]
    plain = tiny.ours_video(*pad_videos(videos, TINY.video.experts))
    assert_parity(encode_videos(tiny.ours_video, videos), plain, "training, full video")


def test_gradients_are_those_of_a_loop_over_towhee_models(tiny, videos, ids):
    """The loop as one would write it: padded batches, the scores, the loss pair by pair."""
    theirs_video, theirs_text, ours_video, ours_text = (
        without_dropout(copy.deepcopy(tower)).train()
        for tower in (tiny.theirs_video, tiny.theirs_text, tiny.ours_video, tiny.ours_text)
    )
    features, times, mask = pad_videos(videos, TINY.video.experts)
    video = theirs_video(features, times, {name: one.float() for name, one in mask.items()})
    scores = theirs_text(list(TEXTS)) @ video.T
    terms = []
    for i in range(len(TEXTS)):
        for j in range(len(TEXTS)):
            if i != j:
                terms.append((0.5 + scores[i, j] - scores[i, i]).clamp(min=0))
                terms.append((0.5 + scores[j, i] - scores[i, i]).clamp(min=0))
    loss = torch.stack(terms).mean()
    loss.backward()

    ours = ours_text.heads(encode_texts(ours_text, ids)) @ encode_videos(ours_video, videos).T
    ours_loss = max_margin_loss(ours, ~torch.eye(len(TEXTS), dtype=torch.bool), 0.5)
    ours_loss.backward()
    assert ours_loss.item() == pytest.approx(loss.item(), abs=1e-6)
    compared = 0
    for ours_tower, theirs_tower in ((ours_video, theirs_video), (ours_text, theirs_text)):
        theirs = dict(theirs_tower.named_parameters())
        for name, parameter in ours_tower.named_parameters():
            expected = theirs[name].grad
            if expected is None:
                assert parameter.grad is None, name
                continue
            scale = expected.abs().max().clamp(min=1e-4)
            assert (parameter.grad - expected).abs().max() <= 1e-4 * scale, name
            compared += 1
    assert compared > 100
    for name, buffer in ours_text.named_buffers():  # of the batch norm
        torch.testing.assert_close(buffer, dict(theirs_text.named_buffers())[name])


def test_dropout_acts_in_every_part(tiny, videos, ids):
    """With a rate near 1 in one place at a time, the output is another one."""
    for tower, encode in (
        (tiny.ours_video, lambda one: encode_videos(one, videos)),
        (tiny.ours_text, lambda one: encode_texts(one, ids)),
    ):
        tower = without_dropout(copy.deepcopy(tower)).train()
        before = encode(tower)
        parts = [part for part in tower.modules() if isinstance(part, torch.nn.Dropout)]
        parts = [part for part in parts if part is not getattr(tower, "dropout", None)]
        assert len(parts) == 5  # of the embeddings, and two of each layer
        for part in parts:
            part.p = 0.9
            assert not torch.allclose(encode(tower), before)
            part.p = 0.0
        for part in tower.modules():
            if hasattr(part, "dropout_p"):
                part.dropout_p = 0.9
                assert not torch.allclose(encode(tower), before)
                part.dropout_p = 0.0
        assert torch.equal(encode(tower), before)

"""The training of the sample model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_clips import FRESH_CLIPS

from mdmmt.sample import THRESHOLD
from mdmmt.sample.captions import PHRASES, caption
from mdmmt.sample.clips import COMBINATIONS, Combination
from mdmmt.sample.train import (
    BALANCE,
    BATCH_SIZE,
    CAPTIONS,
    HELD_OUT,
    MARGIN,
    OTHER,
    OTHERS,
    RIGHT,
    SCORES,
    TEST_CLIPS,
    TRAIN_CLIPS,
    MakeTexts,
    Named,
    batch_loss,
    draw_texts,
    evaluate,
    imbalance,
    is_held_out,
    make_config,
    make_tokenizer,
    max_margin_loss,
    read_clips,
    score_loss,
    split,
    train,
)
from mdmmt.towers.tokenizer import Tokenizer
from mdmmt.training import Sample, Segment


def test_make_tokenizer_has_tokens_for_any_english_and_captions_fit():
    tokenizer = make_tokenizer()
    ids = tokenizer("Quick foxes jump over 42 lazy dogs, don't they? (Yes!)")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    config = make_config(len(tokenizer)).text
    rng = np.random.default_rng(0)
    texts = [caption(COMBINATIONS[i], rng) for i in rng.integers(len(COMBINATIONS), size=500)]
    longest = max(len(row) for row in tokenizer(texts)["input_ids"])
    assert longest < config.max_length  # a final dot may be added
    assert all("##" not in token for text in texts for token in tokenizer.tokenize(text))


def test_split_keeps_tests_and_pairs_from_training():
    training, seen, unseen = split()
    assert (len(training), len(seen), len(unseen)) == (TRAIN_CLIPS, TEST_CLIPS, TEST_CLIPS)
    assert len({*training, *seen, *unseen}) == TRAIN_CLIPS + 2 * TEST_CLIPS
    assert not any(map(is_held_out, [*training, *seen])) and all(map(is_held_out, unseen))
    for pair in HELD_OUT:
        assert any(pair.items() <= c._asdict().items() for c in unseen)
        assert not any(pair.items() <= c._asdict().items() for c in training)


def test_max_margin_loss_follows_its_definition():
    scores = torch.tensor([[0.9, 0.85, 0.1], [0.2, 0.3, 0.4], [0.0, 0.6, 0.5]])
    matches = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    rows = []
    for row, is_match in zip(scores.tolist(), matches.tolist(), strict=True):
        pairs = [
            max(0.0, MARGIN + other - right)
            for right, yes in zip(row, is_match, strict=True)
            for other, also in zip(row, is_match, strict=True)
            if yes and not also
        ]
        rows.append(sum(pairs) / max(1, len(pairs)))
    assert max_margin_loss(scores, matches).item() == pytest.approx(sum(rows) / 3)
    assert max_margin_loss(torch.eye(3), torch.eye(3).bool()).item() == 0


def test_score_loss_follows_its_definition():
    described = torch.tensor([[0.5, 0.4], [0.9, 0.0]])
    shares = torch.tensor([[1.0, 0.5], [1.0, 0.0]])
    others = torch.tensor([[0.1, 0.25], [-0.2, -0.1]])
    right = ((RIGHT - 0.5) ** 2 + (RIGHT / 2 - 0.4) ** 2 + (0.9 - RIGHT) ** 2 + 0) / 4
    other = (0.25 - OTHER + 0) / 2
    loss = score_loss(described, shares, others)
    assert loss.item() == pytest.approx(SCORES * right + other)


def test_batch_loss_holds_captions_and_queries_to_the_share_of_their_attributes():
    # Two clips of five attributes, all different; a caption of the first, and a query for each.
    same = torch.eye(2, dtype=torch.bool)[:, :, None].expand(2, 2, 5)
    named = torch.tensor([[True] * 5, [True] + [False] * 4, [False] * 4 + [True]])
    shares = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    others = torch.full((1, 2), OTHER - 0.1)
    video = torch.eye(2, 6)

    def loss_of(scores):
        """Of texts with these scores, whose experts weigh alike."""
        rest = torch.full((4, 4), 1.0)
        rest[:, :2] = (rest[:, :2] - scores.square()).clamp(min=0).sqrt()
        text = torch.cat([scores, rest[:, :1], rest[:, :1], rest[:, :2]], dim=1)
        return batch_loss(text, video, Named(same, named)) - BALANCE * imbalance(text[:1])

    exact = loss_of(torch.cat([RIGHT * shares, others]))
    assert exact.item() == pytest.approx(0, abs=1e-7)
    for row, column in ((0, 1), (1, 1), (2, 0)):  # a wrong clip breaks no margin by scoring less
        scores = RIGHT * shares
        scores[row, column] -= 0.3
        loss = loss_of(torch.cat([scores, others]))
        assert loss.item() == pytest.approx(SCORES * 0.3**2 / shares.numel(), abs=1e-6)


def test_imbalance_is_zero_for_experts_that_weigh_alike():
    alike = torch.tensor([[0.2, 0.0, 0.8], [0.5, 0.5, 0.0], [0.3, 0.5, 0.2]])
    text = torch.nn.functional.pad(alike[:, :, None], (1, 0)).flatten(1)  # blocks of two numbers
    assert imbalance(text).item() == pytest.approx(0, abs=1e-6)
    alone = torch.nn.functional.pad(torch.eye(3)[[0, 0], :, None], (1, 0)).flatten(1)
    # The divergence of one expert from three that are alike is log 3.
    assert imbalance(alone + 1e-20).item() == pytest.approx(math.log(3), abs=1e-4)


def test_draw_texts_tells_which_attributes_each_text_names():
    clips = split()[0][:BATCH_SIZE]
    texts, named = draw_texts(clips, np.random.default_rng(0))
    assert named.shape == (CAPTIONS + BATCH_SIZE, len(clips[0]))
    assert named[:CAPTIONS].all()
    assert len(texts) == len(named) + OTHERS
    rows = zip(texts[: len(named)], [*clips[:CAPTIONS], *clips], named, strict=True)
    for text, clip, (names_colour, *_) in rows:
        words = {word.strip(".,:;?") for word in text.lower().split()}
        found = {
            colour for colour, phrases in PHRASES["colour"].items() if words & {colour, *phrases}
        }
        assert found == ({clip.colour} if names_colour else set())


def test_the_loss_is_told_which_values_two_clips_share():
    clips = split()[0][:BATCH_SIZE]
    files = [Path(f"{number}") for number in range(BATCH_SIZE)]
    samples = [Sample(Segment(0, file, 0.0, None, ()), None, ()) for file in files]
    make = MakeTexts(dict(zip(files, clips, strict=True)))
    texts, (same, named) = make(samples, np.random.default_rng(0))
    expected = draw_texts(clips, np.random.default_rng(0))
    assert texts == expected[0] and np.array_equal(named, expected[1])
    for row, column in ((0, 0), (0, 1), (5, 40)):
        values = zip(clips[row], clips[column], strict=True)
        assert same[row, column].tolist() == [one == other for one, other in values]


def test_threshold_is_half_the_score_of_one_attribute_of_five():
    assert pytest.approx(RIGHT / len(Combination._fields) / 2) == THRESHOLD


@pytest.mark.slow
def test_train_learns_and_gives_one_model_for_one_seed(fresh, tmp_path):
    tokenizer = make_tokenizer()
    config = make_config(len(tokenizer))
    clips = read_clips(*fresh, config.video.experts)

    def towers(name, seed, epochs):
        return train(clips, config, tokenizer, seed, tmp_path / name, epochs)

    def state(name, seed):
        both = towers(name, seed, epochs=3)
        return {name: value for tower in both for name, value in tower.state_dict().items()}

    brief, again, other = state("brief", 0), state("again", 0), state("other", 1)
    assert all(torch.equal(brief[name], again[name]) for name in brief)
    assert not all(torch.equal(brief[name], other[name]) for name in brief)
    metrics = evaluate(clips, *towers("long", 0, 40), Tokenizer(tokenizer, config.text), seed=0)
    assert metrics["MedR"] < FRESH_CLIPS / 8

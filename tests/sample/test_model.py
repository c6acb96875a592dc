"""The model that the package ships."""

from __future__ import annotations

import json

import numpy as np
import pytest
from media import BIG_BUCK_BUNNY, BIKES, footage
from sample_clips import FRESH_CLIPS, FRESH_DRAW

import mdmmt
from mdmmt.experts import LIGHT_EXPERTS, expert_classes
from mdmmt.sample import THRESHOLD
from mdmmt.sample.captions import caption
from mdmmt.sample.train import (
    HELD_OUT,
    TEST_CLIPS,
    TRAIN_CLIPS,
)
from mdmmt.sample.trials import OTHER_SENTENCES, trial_queries
from mdmmt.storage.paths import SAMPLE_FOLDER

MAX_BYTES = 4_000_000


@pytest.fixture(scope="session")
def sample():
    return mdmmt.load("sample", device="cpu")


def test_shipped_model_is_small():
    sizes = {path.name: path.stat().st_size for path in SAMPLE_FOLDER.iterdir()}
    assert set(sizes) == {
        "config.json",
        "model.safetensors",
        "report.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(sizes.values()) <= MAX_BYTES


def test_shipped_report_describes_the_shipped_model():
    report = json.loads((SAMPLE_FOLDER / "report.json").read_text())
    seeds = [result["seed"] for result in report["results"]]
    assert len(set(seeds)) >= 3
    assert report["threshold"] == THRESHOLD
    missed = set()
    for result in report["results"]:
        for pairs, recall in (("seen pairs", 97), ("unseen pairs", 95)):
            scores = result[pairs]
            holds = {
                "R@1": scores["R@1"] >= recall,
                "first hits right": scores["first hits right"] >= 95,
                "queries below": scores["queries below"] <= 5,
                "others below": scores["others below"] >= 95,
            }
            missed |= {(result["seed"], pairs, goal) for goal, held in holds.items() if not held}
    # The model of seed 0 is shipped. docs/sample-model.md names the one goal that another misses.
    assert seeds[0] == 0 and missed == {(1, "seen pairs", "queries below")}
    assert report["results"][1]["seen pairs"]["queries below"] == 5.5
    assert report["clips"] == {
        "train": TRAIN_CLIPS,
        "seen pairs": TEST_CLIPS,
        "unseen pairs": TEST_CLIPS,
    }
    assert report["held-out pairs"] == [" ".join(pair.values()) for pair in HELD_OUT]


@pytest.mark.slow
def test_shipped_model_finds_new_clips(sample, fresh):
    combinations, paths = fresh
    rng = np.random.default_rng(FRESH_DRAW)
    text = sample.encode_text([caption(c, rng) for c in combinations])
    video = sample.encode_video([str(path) for path in paths])
    scores = sample.similarity(text, video).score
    ranks = (scores >= scores.diagonal()[:, None]).sum(axis=1)
    assert (ranks == 1).mean() >= 0.97
    weights = np.linalg.norm(text.reshape(len(text), 3, -1), axis=-1).mean(axis=0)
    assert weights.min() > 0.2  # a model that only heeds one expert shows nothing of the others


@pytest.mark.slow
def test_shipped_model_answers_short_queries(sample, fresh):
    combinations, paths = fresh
    rng = np.random.default_rng(FRESH_DRAW)
    queries = trial_queries(combinations, 200, rng)
    video = sample.encode_video([str(path) for path in paths])
    scores = sample.similarity(sample.encode_text([text for text, _ in queries]), video).score
    right = [
        values.items() <= combinations[first]._asdict().items()
        for (_, values), first in zip(queries, scores.argmax(axis=1), strict=True)
    ]
    assert np.mean(right) >= 0.95
    assert (scores.max(axis=1) < THRESHOLD).mean() <= 0.05
    others = sample.similarity(sample.encode_text(list(OTHER_SENTENCES)), video).score
    assert (others.max(axis=1) < THRESHOLD).mean() >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_shipped_model_finds_the_same_in_low_precision(sample, fresh, precision):
    combinations, paths = fresh
    rng = np.random.default_rng(FRESH_DRAW)
    texts = [caption(c, rng) for c in combinations]
    items = [sample.extract(path) for path in paths]
    found = []
    for model in (sample, mdmmt.load("sample", "cpu", precision=precision)):
        scores = model.similarity(texts, items).score
        ranks = (scores >= scores.diagonal()[:, None]).sum(axis=1)
        found.append((ranks == 1).mean())
    assert abs(found[0] - found[1]) <= 1 / FRESH_CLIPS  # one clip, the least there is to see


def test_shipped_model_has_the_experts_of_this_package(sample):
    experts = sample.config.video.experts
    assert {e.name: e.dim for e in experts} == {
        name: expert.dim for name, expert in expert_classes(LIGHT_EXPERTS).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, experts", [(BIG_BUCK_BUNNY, {"frame", "motion", "sound"}), (BIKES, {"frame", "motion"})]
)
def test_shipped_model_embeds_real_footage(sample, name, experts):
    item = sample.extract(footage(name))
    assert set(item["features"]) == experts
    vector = sample.encode_video(item)
    width = len(sample.config.video.experts) * sample.config.video.same_dim
    assert vector.shape == (width,) and vector.dtype == np.float32 and np.isfinite(vector).all()
    np.testing.assert_allclose(vector, sample.encode_video(str(footage(name))), atol=1e-6)

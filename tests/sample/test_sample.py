"""The sample: its clips, its captions, its training, and the model that the package ships."""

import json
import re
from collections import Counter

import av
import numpy as np
import pytest
import torch
from media import BIG_BUCK_BUNNY, BIKES, footage

import mdmmt
from mdmmt.experts import LIGHT_EXPERTS, expert_classes
from mdmmt.sample.captions import PHRASES, TEMPLATES, caption
from mdmmt.sample.clips import COMBINATIONS, TONES, Combination, draw
from mdmmt.sample.train import (
    HELD_OUT,
    MARGIN,
    TEST_CLIPS,
    TRAIN_CLIPS,
    Clips,
    draw_clips,
    evaluate,
    is_held_out,
    make_config,
    make_tokenizer,
    max_margin_loss,
    read_clips,
    split,
    train,
)
from mdmmt.storage.paths import SAMPLE_FOLDER
from mdmmt.towers.tokenizer import Tokenizer

FRESH_DRAW = 1000  # a seed that training and its tests do not draw from
MAX_BYTES = 4_000_000
FRESH_CLIPS = 64
BALL = Combination("red", "circle", "right", "same", "rise")


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """Clips of combinations the shipped model has not seen, and their paths."""
    _, seen, _ = split()
    folder = tmp_path_factory.mktemp("fresh") / "clips"
    combinations = seen[:FRESH_CLIPS]
    return combinations, draw_clips(folder, combinations, FRESH_DRAW)


@pytest.fixture(scope="session")
def sample():
    return mdmmt.load("sample", device="cpu")


@pytest.mark.parametrize("tone", TONES)
def test_clips_are_h264_and_aac(tmp_path, tone):
    kinds = Counter()
    for seed in range(8 if tone == "silent" else 2):
        path = tmp_path / f"{seed}.mp4"
        draw(path, BALL._replace(tone=tone), (seed,))
        with av.open(str(path)) as container:
            assert 1.9 <= container.duration / av.time_base <= 4.2
            codecs = {s.type: s.codec.name for s in container.streams}
        assert codecs["video"] == "h264" and codecs.get("audio", "aac") == "aac"
        kinds["audio" in codecs] += 1
    assert kinds[True] and (kinds[False] > 0) == (tone == "silent")


def test_a_seed_is_a_clip(tmp_path):
    for name, seed in (("a", (1, 2)), ("b", (1, 2)), ("c", (1, 3))):
        draw(tmp_path / f"{name}.mp4", BALL, seed)
    a, b, c = ((tmp_path / f"{name}.mp4").read_bytes() for name in "abc")
    assert a == b != c


def test_captions_name_every_attribute_and_no_other_value():
    rng = np.random.default_rng(0)
    wordings = Counter()
    for i in rng.integers(len(COMBINATIONS), size=1000):
        text = caption(COMBINATIONS[i], rng)
        wordings[text] += 1
        for attribute, value in COMBINATIONS[i]._asdict().items():
            named = {
                other
                for other, phrases in PHRASES[attribute].items()
                if any(re.search(rf"\b{phrase}\b", text.lower()) for phrase in phrases)
            }
            assert named == {value}, (attribute, text)
    assert len(wordings) > 990


def test_every_template_names_every_attribute():
    for template in TEMPLATES:
        assert all(f"{{{name}}}" in template for name in Combination._fields)
    assert {name: set(values) for name, values in PHRASES.items()} == {
        name: {getattr(c, name) for c in COMBINATIONS} for name in Combination._fields
    }


def test_any_english_has_tokens_and_captions_fit():
    tokenizer = make_tokenizer()
    ids = tokenizer("Quick foxes jump over 42 lazy dogs, don't they? (Yes!)")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    config = make_config(len(tokenizer)).text
    rng = np.random.default_rng(0)
    texts = [caption(COMBINATIONS[i], rng) for i in rng.integers(len(COMBINATIONS), size=500)]
    longest = max(len(row) for row in tokenizer(texts)["input_ids"])
    assert longest < config.max_length  # a final dot may be added
    assert all("##" not in token for text in texts for token in tokenizer.tokenize(text))


def test_the_split_keeps_tests_and_held_out_pairs_from_training():
    training, seen, unseen = split()
    assert (len(training), len(seen), len(unseen)) == (TRAIN_CLIPS, TEST_CLIPS, TEST_CLIPS)
    assert len({*training, *seen, *unseen}) == TRAIN_CLIPS + 2 * TEST_CLIPS
    assert not any(map(is_held_out, [*training, *seen])) and all(map(is_held_out, unseen))
    for pair in HELD_OUT:
        assert any(pair.items() <= c._asdict().items() for c in unseen)
        assert not any(pair.items() <= c._asdict().items() for c in training)


def test_the_loss_is_that_of_its_definition():
    scores = torch.tensor([[0.9, 0.85, 0.1], [0.2, 0.3, 0.4], [0.0, 0.6, 0.5]])
    naive = [
        max(0.0, MARGIN + float(scores[i, j] - scores[i, i]))
        + max(0.0, MARGIN + float(scores[i, j] - scores[j, j]))
        for i in range(3)
        for j in range(3)
        if i != j
    ]
    assert max_margin_loss(scores).item() == pytest.approx(sum(naive) / 6)
    assert max_margin_loss(torch.eye(3)).item() == 0


@pytest.mark.slow
def test_training_learns_and_a_seed_is_a_model(fresh):
    combinations, paths = fresh
    hf_tokenizer = make_tokenizer()
    config = make_config(len(hf_tokenizer))
    clips = Clips(combinations, read_clips(paths, config.video.experts))
    tokenizer = Tokenizer(hf_tokenizer, config.text)

    def state(towers):
        return {name: value for tower in towers for name, value in tower.state_dict().items()}

    brief, again, other = (state(train(clips, config, tokenizer, s, epochs=3)) for s in (0, 0, 1))
    assert all(torch.equal(brief[name], again[name]) for name in brief)
    assert not all(torch.equal(brief[name], other[name]) for name in brief)
    towers = train(clips, config, tokenizer, seed=0, epochs=40)
    assert evaluate(clips, *towers, tokenizer, seed=0)["MedR"] < FRESH_CLIPS / 8


def test_the_shipped_model_is_small():
    sizes = {path.name: path.stat().st_size for path in SAMPLE_FOLDER.iterdir()}
    assert set(sizes) == {
        "config.json",
        "model.safetensors",
        "report.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(sizes.values()) <= MAX_BYTES


def test_the_report_is_of_the_shipped_model():
    report = json.loads((SAMPLE_FOLDER / "report.json").read_text())
    seeds = [result["seed"] for result in report["results"]]
    assert len(set(seeds)) >= 3
    assert report["results"][0]["seen pairs"]["R@1"] >= 90  # the shipped one's
    assert report["clips"] == {
        "train": TRAIN_CLIPS,
        "seen pairs": TEST_CLIPS,
        "unseen pairs": TEST_CLIPS,
    }
    assert report["held-out pairs"] == [" ".join(pair.values()) for pair in HELD_OUT]


@pytest.mark.slow
def test_the_shipped_model_finds_clips_it_has_never_seen(sample, fresh):
    combinations, paths = fresh
    rng = np.random.default_rng(FRESH_DRAW)
    text = sample.encode_text([caption(c, rng) for c in combinations])
    video = sample.encode_video([str(path) for path in paths])
    scores = sample.similarity(text, video).score
    ranks = (scores >= scores.diagonal()[:, None]).sum(axis=1)
    assert (ranks == 1).mean() >= 0.8
    weights = np.linalg.norm(text.reshape(len(text), 3, -1), axis=-1).mean(axis=0)
    assert weights.min() > 0.2  # a model that only heeds one expert shows nothing of the others


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_low_precision_finds_the_same(sample, fresh, precision):
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


def test_the_shipped_model_runs_the_experts_of_this_package(sample):
    experts = sample.config.video.experts
    assert {e.name: e.dim for e in experts} == {
        name: expert.dim for name, expert in expert_classes(LIGHT_EXPERTS).items()
    }


@pytest.mark.parametrize(
    "name, experts", [(BIG_BUCK_BUNNY, {"frame", "motion", "sound"}), (BIKES, {"frame", "motion"})]
)
def test_the_shipped_model_embeds_real_footage(sample, name, experts):
    item = sample.extract(footage(name))
    assert set(item["features"]) == experts
    vector = sample.encode_video(item)
    width = len(sample.config.video.experts) * sample.config.video.same_dim
    assert vector.shape == (width,) and vector.dtype == np.float32 and np.isfinite(vector).all()
    np.testing.assert_allclose(vector, sample.encode_video(str(footage(name))), atol=1e-6)

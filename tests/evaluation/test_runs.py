"""Evaluation runs: against the same steps one by one, on the tiny model and on sample clips."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
from naive import naive_ranks
from tiny import TINY

import mdmmt
from mdmmt import InputError, experts
from mdmmt.datasets import Caption
from mdmmt.evaluation import ablate, evaluate
from mdmmt.evaluation.metrics import METRICS
from mdmmt.features.extraction import extract
from mdmmt.features.files import (
    FeatureFile,
    FeatureFolder,
    SourceVideo,
    versions_of,
    write_features,
)
from mdmmt.features.segments import select
from mdmmt.features.tokens import tokens_of
from mdmmt.features.types import ExpertFeatures
from mdmmt.sample.captions import caption as sample_caption

EXPERTS = TINY.video.experts
WORDS = ["hello", "world", "dog", "man", "is", "playing", "the", "red", "ball", "person", "cat"]


def video_features(seed, n=9, absent=()):
    rng = np.random.default_rng(seed)
    times = np.stack([np.arange(n), np.arange(n) + 1], axis=1).astype(float)
    return {
        expert.name: ExpertFeatures(rng.standard_normal((n, expert.dim)), times)
        for expert in EXPERTS
        if expert.name not in absent
    }


@pytest.fixture(scope="module")
def features():
    return {f"video{i}": video_features(i) for i in range(12)}


@pytest.fixture(scope="module")
def captions():
    """Three or four captions of each video, of the whole and of parts; some texts repeat."""
    rng = np.random.default_rng(4)
    captions = []
    for i in range(36):
        span = [(0.0, None), (0.0, 9.0), (1.5, 4.0), (6.0, 20.0)][rng.integers(4)]
        text = " ".join(rng.choice(WORDS, size=rng.integers(1, 4)))
        captions.append(Caption(f"video{i % 12}", *span, text, f"captions.csv, line {i + 2}"))
    captions += [
        replace(captions[3], video="video7"),
        replace(captions[4], text=f" {captions[4].text}  "),
    ]
    return [captions[i] for i in rng.permutation(len(captions))]


@functools.cache
def embed_text(model, text):
    return model.encode_text(text)


def naive_evaluation(model, captions, features, names):
    """The ranks, from each text and each segment embedded by itself."""
    keys, texts, segments = [], [], {}
    for caption in captions:
        end_s = 9.0 if caption.end_s is None else caption.end_s
        key = (caption.video, caption.start_s, end_s)
        keys.append(key)
        texts.append(" ".join(caption.text.split()))
        if key not in segments:
            selected = select(features[caption.video], caption.start_s, end_s)
            present = {name: selected[name] for name in names if name in selected}
            segments[key] = np.zeros(72)
            if present:
                segments[key] = model.encode_tokens([tokens_of(present, EXPERTS)])[0]
    unique_texts, unique_keys = list(dict.fromkeys(texts)), list(segments)
    return naive_ranks(
        np.array([embed_text(model, text) for text in unique_texts]),
        np.array(list(segments.values())),
        texts,
        keys,
        [unique_texts.index(text) for text in texts],
        [unique_keys.index(key) for key in keys],
    )


def test_evaluate_equals_its_steps_one_by_one(tiny_model, captions, features, monkeypatch):
    expected = naive_evaluation(tiny_model, captions, features, [e.name for e in EXPERTS])
    for batch in (256, 5):
        monkeypatch.setattr("mdmmt.evaluation.runs.BATCH", batch)
        result = evaluate(tiny_model, captions, features)
        assert (result.ranks.t2v.tolist(), result.ranks.v2t.tolist()) == expected
    assert result.protocol == "unique"
    assert result.experts == ("wide", "narrow", "middle")
    assert result.segments == len({(c.video, c.start_s, c.end_s or 9.0) for c in captions})
    assert result.texts == len({" ".join(c.text.split()) for c in captions})
    assert (result.outside, result.missing, result.empty_segments) == ((), (), 0)
    assert result.metrics["t2v"].keys() == result.metrics["v2t"].keys() == set(METRICS)


def test_evaluate_uses_some_experts_only(tiny_model, captions, features):
    silent = features | {"video3": video_features(3, absent=["narrow"])}
    for names in (["narrow"], ["middle", "wide"]):
        result = evaluate(tiny_model, captions, silent, experts=names)
        expected = naive_evaluation(tiny_model, captions, silent, names)
        assert (result.ranks.t2v.tolist(), result.ranks.v2t.tolist()) == expected
        assert set(result.experts) == set(names)
        spans = {(c.start_s, c.end_s or 9.0) for c in captions if c.video == "video3"}
        assert result.empty_segments == (len(spans) if names == ["narrow"] else 0)


def test_ablate_evaluates_the_same_queries(tiny_model, captions, features):
    results = ablate(tiny_model, captions, features)
    assert [one.experts for one in results] == [
        *(("wide", "narrow", "middle"), ("wide",), ("narrow",), ("middle",)),
        *(("narrow", "middle"), ("wide", "middle"), ("wide", "narrow")),
    ]
    assert len({one.queries for one in results}) == 1
    for one in results:
        alone = evaluate(tiny_model, captions, features, experts=one.experts)
        np.testing.assert_array_equal(one.ranks, alone.ranks)
    assert len({tuple(one.ranks.t2v) for one in results}) > 4


def test_ablate_checks_the_features_of_each_video_once(tiny_model, captions, features, monkeypatch):
    checked = []
    check = ExpertFeatures.check
    monkeypatch.setattr(
        ExpertFeatures, "check", lambda one, *args: (checked.append(one), check(one, *args))
    )
    ablate(tiny_model, captions, features)
    everything = [id(one) for video in features.values() for one in video.values()]
    assert sorted(map(id, checked)) == sorted(everything)


def test_evaluate_embeds_the_first_tokens_of_a_long_segment(tiny_model, monkeypatch):
    long = video_features(1, n=max(expert.max_tokens for expert in EXPERTS) + 5)
    embedded = []
    encode = tiny_model.encode_tokens
    monkeypatch.setattr(
        tiny_model, "encode_tokens", lambda some: (embedded.extend(some), encode(some))[1]
    )
    evaluate(tiny_model, [Caption("a", 0, None, "dog")], {"a": long})
    (video,) = embedded
    for expert in EXPERTS:
        first = long[expert.name].values[: expert.max_tokens]
        np.testing.assert_array_equal(video[expert.name].features, first.astype(np.float32))


def test_evaluate_lists_captions_outside_their_video(tiny_model, features):
    kept = [Caption("video1", 0, None, "dog"), Caption("video2", 2, 3, "cat")]
    out = [
        Caption("video1", 9.5, 12, "ball", "c.csv, line 3"),
        Caption("video1", 4, 4, "hello"),
        Caption("video2", 5, 3, "world"),
    ]
    result = evaluate(tiny_model, [out[0], kept[0], out[1], kept[1], out[2]], features)
    assert result.outside == (
        "c.csv, line 3: 'ball' ('video1', 9.5 to 12)",
        "'hello' ('video1', 4 to 4)",
        "'world' ('video2', 5 to 3)",
    )
    alone = evaluate(tiny_model, kept, features)
    assert result.queries == alone.queries
    np.testing.assert_array_equal(result.ranks, alone.ranks)
    with pytest.raises(InputError, match="nothing can be evaluated"):
        evaluate(tiny_model, out, features)


def test_evaluate_refuses_or_lists_captions_without_features(tiny_model, features):
    captions = [
        Caption(name, 0, None, "dog", f"c.csv, line {i}")
        for i, name in enumerate(["video1", "none", "silent", "video2", "other"])
    ]
    features = features | {"silent": {}, "other": {"smell": features["video1"]["wide"]}}
    with pytest.raises(InputError, match=r"for the video of c.csv, line 1: 'dog' \('none', 0 to"):
        evaluate(tiny_model, captions, features)
    with pytest.raises(InputError, match=r"experts for the video of c\.csv, line 2"):
        evaluate(tiny_model, captions[2:], features)
    result = evaluate(tiny_model, captions, features, skip_missing=True)
    assert [one.split(":")[0] for one in result.missing] == [f"c.csv, line {i}" for i in (1, 2, 4)]
    assert len(result.ranks.t2v) == 2
    many = [Caption(f"none{i}", 0, None, "dog") for i in range(9)]
    with pytest.raises(InputError, match=r"'none4', 0 to the end\); and of 4 more captions"):
        evaluate(tiny_model, many, features)


def test_evaluate_draws_one_caption_for_each_video_as_the_authors_do(tiny_model, features):
    captions = [
        Caption(f"video{v}", 0, 1 + i, f"{WORDS[i]} {v}") for i in range(5) for v in range(4)
    ]
    captions.insert(0, Caption("video0", 50, 60, "outside, so it is not drawn"))
    result = evaluate(tiny_model, captions, features, "one-per-video")
    drawn = np.random.RandomState(42).choice(5)
    chosen = [Caption(f"video{v}", 0, 1 + drawn, f"{WORDS[drawn]} {v}") for v in range(4)]
    alone = evaluate(tiny_model, chosen, features)
    assert result.queries == alone.queries
    assert result.protocol == "one-per-video"
    np.testing.assert_array_equal(result.ranks, alone.ranks)


def test_evaluate_counts_equal_captions_apart_under_single(tiny_model, features):
    captions = [Caption(f"video{v}", 0, None, "dog") for v in range(4)]
    result = evaluate(tiny_model, captions, features, "single")
    assert result.texts == result.segments == 4
    assert result.ranks.v2t.tolist() == [4] * 4
    assert sorted(result.ranks.t2v) == [1, 2, 3, 4]


def test_evaluate_refuses_bad_arguments_before_it_embeds(tiny_model, features, monkeypatch):
    monkeypatch.setattr(tiny_model, "encode_tokens", lambda _: pytest.fail("videos were embedded"))
    twice = [Caption("video1", 0, None, "dog"), Caption("video1", 0, None, "cat")]
    with pytest.raises(InputError, match="has several captions"):
        evaluate(tiny_model, twice, features, "single")
    with pytest.raises(InputError, match="protocol is 'all', expected one of unique"):
        evaluate(tiny_model, twice, features, "all")
    for wrong in (["smell"], [], ["wide", "smell"]):
        with pytest.raises(InputError, match="expected some of the model's: wide, narrow, middle"):
            evaluate(tiny_model, twice, features, experts=wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[:, 1:], r"'video1', expert wide: features are \(9, 10\), expected \(n, 11\)"),
        (lambda f: f * math.nan, "'video1', expert wide: token 0 holds NaN"),
        (lambda f: f + np.float32(2e15), "'video1', expert wide: .* more than 1e.15"),
    ],
)
def test_evaluate_refuses_features_of_another_model(tiny_model, features, change, message):
    wide = features["video1"]["wide"]
    broken = {"video1": features["video1"] | {"wide": replace(wide, values=change(wide.values))}}
    with pytest.raises(InputError, match=message):
        evaluate(tiny_model, [Caption("video1", 0, 3, "dog")], broken)


def test_evaluate_takes_features_without_times_for_whole_videos(tiny_model, features):
    timeless = {
        video: {
            name: ExpertFeatures(one.values, np.full_like(one.times_s, math.nan))
            for name, one in extracted.items()
        }
        for video, extracted in features.items()
    }
    captions = [Caption(video, 0, None, f"{word}") for word in WORDS[:2] for video in timeless]
    result = evaluate(tiny_model, captions, timeless)
    assert result.segments == len(timeless)
    with pytest.raises(InputError, match="have no times"):
        evaluate(tiny_model, [Caption("video1", 0, 3, "dog")], timeless)


def test_evaluate_reports_the_progress_of_each_step(tiny_model, captions, features):
    told = []

    def progress(items, total, unit):
        told.append((unit, total, sum(1 for _ in items)))
        return items

    evaluate(tiny_model, captions, features, progress=progress)
    assert told == [("video", 12, 12), ("batch of texts", 1, 1)]


# The sample model.


@pytest.fixture(scope="module")
def clips(sample_clips, tmp_path_factory):
    """Feature files of 12 clips of the sample, and their captions."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(11)
    captions = []
    running = experts.load(["frame", "motion", "sound"])
    for path, combination in sample_clips(n=12, seed=11):
        content = FeatureFile(extract(path, running), SourceVideo.of(path), versions_of(running))
        write_features(folder / f"{path.name}.safetensors", content)
        captions.append(Caption(path.stem, 0.0, None, sample_caption(combination, rng)))
    return FeatureFolder(folder), captions


@pytest.mark.slow
def test_ablate_shows_that_the_sample_model_finds_its_clips(clips):
    features, captions = clips
    model = mdmmt.load("sample", device="cpu")
    everything, *some = ablate(model, captions, features, "single")
    assert everything.metrics["t2v"]["R@5"] >= 90
    assert everything.metrics["v2t"]["R@5"] >= 90
    for one in some:
        assert one.metrics["t2v"]["MeanR"] >= everything.metrics["t2v"]["MeanR"]
    assert {one.experts: one.empty_segments > 0 for one in some}[("sound",)] == any(
        "sound" not in features[one.video] for one in captions
    )


@pytest.mark.parametrize(
    ("versions", "clock", "what"),
    [
        ({"frame": "2"}, "file", "the expert frame is '2' and '1'"),
        ({"frame": "1"}, "track", "clock"),
    ],
)
def test_evaluate_refuses_features_of_several_versions_or_clocks(tmp_path, versions, clock, what):
    model = mdmmt.load("sample")
    dim = next(one.dim for one in model.config.video.experts if one.name == "frame")
    one = {"frame": ExpertFeatures(np.ones((1, dim), np.float32), np.array([[0.0, 1.0]]))}
    source = SourceVideo("a", None, None)
    captions = [Caption("a.mp4", 0.0, None, "a ball"), Caption("b.mp4", 0.0, None, "a box")]
    write_features(tmp_path / "a.mp4.safetensors", FeatureFile(one, source, {"frame": "1"}))
    other = tmp_path / "b.mp4.safetensors"
    write_features(other, FeatureFile(one, source, {"frame": "1", "CLIP": "of no model"}))
    assert evaluate(model, captions, FeatureFolder(tmp_path)).texts == 2
    write_features(other, FeatureFile(one, source, versions, clock))
    with pytest.raises(InputError, match=what):
        evaluate(model, captions, FeatureFolder(tmp_path))

"""Samples are drawn by weights, alike for the same seed; bad data is named before any step."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from caption_pairs import write_pairs, write_video
from tiny import TINY

import mdmmt
from mdmmt.cli import main
from mdmmt.datasets import Duplicate, Exclusions
from mdmmt.datasets import Segment as Named
from mdmmt.errors import InputError
from mdmmt.features.dumps import write_dumps
from mdmmt.features.files import FeatureFile, SourceVideo, read_features, write_features
from mdmmt.features.tokens import tokens_of
from mdmmt.features.types import ExpertFeatures
from mdmmt.training import train
from mdmmt.training.config import DatasetConfig, TrainingConfig
from mdmmt.training.data import SegmentReader, read_training_data

EXPERTS = TINY.video.experts
NAMES = [expert.name for expert in EXPERTS]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Datasets of 4 and 10 videos with three captions each."""
    made = [
        write_pairs(tmp_path_factory.mktemp("dataset"), count, seed=count, per_video=3)
        for count in (4, 10)
    ]
    return [
        DatasetConfig(str(one.captions), str(one.features), weight=weight)
        for one, weight in zip(made, (3.0, 1.0), strict=True)
    ]


@pytest.fixture
def one(tmp_path):
    """A dataset that a test may spoil: 3 videos, and a function that adds a line of captions."""
    pairs = write_pairs(tmp_path, 3)

    def add(**record) -> None:
        with pairs.captions.open("a") as file:
            file.write(json.dumps({"caption": "a red ball", **record}) + "\n")

    return DatasetConfig(str(pairs.captions), str(pairs.features)), pairs, add


def read(dataset, **options):
    return read_training_data([dataset], EXPERTS, **options)


def test_datasets_are_drawn_by_their_weights_and_captions_evenly(several):
    data = read_training_data(several, EXPERTS)
    samples = data.draw_epoch(0, 0, 4000, NAMES, 0.0)
    of_dataset = Counter(sample.segment.dataset for sample in samples)
    assert 0.72 < of_dataset[0] / 4000 < 0.78
    of_segment = Counter(sample.segment.file for sample in samples if sample.segment.dataset == 0)
    assert max(of_segment.values()) - min(of_segment.values()) <= 1
    of_caption = Counter(sample.caption for sample in samples if sample.segment.dataset == 0)
    assert len(of_caption) == 12 and min(of_caption.values()) > 190  # of 250
    assert all(sample.caption in sample.segment.captions for sample in samples)


def test_the_draw_follows_from_seed_and_epoch_alone(several):
    first, second = (read_training_data(several, EXPERTS) for _ in range(2))
    assert first.digest == second.digest
    draw = first.draw_epoch(1, 2, 50, NAMES, 0.3)
    assert draw == second.draw_epoch(1, 2, 50, NAMES, 0.3)
    assert draw != first.draw_epoch(2, 2, 50, NAMES, 0.3)
    assert draw != first.draw_epoch(1, 3, 50, NAMES, 0.3)


def test_experts_are_left_out_by_chance_and_never_all(several):
    data = read_training_data(several, EXPERTS)
    samples = data.draw_epoch(0, 0, 4000, NAMES, 0.5)
    kept = [len(sample.experts) for sample in samples]
    assert min(kept) == 1
    # Each of three stays with 1/2, and one where all would go: 3/2 + 1/8 on average.
    assert np.mean(kept) == pytest.approx(1.625, abs=0.04)
    assert {len(sample.experts) for sample in data.draw_epoch(0, 0, 50, NAMES, 0.0)} == {3}


def test_batches_hold_the_tokens_of_their_segments(several):
    data = read_training_data(several, EXPERTS)
    samples = data.draw_epoch(0, 0, 50, NAMES, 0.3)
    reader = SegmentReader(EXPERTS)
    batches = list(reader.batches(samples, 8, 2, 0, 1))
    assert [list(batch.samples) for batch in batches] == [
        samples[i : i + 8] for i in (16, 24, 32, 40)
    ]
    for batch in batches:
        for sample, video in zip(batch.samples, batch.videos, strict=True):
            tokens = tokens_of(read_features(sample.segment.file).features, EXPERTS)
            kept = {name for name in sample.experts if name in tokens} or tokens.keys()
            assert video.keys() == kept
            assert all((video[name].features == tokens[name].features).all() for name in kept)


def test_processes_share_a_batch(several):
    data = read_training_data(several, EXPERTS)
    samples = data.draw_epoch(0, 0, 16, NAMES, 0.0)
    reader = SegmentReader(EXPERTS)
    (whole,) = islice(reader.batches(samples, 16, 0, 0, 1), 1)
    (first,), (second,) = (list(reader.batches(samples, 16, 0, i, 2)) for i in range(2))
    assert whole.samples == first.samples == second.samples
    videos = [*first.videos, *second.videos]
    assert [id(video["wide"].features) for video in videos if "wide" in video] == [
        id(video["wide"].features) for video in whole.videos if "wide" in video
    ]


def test_a_segment_has_the_features_of_its_time(one):
    dataset, pairs, add = one
    times_s = np.stack([np.arange(6), np.arange(6) + 1.0], axis=1)
    values = np.arange(6.0)[:, None] * np.ones(11)
    features = {"wide": ExpertFeatures(values, times_s)}
    content = FeatureFile(features, SourceVideo("long.mp4", 5, "ab" * 32), {"wide": "1"})
    write_features(pairs.features / "long.mp4.safetensors", content)
    add(video="long.mp4", start_s=2.5, end_s=4.5)
    add(video="long.mp4", start_s=2.5, end_s=4.5, caption="another")
    data = read(dataset)
    (segment,) = (one for one in data.datasets[0] if one.start_s)
    assert [caption.text for caption in segment.captions] == ["a red ball", "another"]
    sample = next(s for s in data.draw_epoch(0, 0, 8, NAMES, 0.0) if s.segment == segment)
    assert SegmentReader(EXPERTS)(sample)["wide"].features[:, 0].tolist() == [2, 3, 4]


def excluding(*videos):
    return Exclusions([Duplicate(Named("tested.mp4", 0, 5), Named(one, 0, 5)) for one in videos])


def test_duplicates_are_left_out(one):
    dataset, _pairs, _add = one
    with pytest.warns(UserWarning, match="^1 caption was left out as duplicates"):
        data = read(dataset, exclusions=excluding("v1.mp4", "v7.mp4"))
    assert [segment.file.name[:2] for segment in data.datasets[0]] == ["v0", "v2"]
    with pytest.raises(InputError, match="all captions were left out"):
        read(dataset, exclusions=excluding("v0", "v1.avi", "deep/v2.mp4"))


def test_a_list_that_names_no_caption_is_told(one):
    dataset, _pairs, _add = one
    with pytest.warns(UserWarning, match="^0 captions were left out as duplicates"):
        assert len(read(dataset, exclusions=excluding("another.mp4")).datasets[0]) == 3


@pytest.mark.parametrize("name", ["data", "features", "val", "val_features"])
@pytest.mark.parametrize("problem", ["does not exist", "is no f"])
def test_paths_are_checked_before_weights_are_looked_for(one, tmp_path, name, problem):
    """Weights may be a download of gigabytes."""
    dataset, pairs, _add = one
    a_file, a_folder = str(pairs.captions), str(pairs.features)
    wrong = a_file if "features" in name else a_folder
    path = str(tmp_path / "nowhere") if problem == "does not exist" else wrong
    given = {"val": a_file, "val_features": a_folder, name: path}
    config = TrainingConfig(
        out=str(tmp_path / "run"),
        datasets=(dataset, replace(dataset, **given)),
        init=str(tmp_path / "no weights"),
    )
    with pytest.raises(InputError, match=rf"^{name} of datasets\[1\] is '{path}', which {problem}"):
        train(config)


def test_a_video_without_features_is_named(one):
    dataset, _pairs, add = one
    add(video="nowhere.mp4")
    with pytest.raises(InputError, match=r"captions\.jsonl, line 4: 'nowhere\.mp4'.*skip_missing"):
        read(dataset)
    with pytest.warns(UserWarning, match="1 caption was left out, for which there is no"):
        assert len(read(dataset, skip_missing=True).datasets[0]) == 3


def test_an_empty_caption_is_named(one):
    dataset, _pairs, add = one
    add(video="v0.mp4", caption=" ")
    with pytest.raises(InputError, match=r"captions\.jsonl, line 4: caption is ' '"):
        read(dataset)


def test_a_segment_outside_its_video_is_left_out_and_named(one):
    dataset, _pairs, add = one
    add(video="v0.mp4", start_s=100, end_s=110)
    add(video="v0.mp4", start_s=1, end_s=1)
    with pytest.warns(UserWarning, match=r"2 captions .* line 4; .* line 5"):
        assert len(read(dataset).datasets[0]) == 3


def rewrite(pairs, name, change):
    file = pairs.features / f"{name}.safetensors"
    content = read_features(file)
    write_features(file, change(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: FeatureFile(c.features, c.source, {**c.versions, "wide": "2"}),
            "must not be mixed: the expert wide is '2' and '1'",
        ),
        (
            lambda c: FeatureFile(c.features, c.source, c.versions, "track"),
            "must not be mixed: the clock is 'track' and 'file'",
        ),
        (
            lambda c: FeatureFile({"other": c.features["wide"]}, c.source, {"other": "1"}),
            "has features of other, expected some of the model's: wide, narrow, middle",
        ),
        (
            lambda c: FeatureFile({"narrow": c.features["wide"]}, c.source, {"narrow": "1"}),
            r"expert narrow: features are \(\d, 11\), expected \(n, 3\)",
        ),
    ],
)
def test_features_that_do_not_fit_are_named_with_the_line(one, change, message):
    dataset, pairs, _add = one
    rewrite(pairs, "v2.mp4", change)
    with pytest.raises(InputError, match=rf"captions\.jsonl, line 3: .*{message}"):
        read(dataset)


def test_a_damaged_feature_file_is_named_with_the_line(one):
    dataset, pairs, _add = one
    (pairs.features / "v1.mp4.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"captions\.jsonl, line 2: .*v1.mp4.safetensors"):
        read(dataset)


def test_the_authors_dumps_are_trained_on_once_they_are_feature_files(tmp_path):
    """`mdmmt dumps read` makes what both `mdmmt evaluate` and `mdmmt train` read."""
    experts = mdmmt.load("sample").config.video.experts
    rng = np.random.default_rng(0)
    times_s = np.arange(4)[:, None] + [0.0, 1.0]
    videos = [f"folder/v{i}.mp4" for i in range(3)]
    features = [
        {one.name: ExpertFeatures(rng.normal(size=(4, one.dim)), times_s) for one in experts}
        for _ in videos
    ]
    dumps = {one.name: tmp_path / f"{one.name}_0" for one in experts}
    write_dumps(dumps, zip(videos, features, strict=True))
    given = [f"{name}={tmp_path / name}" for name in dumps]
    assert main(["dumps", "read", *given, "--out", str(tmp_path / "features")]) == 0
    captions = tmp_path / "captions.jsonl"
    captions.write_text(
        "".join(json.dumps({"video": f"v{i}", "caption": f"clip {i}"}) + "\n" for i in range(3))
    )
    data = read_training_data([DatasetConfig(str(captions), str(tmp_path / "features"))], experts)
    reader = SegmentReader(experts)
    names = [one.name for one in experts]
    for sample in data.draw_epoch(0, 0, 3, names, 0.0):
        expected = tokens_of(features[int(sample.caption.video[1:])], experts)
        tokens = reader(sample)
        assert tokens.keys() == expected.keys()
        assert all((tokens[name].features == expected[name].features).all() for name in expected)


def test_an_expert_that_no_video_has_is_told(tmp_path):
    pairs = write_pairs(tmp_path, 2)
    for name in ("v0.mp4", "v1.mp4"):
        write_video(pairs.features, name, np.random.default_rng(0), absent="narrow")
    with pytest.warns(UserWarning, match="no video has features of narrow"):
        read(DatasetConfig(str(pairs.captions), str(pairs.features)))


def test_msrvtt_gives_its_training_split(tmp_path):
    pairs = write_pairs(tmp_path, 3)
    file = tmp_path / "msrvtt.json"
    content = {
        "videos": [
            {"video_id": f"v{i}", "split": split}
            for i, split in enumerate(("train", "validate", "test"))
        ],
        "sentences": [{"video_id": f"v{i}", "caption": f"text {i}"} for i in range(3)],
    }
    file.write_text(json.dumps(content))
    for split, name in ((None, "v0"), ("test", "v2")):
        data = read(DatasetConfig(str(file), str(pairs.features), split=split))
        assert [segment.file.name[:2] for segment in data.datasets[0]] == [name]

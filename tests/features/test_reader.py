"""Videos of any kind: files, parts of them, windows, frames of Towhee's decoders."""

from __future__ import annotations

import math
import os
import warnings

import numpy as np
import pandas
import pytest
from media import LONG_S, flat, towhee_frames, write_video

import mdmmt
from mdmmt import experts
from mdmmt.batch.extract import extract_file
from mdmmt.errors import InputError, InputTypeError
from mdmmt.features import ExpertFeatures, extract
from mdmmt.features.files import FeatureFile, SourceVideo, write_features
from mdmmt.features.listing import find_videos_or_features
from mdmmt.features.reader import split_list
from mdmmt.features.segments import select, windows
from mdmmt.features.tokens import tokens_of

WINDOW_S = 7.5  # of the sample: 30 frames, 4 a second


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


@pytest.fixture(scope="module")
def feature_file(long, running, tmp_path_factory):
    file = tmp_path_factory.mktemp("features") / "long.safetensors"
    extract_file(long, file, running)
    return file


def embedded(model, extracted):
    return model.encode_tokens([tokens_of(extracted, model.config.video.experts)])[0]


@pytest.mark.slow
def test_reader_warns_of_the_part_of_a_long_file_that_is_embedded(model, long, short, whole):
    with pytest.warns(UserWarning, match=r"long\.mkv.* the seconds 0 to 7\.5 of frame,") as caught:
        vector = model.encode_video(long)
    assert len(caught) == 1 and caught[0].filename == __file__
    first = {name: one[:30] for name, one in whole.items()}
    np.testing.assert_array_equal(vector, embedded(model, first))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_video(short)


def test_reader_runs_experts_on_no_more_than_the_model_takes(long, monkeypatch):
    """An hour must not cost an hour of networks where 30 tokens are taken, or one segment."""
    clips = []
    for expert in experts.expert_classes(experts.LIGHT_EXPERTS).values():
        real = expert.features

        def counted(self, given, real=real):
            clips.append((self.name, len(given)))
            return real(self, given)

        monkeypatch.setattr(expert, "features", counted)
    model = mdmmt.load("sample", "cpu", experts=["frame"])
    with pytest.warns(UserWarning):
        model.encode_video(long)
    assert sum(n for _, n in clips) == 31  # one more than are taken, which tells that there is more
    clips.clear()
    model.encode_video(long, start_s=15.0, end_s=16.0)
    assert sum(n for _, n in clips) == 5  # those from 14.75 to 16 seconds


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(0, 1), (3.2, 7.9), (1.0, 2.0), (15, None), (0, 7), (19.9, 500)]
)
def test_reader_selects_a_part_of_a_file(start_s, end_s, model, long, whole, feature_file):
    vector = model.encode_video(long, start_s=start_s, end_s=end_s)
    part = select(whole, start_s, LONG_S if end_s is None else end_s)
    np.testing.assert_allclose(vector, embedded(model, part), atol=1e-6)
    from_features = model.encode_video(feature_file, start_s=start_s, end_s=end_s)
    np.testing.assert_allclose(from_features, vector, atol=1e-6)


def test_reader_takes_the_last_feature_of_an_expert_that_ends_early(model, tmp_path):
    """Sound of 4 s under a picture of 8 s: the nearest there is, as the authors select."""
    frames = flat([5 * i for i in range(40)] * 2)
    path = write_video(tmp_path / "a.mkv", frames, 10, np.sin(np.arange(64000) / 9)[None] / 3)
    item = model.extract(path, start_s=6, end_s=7)
    assert item["features_ind"]["sound"].sum() == 1
    whole = extract(path, ["sound"])["sound"].values
    np.testing.assert_allclose(item["features"]["sound"][0], whole[-1], atol=1e-6)


@pytest.mark.parametrize(
    ("start_s", "end_s", "words"),
    [
        (21, 25, "ends at second 20"),
        (5, 5, "start_s < end_s"),
        (-1, 5, "0 <= start_s"),
        (float("nan"), 5, "start_s < end_s"),
        ("a", 5, "expected \\(start_s, end_s\\)"),
    ],
)
def test_reader_refuses_bad_parts(start_s, end_s, words, model, long):
    with pytest.raises(InputError, match=words):
        model.encode_video(long, start_s=start_s, end_s=end_s)


def test_reader_takes_parts_of_files_and_refuses_parts_of_a_dict(model, short):
    item = model.extract(short)
    with pytest.raises(InputError, match="dict of tokens"):
        model.encode_video(item, end_s=1.0)
    both = model.encode_video([short, short], end_s=2.0)
    np.testing.assert_allclose(both[0], model.encode_video(short, end_s=2.0), atol=1e-6)


def test_reader_cuts_windows_that_take_all_of_a_long_file(model, long, whole, feature_file):
    assert model.window_lengths(None, None) == (WINDOW_S, WINDOW_S)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.encode_segments(long)
    assert found.spans_s.tolist() == [[0, 7.5], [7.5, 15], [15, LONG_S]]
    assert found.vectors.shape == (3, 384) and found.vectors.dtype == np.float32
    parts = windows(whole, WINDOW_S, WINDOW_S)
    assert sum(len(part["frame"]) for _, part in parts) == len(whole["frame"])
    for vector, (_, part) in zip(found.vectors, parts, strict=True):
        np.testing.assert_allclose(vector, embedded(model, part), atol=1e-6)
    again = model.encode_segments(feature_file, batch_size=2)
    np.testing.assert_allclose(again.vectors, found.vectors, atol=1e-6)


@pytest.mark.slow
def test_reader_cuts_overlapping_windows(model, long):
    found = model.encode_segments(long, window_s=4.0, stride_s=2.0)
    assert found.spans_s[:3].tolist() == [[0, 4], [2, 6], [4, 8]] and found.spans_s[-1, 1] == LONG_S
    said = r"seconds 0 to 10 \(and 1 more\), is longer .* the seconds 0 to 7.5 of frame.*shorter"
    with pytest.warns(UserWarning, match=said):
        model.encode_segments(long, window_s=10.0)


def test_reader_warns_once_of_several_segments_that_are_too_long(model, long):
    with pytest.warns(UserWarning, match=r"seconds 0 to 9 \(and 1 more\), is") as caught:
        model.encode_segments(long, [(0, 9), (9, 10), (10, 20)])
    assert len(caught) == 1 and caught[0].filename == __file__


def test_reader_names_tokens_by_number_if_features_have_no_times(model, whole, tmp_path):
    extracted = {
        name: ExpertFeatures(one.values, one.times_s * np.nan) for name, one in whole.items()
    }
    file = tmp_path / "a.safetensors"
    write_features(
        file, FeatureFile(extracted, SourceVideo("a", None, None), dict.fromkeys(whole, "1"))
    )
    with pytest.warns(UserWarning, match="it embeds the first 30 tokens of frame and sound"):
        model.encode_video(file)


@pytest.mark.slow
def test_reader_takes_segments_by_their_seconds(model, long):
    spans = [(3.2, 7.9), (0, 1), (15, 20)]
    found = model.encode_segments(long, spans)
    assert found.spans_s.tolist() == [list(map(float, span)) for span in spans]
    for vector, (start_s, end_s) in zip(found.vectors, spans, strict=True):
        alone = model.encode_video(long, start_s=start_s, end_s=end_s)
        np.testing.assert_allclose(vector, alone, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"segments": "scenes"}, InputError, "'windows' or a list"),
        ({"segments": []}, InputError, "empty list"),
        ({"segments": [(0, 1), (3, 2)]}, InputError, "segment 1 is 3 and 2"),
        ({"segments": [(0, math.inf)]}, InputError, "segment 0 is 0 and inf"),
        ({"segments": [0, 1]}, InputTypeError, "segment 0 is 0, expected"),
        ({"segments": [(0, 1), (30, 40)]}, InputError, "ends at second 20"),
        ({"segments": [(0, 1)], "window_s": 3}, InputError, "not for a list"),
        ({"window_s": 0}, InputError, "window_s is 0"),
        ({"window_s": "5"}, InputTypeError, "window_s is '5'"),
        ({"segments": 5}, InputTypeError, "segments is a int"),
        ({"segments": {0: 1}}, InputTypeError, "segments is a dict"),
        ({"segments": np.zeros((0, 2))}, InputError, "empty list"),
        ({"batch_size": 0}, InputError, "batch_size is 0"),
        ({"window_s": 3, "stride_s": 4}, InputError, "holes"),
    ],
)
def test_reader_refuses_bad_segments(options, error, words, model, long):
    with pytest.raises(error, match=words):
        model.encode_segments(long, **options)


def test_reader_takes_what_gives_segments_and_experts_in_order(model, long):
    wanted = model.encode_segments(long, [(0, 1), (3.5, 7)])
    for spans_s in (wanted.spans_s, map(tuple, wanted.spans_s.tolist())):
        segments = model.encode_segments(long, spans_s)
        np.testing.assert_array_equal(segments.spans_s, wanted.spans_s)
        np.testing.assert_array_equal(segments.vectors, wanted.vectors)
    for names in (("frame", "sound"), np.array(["frame", "sound"]), iter(["frame", "sound"])):
        assert mdmmt.load("sample", "cpu", experts=names).expert_names == ("frame", "sound")
    for names in ("frame", {"frame"}, 3):
        with pytest.raises(InputTypeError, match=r"experts is .*, expected a list of names"):
            mdmmt.load("sample", "cpu", experts=names)


def test_no_segments_of_a_dict(model, short):
    with pytest.raises(InputTypeError, match="video is a dict of tokens, which cannot be cut"):
        model.encode_segments(model.extract(short))


def test_reader_refuses_bad_windows_before_the_experts_run(model, long, monkeypatch):
    monkeypatch.setattr("mdmmt.features.reader.extract", None)  # a call would raise
    with pytest.raises(InputError, match="holes"):
        model.encode_segments(long, window_s=1, stride_s=2)


def test_reader_refuses_segments_of_a_dict(model, short):
    with pytest.raises(InputTypeError, match="video is a dict of tokens"):
        model.encode_segments(model.extract(short))


def test_reader_runs_the_named_experts_and_leaves_the_others_absent(
    model, short, long, feature_file
):
    one = mdmmt.load("sample", "cpu", experts=["motion"])
    item = one.extract(short)
    assert set(item["features"]) == {"motion"}
    everything = model.extract(short)
    np.testing.assert_allclose(item["features"]["motion"], everything["features"]["motion"])
    only = {part: {"motion": by_expert["motion"]} for part, by_expert in everything.items()}
    np.testing.assert_allclose(one.encode_video(short), model.encode_video(only), atol=1e-6)
    assert one.window_lengths(None, None)[0] == 30.0
    np.testing.assert_allclose(  # what a feature file holds of the others is left out, too
        one.encode_segments(feature_file).vectors, one.encode_segments(long).vectors, atol=1e-6
    )


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (["CLIP"], InputError, "'CLIP'.* frame, motion, sound"),
        ([], InputError, "expected some"),
        ("motion", InputTypeError, "expected a list"),
    ],
)
def test_load_refuses_bad_experts(given, error, words):
    with pytest.raises(error, match=words):
        mdmmt.load("sample", "cpu", experts=given)


def test_reader_takes_frames_of_towhees_decoders(model, short):
    item = model.extract(towhee_frames(short))
    assert set(item["features"]) == {"frame", "motion"}
    expected = model.extract(short)
    for name in item["features"]:
        np.testing.assert_array_equal(item["features_t"][name], expected["features_t"][name])
        np.testing.assert_allclose(
            item["features"][name], expected["features"][name], rtol=0.05, atol=0.05
        )
    frames = list(towhee_frames(short))
    vector = model.encode_video(frames)
    np.testing.assert_array_equal(vector, model.encode_video(iter(frames)))
    both = model.encode_video([frames, frames[::2]])
    assert both.shape == (2, 384)
    np.testing.assert_allclose(both[0], vector, atol=1e-6)


MANY_PATHS = {
    "generator": lambda paths: (path for path in paths),
    "strings of NumPy": lambda paths: np.array([str(path) for path in paths]),
    "a column of pandas": lambda paths: pandas.Series([str(path) for path in paths]),
    "what glob yields": lambda paths: paths[0].parent.glob("*.mkv"),
}


@pytest.mark.parametrize("make", MANY_PATHS.values(), ids=MANY_PATHS)
def test_split_list_takes_what_gives_paths_in_order(make, tmp_path):
    paths = [write_video(tmp_path / f"{i}.mkv", flat([i])) for i in range(3)]
    videos, several = split_list(make(paths))
    assert several and sorted(str(video) for _, video in videos) == [str(path) for path in paths]


def test_encode_video_takes_a_folder_in_the_order_of_its_names(model, videos, feature_file):
    paths = find_videos_or_features([videos])
    assert [os.path.relpath(path, videos) for path in paths] == [
        *("a.mkv", os.path.join("deep", "a.mkv"), "silent.mkv")
    ]
    vectors = model.encode_video(videos)
    np.testing.assert_array_equal(vectors, model.encode_video(paths))
    scores = model.similarity(vectors, str(videos)).score
    np.testing.assert_array_equal(scores, model.similarity(vectors, vectors).score)
    with pytest.warns(UserWarning, match="is longer"):  # a folder of feature files
        assert model.encode_video(feature_file.parent).shape == (1, 384)
    operator = mdmmt.MDMMT("video", "sample", "cpu", on_error="none")
    np.testing.assert_array_equal(operator(str(videos)), vectors)


def test_split_list_leaves_frames_and_single_videos_whole(tmp_path):
    frames = list(towhee_frames(write_video(tmp_path / "a.mkv", flat(range(0, 60, 10)))))
    for given in (frames, iter(frames)):
        [(name, video)], several = split_list(given)
        assert name == "video" and not several
        assert [frame.timestamp for frame in video] == [frame.timestamp for frame in frames]
    for given in (
        "a.mp4",
        tmp_path / "a.mp4",
        {"features": {}},
        np.zeros((3, 4, 3), np.uint8),
        None,
    ):
        assert split_list(given) == ([("video", given)], False)

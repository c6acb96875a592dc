"""The operator in pipelines over video files, features and frames."""

from __future__ import annotations

import numpy as np
import pytest
from media import towhee_frames
from towhee import ops, pipe

import mdmmt
from mdmmt.errors import InputError


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


def operator(**options):
    return ops.video_text_embedding.mdmmt(weight_path="sample", device="cpu", **options)


def test_operator_takes_a_path(model, short):
    p = pipe.input("path").map("path", "vec", operator(modality="video")).output("vec")
    for path in (short, str(short)):
        np.testing.assert_array_equal(p(path).get()[0], model.encode_video(short))


def test_operator_gives_features_alone(model, short):
    p = (
        pipe.input("path")
        .map("path", "features", operator(modality="features", experts=["frame"]))
        .map("features", "vec", operator(modality="video"))
        .output("features", "vec")
    )
    features, vector = p(short).get()
    assert set(features["features"]) == {"frame"}
    np.testing.assert_array_equal(vector, model.encode_video(features))


def test_operator_gives_windows_to_flat_map(model, long):
    p = (
        pipe.input("path")
        .flat_map(
            "path", ("start_s", "end_s", "vec"), operator(modality="video", segments="windows")
        )
        .output("start_s", "end_s", "vec")
    )
    result = p(str(long))
    found = model.encode_segments(long)
    rows = [result.get() for _ in range(result.size)]
    assert [row[:2] for row in rows] == found.spans_s.tolist()
    np.testing.assert_allclose([row[2] for row in rows], found.vectors, atol=1e-6)


def test_operator_takes_frames_of_a_window(model, short):
    p = (
        pipe.input("path")
        .flat_map("path", "frame", towhee_frames)
        .window_all("frame", "vec", operator(modality="video"))
        .output("vec")
    )
    np.testing.assert_array_equal(p(short).get()[0], model.encode_video(towhee_frames(short)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modality": "text", "segments": "windows"}, "segments need modality='video', not 'text'"),
        ({"modality": "video", "window_s": 3.0}, "for segments='windows'"),
        ({"modality": "sound"}, "'text', 'video' or 'features'"),
    ],
)
def test_operator_refuses_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        mdmmt.MDMMT(weight_path="sample", device="cpu", **options)

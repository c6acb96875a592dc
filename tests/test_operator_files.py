"""The operator in pipelines over video files, features and frames."""

from __future__ import annotations

import av
import numpy as np
import pytest
from media import flat, write_video
from towhee import ops, pipe
from towhee.types import VideoFrame

import mdmmt
from mdmmt.errors import InputError

LONG_S, SHORT_S = 20, 4


def film(path, seconds: int):
    """A moving block over changing greys, and a tone that wanders."""
    frames = flat([(37 * i) % 90 for i in range(10 * seconds)])
    for i, frame in enumerate(frames):
        frame[10 : 10 + i % 40, i % 50 : i % 50 + 9] = (250, 5 * i % 255, 40)
    t = np.arange(16000 * seconds) / 16000
    return write_video(path, frames, 10, 0.3 * np.sin(2 * np.pi * (200 * t + 30 * t**2))[None])


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    return film(tmp_path_factory.mktemp("long") / "long.mkv", LONG_S)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return film(tmp_path_factory.mktemp("short") / "short.mkv", SHORT_S)


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


def towhee_frames(path):
    """What Towhee's decoders make of a file: RGB frames that know their milliseconds."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format="rgb24")
            yield VideoFrame(pixels, "RGB", int(frame.time * 1000), frame.key_frame)


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

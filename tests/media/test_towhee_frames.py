"""The frames of Towhee's decoders: features near those of their file, and checks of each frame."""

import math
import weakref
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import (
    BIG_BUCK_BUNNY,
    flat,
    footage,
    greys,
)
from towhee.types.video_frame import VideoFrame

from mdmmt.errors import InputError
from mdmmt.features.extraction import extract
from mdmmt.media.decode import read_clips
from mdmmt.media.specs import AudioSpec, FrameSpec
from mdmmt.media.towhee_frames import read_frames

FRAMES = FrameSpec(fps=10, short_side=64, crop=64, clip_frames=1)


SOUND = AudioSpec(sample_rate_hz=16000, window_s=0.5, hop_s=0.5)


def of(name, clips):
    return [clip.data for clip in clips if clip.name == name]


def towhee_frames(path, mode="RGB"):
    """As Towhee's operator video-decode/ffmpeg yields them."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format={"RGB": "rgb24", "BGR": "bgr24"}[mode])
            yield VideoFrame(pixels, mode, round(frame.time * 1000), int(frame.key_frame))


@pytest.fixture(scope="module")
def of_file(running):
    """The features of a real video file."""
    return extract(footage(BIG_BUCK_BUNNY), running)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "BGR"])
def test_read_frames_gives_nearly_the_features_of_the_file(mode, running, of_file):
    # Nearly: they were made RGB before they were scaled.
    of_frames = extract(towhee_frames(footage(BIG_BUCK_BUNNY), mode), running)
    assert set(of_file) == {"frame", "motion", "sound"} and set(of_frames) == {"frame", "motion"}
    for name, features in of_frames.items():
        assert np.array_equal(features.times_s, of_file[name].times_s)
        ours, theirs = features.values, of_file[name].values
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        assert ((ours * theirs).sum(axis=1) / lengths).min() > 0.95
    pixels = (
        np.stack(of("f", clips)).astype(int)
        for clips in (
            read_clips(footage(BIG_BUCK_BUNNY), {"f": FRAMES}),
            read_frames(towhee_frames(footage(BIG_BUCK_BUNNY), mode), {"f": FRAMES}),
        )
    )
    assert np.abs(np.subtract(*pixels)).mean() < 3


@given(
    times_ms=st.sets(st.integers(0, 3000), min_size=1, max_size=20).map(sorted),
    fps=st.sampled_from([1, 7, 25, 32]),
    kind=st.sampled_from([int, float, np.int64]),
)
@settings(max_examples=60, deadline=None)
def test_read_frames_shows_frames_at_their_times(times_ms, fps, kind):
    greys_ = [10 * i for i in range(len(times_ms))]
    frames = [
        VideoFrame(pixels, "RGB", kind(time_ms))
        for pixels, time_ms in zip(flat(greys_, 16, 16), times_ms, strict=True)
    ]
    slots = [math.ceil(Fraction(time_ms - times_ms[0], 1000) * fps) for time_ms in times_ms]
    # The last is shown as long as the one before it; a single one for an instant.
    last_s = (
        Fraction(times_ms[-1] - times_ms[-2], 1000) if len(times_ms) > 1 else Fraction(1, 10**6)
    )
    count = math.ceil((Fraction(times_ms[-1] - times_ms[0], 1000) + last_s) * fps)
    naive = [greys_[max(i for i, slot in enumerate(slots) if slot <= n)] for n in range(count)]
    assert greys(read_frames(iter(frames), {"f": FrameSpec(fps, 16, 16, 1), "s": SOUND})) == naive


def test_read_frames_does_not_gather_frames():
    alive = weakref.WeakSet()

    class Tracked(VideoFrame):
        __hash__ = object.__hash__

    def frames():
        for i in range(200):
            frame = Tracked(np.zeros((64, 64, 3), np.uint8), "RGB", 40 * i)
            alive.add(frame)
            yield frame

    most = [len(alive) for _ in read_frames(frames(), {"f": FRAMES})]
    assert len(most) == 80 and max(most) <= 2


def test_read_frames_takes_frames_that_change_their_size():
    frames = [VideoFrame(np.full((64, 64, 3), 9, np.uint8), "RGB", 100 * i) for i in range(5)]
    frames += [
        VideoFrame(np.full((48, 96, 3), 99, np.uint8), "BGR", 500 + 100 * i) for i in range(5)
    ]
    assert greys(read_frames(frames, {"f": FRAMES})) == [9] * 5 + [99] * 5


GOOD = VideoFrame(np.zeros((8, 8, 3), np.uint8), "RGB", 40)


@pytest.mark.parametrize(
    "bad",
    [
        "a.mp4",
        np.zeros((8, 8, 3), np.uint8),
        SimpleNamespace(mode="RGB", timestamp=80),
        VideoFrame(np.zeros((8, 8, 4), np.uint8), "RGBA", 80),
        VideoFrame(np.zeros((8, 8), np.uint8), "RGB", 80),
        VideoFrame(np.zeros((8, 8, 4), np.uint8), "RGB", 80),
        VideoFrame(np.zeros((0, 8, 3), np.uint8), "RGB", 80),
        VideoFrame(np.zeros((8, 8, 3), np.float32), "RGB", 80),
        VideoFrame(np.zeros((8, 8, 3), np.uint8), "RGB", None),
        VideoFrame(np.zeros((8, 8, 3), np.uint8), "RGB", "80"),
        VideoFrame(np.zeros((8, 8, 3), np.uint8), "RGB", math.nan),
        VideoFrame(np.zeros((8, 8, 3), np.uint8), "RGB", 40),
        VideoFrame(np.zeros((8, 8, 3), np.uint8), "RGB", 39),
    ],
)
def test_read_frames_refuses_another_frame_by_its_index(bad):
    with pytest.raises(InputError, match="frame 1 ") as caught:
        list(read_frames([GOOD, bad, GOOD], {"s": SOUND}))
    assert "\n" not in str(caught.value)


def test_read_frames_refuses_no_frames():
    with pytest.raises(InputError, match="no frames"):
        list(read_frames([], {"f": FRAMES}))

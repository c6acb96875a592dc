"""Clips of frames: rate, square, rotation, and the last partial clip."""

import math

import av
import numpy as np
import pytest
from media import (
    flat,
    greys,
    write_video,
)

from mdmmt.media.decode import read_clips
from mdmmt.media.specs import FrameSpec

FRAMES = FrameSpec(fps=10, short_side=64, crop=64, clip_frames=1)


@pytest.mark.parametrize("fps", [4, 5, 7, 20])
def test_frame_cutter_rounds_times_up(tmp_path, fps):
    values = list(range(0, 250, 10))
    path = write_video(tmp_path / "a.mkv", flat(values), fps=10)
    slots = [math.ceil(i * fps / 10) for i in range(len(values))]
    count = math.ceil(len(values) * fps / 10)
    naive = [values[max(i for i, slot in enumerate(slots) if slot <= n)] for n in range(count)]
    got = greys(read_clips(path, {"f": FrameSpec(fps, 64, 64, 1)}))
    assert got[: len(naive)] == naive and len(got) - len(naive) <= 1


def test_frame_cutter_cuts_out_the_middle(tmp_path):
    frames = flat([0, 0], height=64, width=192)
    frames[:, :, 64:128] = 200
    path = write_video(tmp_path / "wide.mkv", frames)
    (clip, *_) = read_clips(path, {"f": FRAMES})
    assert clip.data[:, :, 4:60].min() > 190  # the scaler may blur the cut itself


def test_frame_cutter_sets_a_phone_video_upright(tmp_path):
    frames = flat([0] * 4, height=64, width=128)
    frames[:, :, 64:] = 200  # filmed with the bright half to the right
    path = write_video(tmp_path / "turned.mp4", frames)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation == 0
    one = (1 << 16).to_bytes(4, "big")
    minus_one = (-(1 << 16) & 0xFFFFFFFF).to_bytes(4, "big")
    zero, unit = bytes(4), (1 << 30).to_bytes(4, "big")
    upright = one + zero * 3 + one + zero * 3 + unit
    data = path.read_bytes()
    at = data.index(b"tkhd")
    for matrix, bright in (
        (zero + one + zero + minus_one + zero * 4 + unit, np.s_[70:]),  # a quarter clockwise
        (zero + minus_one + zero + one + zero * 4 + unit, np.s_[:58]),  # and back
    ):
        path.write_bytes(data[:at] + data[at:].replace(upright, matrix, 1))
        (clip, *_) = read_clips(path, {"f": FrameSpec(10, 64, 64, 1)})
        assert clip.data.shape == (1, 64, 64, 3)
        rows = clip.data[0].mean(axis=(1, 2))
        half = slice(36, None) if bright.start else slice(None, 28)
        other = slice(None, 28) if bright.start else slice(36, None)
        assert rows[half].min() > 180 and rows[other].max() < 20


def test_frame_cutter_fills_a_last_partial_clip_evenly(tmp_path):
    values = [20 * i for i in range(11)]
    path = write_video(tmp_path / "a.mkv", flat(values))
    first, second = read_clips(path, {"f": FrameSpec(10, 64, 64, clip_frames=8)})
    assert greys([first]) == values[:8]
    rest = greys([second])
    n = len(set(rest))
    assert rest == [values[8 + i] for i in np.ceil(np.linspace(0, n - 1, 8)).astype(int)]
    assert (second.start_s, second.end_s) == (0.8, 1.1)
    *_, last = read_clips(path, {"f": FrameSpec(10, 64, 64, clip_frames=8)}, clock="track")
    assert (last.start_s, last.end_s) == (0.8, 1.6)

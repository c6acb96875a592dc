"""Reading of video files, on files written here and on real footage."""

import math
import tracemalloc
import warnings

import av
import numpy as np
import pytest
from files import BIG_BUCK_BUNNY, BIKES, flat, footage, write_video

from mdmmt.errors import InputError
from mdmmt.experts.base import AudioInput, FrameInput
from mdmmt.media import read_clips

FRAMES = FrameInput(fps=10, short_side=64, crop=64, clip_frames=1)
SOUND = AudioInput(sample_rate_hz=16000, window_s=0.5, hop_s=0.5)


def greys(clips):
    return [round(float(frame.mean())) for clip in clips for frame in clip.data]


def test_every_frame_comes_in_order_with_its_time(tmp_path):
    path = write_video(tmp_path / "a.mkv", flat([10, 60, 110, 160]))
    clips = list(read_clips(path, {"f": FRAMES}))
    assert greys(clips)[:4] == [10, 60, 110, 160]
    assert all(c.data.shape == (1, 64, 64, 3) and c.data.dtype == np.uint8 for c in clips)
    np.testing.assert_allclose([(c.start_s, c.end_s) for c in clips[:2]], [(0, 0.1), (0.1, 0.2)])


@pytest.mark.parametrize("fps", [4, 5, 7, 20])
def test_the_rate_is_changed_by_rounding_up(tmp_path, fps):
    values = list(range(0, 250, 10))
    path = write_video(tmp_path / "a.mkv", flat(values), fps=10)
    slots = [math.ceil(i * fps / 10) for i in range(len(values))]
    count = math.ceil(len(values) * fps / 10)
    naive = [values[max(i for i, slot in enumerate(slots) if slot <= n)] for n in range(count)]
    got = greys(read_clips(path, {"f": FrameInput(fps, 64, 64, 1)}))
    assert got[: len(naive)] == naive and len(got) - len(naive) <= 1


def test_the_middle_is_cut_out(tmp_path):
    frames = flat([0, 0], height=64, width=192)
    frames[:, :, 64:128] = 200
    path = write_video(tmp_path / "wide.mkv", frames)
    (clip, *_) = read_clips(path, {"f": FRAMES})
    assert clip.data[:, :, 4:60].min() > 190  # the scaler may blur the cut itself


def test_a_phone_video_is_set_upright(tmp_path):
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
        (clip, *_) = read_clips(path, {"f": FrameInput(10, 64, 64, 1)})
        assert clip.data.shape == (1, 64, 64, 3)
        rows = clip.data[0].mean(axis=(1, 2))
        half = slice(36, None) if bright.start else slice(None, 28)
        other = slice(None, 28) if bright.start else slice(36, None)
        assert rows[half].min() > 180 and rows[other].max() < 20


def test_a_late_picture_is_held_back_to_the_beginning(tmp_path):
    sound = np.zeros((1, 16000 * 2))
    path = write_video(tmp_path / "late.mkv", flat([50] + [200] * 9), 10, sound, video_start_s=1.0)
    got = greys(read_clips(path, {"f": FRAMES}))
    assert got[:11] == [50] * 11 and got[12] == 200
    assert 19 <= len(got) <= 21


def test_a_last_partial_clip_repeats_its_frames_evenly(tmp_path):
    values = [20 * i for i in range(11)]
    path = write_video(tmp_path / "a.mkv", flat(values))
    first, second = read_clips(path, {"f": FrameInput(10, 64, 64, clip_frames=8)})
    assert greys([first]) == values[:8]
    rest = greys([second])
    n = len(set(rest))
    assert rest == [values[8 + i] for i in np.ceil(np.linspace(0, n - 1, 8)).astype(int)]
    assert (second.start_s, second.end_s) == (0.8, 1.6)


def test_sound_is_the_mean_of_its_channels(tmp_path):
    t = np.arange(32000) / 16000
    left = 0.6 * np.sin(2 * np.pi * 400 * t)
    path = write_video(tmp_path / "a.mkv", sound=np.stack([left, np.zeros_like(left)]))
    clips = list(read_clips(path, {"s": SOUND}))
    assert [(c.start_s, c.end_s) for c in clips] == [(0, 0.5), (0.5, 1), (1, 1.5), (1.5, 2)]
    assert all(c.data.shape == (8000,) and c.data.dtype == np.float32 for c in clips)
    np.testing.assert_allclose(np.concatenate([c.data for c in clips]), left / 2, atol=1e-4)


def test_sound_is_resampled_and_windows_may_overlap(tmp_path):
    t = np.arange(96000) / 48000
    wave = 0.5 * np.sin(2 * np.pi * 440 * t)
    path = write_video(tmp_path / "a.mkv", sound=wave[None], sample_rate_hz=48000)
    clips = list(read_clips(path, {"s": AudioInput(16000, window_s=0.75, hop_s=0.5)}))
    assert [(c.start_s, c.end_s) for c in clips] == [(0, 0.5), (0.5, 1), (1, 1.5)]
    for clip in clips:
        start = round(clip.start_s * 16000)
        np.testing.assert_allclose(
            clip.data[100:-100], wave[::3][start : start + 12000][100:-100], atol=5e-3
        )


def test_all_experts_share_one_pass(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", flat([100] * 10), 10, np.zeros((1, 16000)))
    opened = []
    real = av.open
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(args) or real(*args))
    wants = {"a": FRAMES, "b": FrameInput(5, 32, 32, 2), "c": SOUND}
    names = {clip.name for clip in read_clips(path, wants)}
    assert names == {"a", "b", "c"} and len(opened) == 1


def test_only_the_clip_under_way_is_in_memory():
    want = FrameInput(fps=25, short_side=224, crop=224, clip_frames=8)
    clip_bytes = 8 * 224 * 224 * 3
    tracemalloc.start()
    clips = sum(1 for _ in read_clips(footage(BIG_BUCK_BUNNY), {"f": want}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert clips >= 16 and peak < 5 * clip_bytes


def test_a_missing_medium_is_no_error(tmp_path):
    silent = write_video(tmp_path / "silent.mkv", flat([1, 2, 3]))
    blind = write_video(tmp_path / "blind.mkv", sound=np.zeros((1, 16000)))
    wants = {"f": FRAMES, "s": SOUND}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {c.name for c in read_clips(silent, wants)} == {"f"}
    assert {c.name for c in read_clips(blind, wants)} == {"s"}
    assert list(read_clips(silent, {"s": SOUND})) == []
    assert {c.name for c in read_clips(footage(BIKES), wants)} == {"f"}


def test_files_that_are_no_videos_are_refused_by_name(tmp_path):
    rng = np.random.default_rng(0)
    contents = {
        "empty.mp4": b"",
        "text.txt": b"A red ball moves left.\n" * 50,
        "text.mp4": b"A red ball moves left.\n" * 50,
        "garbage.mp4": rng.bytes(20000),
        "garbage.mkv": rng.bytes(20000),
        "subtitles.srt": b"1\n00:00:01,000 --> 00:00:02,000\nHello.\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.mp4").mkdir()
    for name in [*contents, "folder.mp4", "missing.mp4"]:
        with pytest.raises(InputError, match=name) as caught:
            list(read_clips(tmp_path / name, {"f": FRAMES, "s": SOUND}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_file_that_breaks_off_gives_its_beginning_and_a_warning(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), dtype=np.uint8)
    options = {"movflags": "faststart"} if suffix == ".mp4" else None
    path = write_video(tmp_path / f"whole{suffix}", noise, 10, options=options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = list(read_clips(path, {"f": FRAMES}))
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=rf"cut\{suffix}.* second \d+\.\d\d"):
        part = list(read_clips(cut, {"f": FRAMES}))
    assert len(whole) / 4 < len(part) < 3 * len(whole) / 4
    assert np.array_equal(part[5].data, whole[5].data)


def test_a_file_cut_before_its_first_frame_is_refused(tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(footage(BIKES).read_bytes()[:40])
    with pytest.raises(InputError, match=r"cut\.mp4"):
        list(read_clips(cut, {"f": FRAMES}))

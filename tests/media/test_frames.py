"""Reading of video files, on files written here and on real footage."""

import math
import re
import tracemalloc
import warnings
import weakref
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import BIG_BUCK_BUNNY, BIKES, ffmpeg, flat, footage, write_video
from towhee.types.video_frame import VideoFrame

from mdmmt import experts
from mdmmt.errors import InputError
from mdmmt.features import extract
from mdmmt.media.clock import Clock
from mdmmt.media.decode import read_clips
from mdmmt.media.specs import AudioSpec, FrameSpec
from mdmmt.media.towhee_frames import read_frames

FRAMES = FrameSpec(fps=10, short_side=64, crop=64, clip_frames=1)
SOUND = AudioSpec(sample_rate_hz=16000, window_s=0.5, hop_s=0.5)


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
    got = greys(read_clips(path, {"f": FrameSpec(fps, 64, 64, 1)}))
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
        (clip, *_) = read_clips(path, {"f": FrameSpec(10, 64, 64, 1)})
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
    first, second = read_clips(path, {"f": FrameSpec(10, 64, 64, clip_frames=8)})
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
    clips = list(read_clips(path, {"s": AudioSpec(16000, window_s=0.75, hop_s=0.5)}))
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
    wants = {"a": FRAMES, "b": FrameSpec(5, 32, 32, 2), "c": SOUND}
    names = {clip.name for clip in read_clips(path, wants)}
    assert names == {"a", "b", "c"} and len(opened) == 1


@pytest.mark.parametrize("end_s", [0, 0.4, 1, 1.05, 5.9, 100])
def test_an_expert_gets_no_more_than_reaches_the_end(tmp_path, end_s):
    sound = np.random.default_rng(0).uniform(-1, 1, (1, 6 * 16000))
    path = write_video(tmp_path / "a.mkv", flat(list(range(0, 240, 4))), 10, sound)
    wants = {"a": FRAMES, "b": FrameSpec(5, 32, 32, 8), "s": SOUND}
    whole, part = list(read_clips(path, wants)), list(read_clips(path, wants, end_s))
    for name in wants:
        clips = [clip for clip in whole if clip.name == name]
        enough = [k for k, clip in enumerate(clips, 1) if clip.end_s >= end_s]
        clips = clips[: enough[0] if enough else None]
        got = [clip for clip in part if clip.name == name]
        assert [clip[2:] for clip in got] == [clip[2:] for clip in clips]
        assert all(
            np.array_equal(one.data, other.data) for one, other in zip(got, clips, strict=True)
        )


def test_what_no_expert_wants_any_more_is_not_decoded(tmp_path, monkeypatch):
    decoded = []
    real = Clock.set_time
    monkeypatch.setattr(
        Clock, "set_time", lambda clock, frame: decoded.append(1) or real(clock, frame)
    )
    path = write_video(tmp_path / "a.mkv", flat([0] * 200), 10, np.zeros((1, 20 * 16000)))
    clips = list(read_clips(path, {"f": FRAMES, "s": SOUND}, end_s=1))
    assert [len(of(name, clips)) for name in "fs"] == [10, 2] and 10 <= len(decoded) < 30
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match="should last 20"):
        list(read_clips(cut, {"f": FRAMES}, end_s=1))


def test_only_the_clip_under_way_is_in_memory():
    want = FrameSpec(fps=25, short_side=224, crop=224, clip_frames=8)
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


@pytest.mark.parametrize("name", ["12:30.mkv", "file:a.mkv", "pipe:0.mkv"])
def test_a_name_is_no_protocol(tmp_path, monkeypatch, name):
    write_video(tmp_path / "film.mkv", flat([1, 2, 3]))
    (tmp_path / "film.mkv").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert list(read_clips(name, {"f": FRAMES}))


LENGTH_S = 4
ENCODED = {
    ".mkv": "-c:v libx264 -pix_fmt yuv420p -g 25 -c:a aac",
    ".mp4": "-c:v libx264 -pix_fmt yuv420p -g 25 -c:a aac -movflags faststart",
    ".avi": "-c:v mpeg4 -bf 2 -c:a libmp3lame",
    ".ts": "-c:v libx264 -pix_fmt yuv420p -g 25 -c:a aac",
    ".webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -c:a libopus",
}


@pytest.fixture(scope="module", params=ENCODED)
def whole(request, tmp_path_factory):
    """A file of 4 seconds of picture and sound."""
    path = tmp_path_factory.mktemp("whole") / f"whole{request.param}"
    picture = f"-f lavfi -i testsrc2=size=160x120:rate=25:duration={LENGTH_S}"
    sound = f"-f lavfi -i sine=sample_rate=48000:duration={LENGTH_S}"
    ffmpeg(*f"{picture} {sound} {ENCODED[request.param]}".split(" "), path)
    return path


BOTH = {"f": FRAMES, "s": SOUND}


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile film.mkv\n", "#EXTM3U\nfilm.mkv\n"])
def test_a_list_of_files_is_no_video(tmp_path, text):
    """Or a file from a stranger could have other files read."""
    write_video(tmp_path / "film.mkv", flat([1, 2, 3]))
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(InputError, match=r"list\.mp4"):
        list(read_clips(tmp_path / "list.mp4", BOTH))


def of(name, clips):
    return [clip.data for clip in clips if clip.name == name]


@pytest.mark.parametrize("wanted", ["f", "s"])
def test_a_file_that_breaks_off_gives_its_beginning_and_a_warning(whole, tmp_path, wanted):
    if (whole.suffix, wanted) == (".ts", "s"):
        return  # only a last picture that is incomplete tells that it should have gone on
    want = {wanted: BOTH[wanted]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        all_of_it = list(read_clips(whole, want))
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.warns(UserWarning, match=rf"cut\{whole.suffix}.* second \d+\.\d\d") as caught:
        part = list(read_clips(cut, want))
    damaged_s = float(re.search(r"second (\S+) ", str(caught[0].message))[1])
    assert len(caught) == 1 and LENGTH_S / 4 < damaged_s < 3 * LENGTH_S / 4
    assert len(all_of_it) / 4 <= len(part) < 3 * len(all_of_it) / 4
    assert np.array_equal(part[1].data, all_of_it[1].data)


@pytest.mark.parametrize("whole", [".mkv", ".mp4", ".ts"], indirect=True)
def test_damage_in_the_middle_costs_only_what_is_around_it(whole, tmp_path):
    content = bytearray(whole.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    hurt = tmp_path / f"hurt{whole.suffix}"
    hurt.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"hurt\{whole.suffix}.* second [12]\.\d\d") as caught:
        clips = list(read_clips(hurt, BOTH))
    assert len(caught) == 1
    before, after = (of("f", read) for read in (read_clips(whole, BOTH), clips))
    assert len(before) == len(after) == 10 * LENGTH_S
    same = [np.array_equal(*pair) for pair in zip(before, after, strict=True)]
    assert all(same[:15]) and all(same[-9:]) and not all(same)
    assert len(of("s", clips)) >= 2 * LENGTH_S - 2


def test_a_file_cut_before_its_first_frame_is_refused(tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(footage(BIKES).read_bytes()[:40])
    with pytest.raises(InputError, match=r"cut\.mp4"):
        list(read_clips(cut, {"f": FRAMES}))


def towhee_frames(path, mode="RGB"):
    """As Towhee's operator video-decode/ffmpeg yields them."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format={"RGB": "rgb24", "BGR": "bgr24"}[mode])
            yield VideoFrame(pixels, mode, round(frame.time * 1000), int(frame.key_frame))


@pytest.mark.parametrize("mode", ["RGB", "BGR"])
def test_frames_of_towhee_give_nearly_the_features_of_their_file(mode):
    # Nearly: they were made RGB before they were scaled.
    running = experts.load(["frame", "motion", "sound"])
    of_file = extract(footage(BIG_BUCK_BUNNY), running)
    of_frames = extract(towhee_frames(footage(BIG_BUCK_BUNNY), mode), running)
    assert set(of_file) == {"frame", "motion", "sound"} and set(of_frames) == {"frame", "motion"}
    for name, (features, times) in of_frames.items():
        theirs, their_times = of_file[name]
        assert np.array_equal(times, their_times)
        lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(theirs, axis=1)
        assert ((features * theirs).sum(axis=1) / lengths).min() > 0.95
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
def test_frames_of_towhee_are_shown_at_their_times(times_ms, fps, kind):
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


def test_frames_of_towhee_are_not_gathered():
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


def test_frames_of_towhee_may_change_their_size():
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
def test_what_is_no_frame_of_towhee_is_refused_by_its_index(bad):
    with pytest.raises(InputError, match="frame 1 ") as caught:
        list(read_frames([GOOD, bad, GOOD], {"s": SOUND}))
    assert "\n" not in str(caught.value)


def test_no_frames_are_refused():
    with pytest.raises(InputError, match="no frames"):
        list(read_frames([], {"f": FRAMES}))

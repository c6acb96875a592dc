"""The two clocks: where picture and sound are in a file, with the ffmpeg program as the judge."""

from pathlib import Path

import numpy as np
import pytest
from media import ffmpeg, flat, write_video, write_with_ffmpeg

import mdmmt
from mdmmt.features import extract
from mdmmt.media.decode import read_clips
from mdmmt.media.specs import CLOCKS, AudioSpec, FrameSpec

RATE_HZ = 16000
FRAMES = FrameSpec(fps=10, short_side=64, crop=64, clip_frames=1)
SOUND = AudioSpec(RATE_HZ, window_s=0.5, hop_s=0.5)
SHIFT = round(0.03 * RATE_HZ)  # samples by which a time may be wrong, for the delays of encoders

PICTURE = "-f lavfi -i testsrc2=size=64x64:rate=10:duration=3"
SWEEP = f"-f lavfi -i aevalsrc=0.5*sin(300*t*t):s={RATE_HZ}:d=3"
LATE = "-itsoffset 2"
X264 = "-c:v libx264 -preset ultrafast -bf 2 -pix_fmt yuv420p"
MPEG2 = "-c:v mpeg2video -q:v 2"

LATE_SOUND = f"{PICTURE} {LATE} {SWEEP}"
LATE_PICTURE = f"{LATE} {PICTURE} {SWEEP}"
BOTH_LATE = f"-itsoffset 1 {PICTURE} {LATE} {SWEEP}"
HOLE = f"{PICTURE} {SWEEP} -af aselect='not(between(t\\,0.7\\,2))'"
FILES = {
    "late sound.mkv": f"{LATE_SOUND} -c:v ffv1 -c:a pcm_s16le",
    "late sound.mp4": f"{LATE_SOUND} {X264} -c:a aac",  # by an edit list
    "late sound.ts": f"{LATE_SOUND} {MPEG2} -c:a mp2",
    "late sound.mpg": f"{LATE_SOUND} -r 25 {MPEG2} -c:a mp2",
    "late sound.avi": f"{LATE_SOUND} -c:v ffv1 -c:a pcm_s16le",
    "late sound.webm": f"{LATE_SOUND} -c:v libvpx -c:a libopus",
    "late picture.mkv": f"{LATE_PICTURE} -c:v ffv1 -c:a pcm_s16le",
    "late picture.mp4": f"{LATE_PICTURE} {X264} -c:a aac",
    "late picture.ts": f"{LATE_PICTURE} {MPEG2} -r 25 -c:a mp2",
    "both late.mkv": f"{BOTH_LATE} -c:v ffv1 -c:a pcm_s16le",
    "both late.mp4": f"{BOTH_LATE} {X264} -c:a aac",
    "both late.ts": f"{BOTH_LATE} {MPEG2} -r 25 -c:a mp2",
    "hole in sound.mkv": f"{HOLE} -c:v ffv1 -c:a pcm_s16le",
    "hole in sound.mp4": f"{HOLE} {X264} -c:a aac",
    "neither late.mp4": f"{PICTURE} {SWEEP} {X264} -c:a aac",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clocks")


def make(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        write_with_ffmpeg(path, FILES[name])
    return path


def sound_as_played(path: Path) -> np.ndarray:
    """The sound by the clock of the file: silence is put where there is none."""
    return np.frombuffer(
        ffmpeg(
            *("-i", path, "-filter_complex"),
            f"[0:v]nullsink;[0:a]aresample={RATE_HZ}:async=1:first_pts=0[a]",
            *("-map", "[a]", "-ac", "1", "-f", "s16le", "-"),
        ),
        np.int16,
    ).astype(float) / 32768  # fmt: skip


def pictures_as_played(path: Path) -> np.ndarray:
    """Ten pictures a second by the clock of the file; the first one is put before its time, too."""
    raw = ffmpeg(
        *("-i", path, "-filter_complex"),
        "[0:a]anullsink;[0:v]fps=10:round=up:start_time=0,scale=64:64[v]",
        *("-map", "[v]", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
    )
    return np.frombuffer(raw, np.uint8).reshape(-1, 64, 64, 3).astype(int)


def difference(window: np.ndarray, played: np.ndarray, start_s: float) -> float:
    """The difference between a window and what is played at that second, give or take SHIFT."""
    start = round(start_s * RATE_HZ)
    runs = (played[max(0, start + shift) :][: len(window)] for shift in range(-SHIFT, SHIFT + 1, 4))
    return min(np.abs(window - run).mean() for run in runs if len(run) == len(window))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_read_clips_times_sound_as_it_is_played(folder, name):
    path = make(folder, name)
    played = sound_as_played(path)
    clips = list(read_clips(path, {"s": SOUND}))
    assert len(clips) >= 3
    wrong = 0
    for clip in clips:
        assert clip.end_s == pytest.approx(clip.start_s + 0.5)
        assert clip.end_s <= len(played) / RATE_HZ + 0.1
        wrong += difference(clip.data, played, clip.start_s) > 0.05
    assert wrong == ("hole" in name)  # the window that goes over the hole
    assert [c.start_s for c in clips] == sorted(c.start_s for c in clips)
    by_track = list(read_clips(path, {"s": SOUND}, clock="track"))
    assert [c.start_s for c in by_track] == [i * 0.5 for i in range(len(clips))]
    assert all(np.array_equal(a.data, b.data) for a, b in zip(clips, by_track, strict=True))


@pytest.mark.parametrize("name", FILES)
def test_read_clips_times_pictures_as_they_are_played(folder, name):
    path = make(folder, name)
    played = pictures_as_played(path)
    clips = list(read_clips(path, {"f": FRAMES}))
    assert len(clips) >= 29
    for clip in clips:
        at = round(clip.start_s * FRAMES.fps)
        near = played[max(0, at - 1) : at + 2]  # times of .ts are no multiples of a tenth
        exact = name.endswith((".mkv", ".mp4"))
        shown = played[at : at + 1] if exact else near
        assert min(np.abs(clip.data[0] - one).mean() for one in shown) < (1 if exact else 6)
    assert clips[-1].end_s <= len(played) / FRAMES.fps + 0.05
    by_track = list(read_clips(path, {"f": FRAMES}, clock="track"))
    assert [c.start_s for c in by_track] == [i * FRAMES.clip_s for i in range(len(clips))]
    assert all(np.array_equal(a.data, b.data) for a, b in zip(clips, by_track, strict=True))


def picture_times_s(path: Path) -> list[float]:
    """The time of each picture by the ffmpeg program, from the start of the file."""
    ticks = "-map 0 -fps_mode passthrough -enc_time_base:v 1:90000 -c:a copy -f framecrc -"
    lines = ffmpeg("-i", path, *ticks.split(" ")).decode().splitlines()
    (video,) = [line[len("#media_type ")] for line in lines if line.endswith(": video")]
    return [int(line.split(",")[2]) / 90_000 for line in lines if line.startswith(f"{video},")]


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
def test_read_clips_times_a_picture_that_starts_late_in_a_broadcast(tmp_path, suffix):
    """Copied packets: an encoder would fill the beginning with the first picture."""
    matroska, path = tmp_path / "late.mkv", tmp_path / f"late{suffix}"
    late_picture = LATE_PICTURE.replace("rate=10", "rate=25")
    write_with_ffmpeg(matroska, f"{late_picture} {MPEG2} -fps_mode passthrough -c:a mp2")
    remux = "-c copy -copyts -muxdelay 0 -muxpreload 0"
    ffmpeg("-i", matroska, "-v", "fatal", *remux.split(" "), path)
    expected_s = picture_times_s(path)
    assert len(expected_s) == 75 and 2 <= expected_s[0] < 2.1
    clips = list(read_clips(path, {"f": FrameSpec(25, 64, 64, 1)}))
    assert [clip.start_s for clip in clips] == pytest.approx(expected_s, abs=1e-3)
    by_track = list(read_clips(path, {"f": FrameSpec(25, 64, 64, 1)}, clock="track"))
    assert by_track[0].start_s == 0


@pytest.mark.parametrize(("count", "fps"), [(53, 10), (106, 20), (3, 10)])
@pytest.mark.parametrize(("clip_fps", "clip_frames"), [(1, 1), (32, 32), (4, 1)])
def test_read_clips_ends_with_the_last_frame(tmp_path, count, fps, clip_fps, clip_frames):
    path = write_video(tmp_path / "a.mkv", flat([9] * count), fps)
    spec = FrameSpec(clip_fps, 64, 64, clip_frames)
    of_file, of_track = (
        list(read_clips(path, {"f": spec}, clock=clock)) for clock in ("file", "track")
    )
    assert of_file[-1].end_s == pytest.approx(count / fps)
    assert of_track[-1].end_s == len(of_track) * spec.clip_s
    assert [c[2:] for c in of_file[:-1]] == [c[2:] for c in of_track[:-1]]
    assert all(np.array_equal(a.data, b.data) for a, b in zip(of_file, of_track, strict=True))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("arguments", [f"{LATE} {SWEEP} -c:a mp2", f"{LATE} {PICTURE} {MPEG2}"])
def test_read_clips_begins_at_0_with_a_single_late_track(tmp_path, suffix, arguments):
    path = tmp_path / f"a{suffix}"
    write_with_ffmpeg(path, arguments)
    first = next(iter(read_clips(path, {"f": FRAMES, "s": SOUND})))
    assert first.start_s == pytest.approx(0, abs=0.03)


def test_extract_puts_moments_together(folder):
    path = make(folder, "late sound.mkv")
    of_file = extract(path, ["frame", "sound"])
    assert of_file["sound"].times_s[0, 0] == pytest.approx(2, abs=0.01)
    assert of_file["frame"].times_s[-1, 1] == pytest.approx(3)
    of_track = extract(path, ["frame", "sound"], clock="track")
    assert of_track["sound"].times_s[0, 0] == 0
    for name in of_file:
        assert np.array_equal(of_file[name].values, of_track[name].values)


def test_model_embeds_moments_of_a_file_with_a_late_track(folder):
    path = make(folder, "late sound.mkv")
    features = {clock: extract(path, ["frame", "motion", "sound"], clock=clock) for clock in CLOCKS}
    model = mdmmt.load("sample")
    whole = model.encode_video(path)
    for given in features.values():  # the model counts each expert's times from the first one on
        assert np.array_equal(whole, model.encode_video(given))
    silent = {name: one for name, one in features["file"].items() if name != "sound"}
    part = model.encode_video(path, start_s=0, end_s=1)
    assert np.array_equal(part, model.encode_video(silent, start_s=0, end_s=1))
    *_, (_, end_s) = model.encode_segments(path, window_s=2.0).spans_s
    assert end_s == pytest.approx(5, abs=0.01)

"""Reading of files: frames are, bit for bit, those of the ffmpeg program; damage; one pass."""

import contextlib
import gc
import re
import shutil
import subprocess
import tracemalloc
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from media import (
    BIG_BUCK_BUNNY,
    BIKES,
    SINE,
    X264,
    ffmpeg,
    flat,
    footage,
    greys,
    our_frames,
    picture,
    program_frames,
    write_video,
)

from mdmmt.errors import InputError
from mdmmt.media import decode, opening, tracks
from mdmmt.media.clock import Clock
from mdmmt.media.decode import read_clips
from mdmmt.media.specs import AudioSpec, FrameSpec

FRAMES = FrameSpec(fps=10, short_side=64, crop=64, clip_frames=1)


SOUND = AudioSpec(sample_rate_hz=16000, window_s=0.5, hop_s=0.5)


X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=error"


VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"
COVER = "-i {a still picture} -map 0 -map 1 -c:v:%d copy -disposition:v:%d attached_pic"


class File(NamedTuple):
    """A file that the ffmpeg program writes from `arguments`."""

    suffix: str
    arguments: str
    size: tuple[int, int] = (160, 120)  # in pixels, as it is to be seen
    # Whether the container, its picture and the first frame are what the name says.
    holds: Callable[..., bool] = lambda container, video, frame: True


def codec(name: str) -> Callable[..., bool]:
    return lambda container, video, frame: video.codec_context.name == name


def rate(fps: float) -> Callable[..., bool]:
    return lambda container, video, frame: abs(video.average_rate - fps) < 0.01


def turned(degrees: int) -> Callable[..., bool]:
    return lambda container, video, frame: frame.rotation == degrees


FILES = {
    "h264": File(".mp4", f"{picture()} {X264}", holds=codec("h264")),
    "hevc": File(".mkv", f"{picture()} {X265} -pix_fmt yuv420p", holds=codec("hevc")),
    "vp9": File(".webm", f"{picture()} {VP9}", holds=lambda c, v, f: "vp9" in v.codec_context.name),
    "mpeg-4 in avi": File(".avi", f"{picture()} -c:v mpeg4 -bf 2", holds=codec("mpeg4")),
    "h264 in avi, which gives no times": File(".avi", f"{picture()} {X264}", holds=codec("h264")),
    "h264 in avi with sound": File(".avi", f"{picture()} {SINE} {X264} -c:a mp2"),
    "mjpeg": File(".mov", f"{picture()} -c:v mjpeg -pix_fmt yuvj420p", holds=codec("mjpeg")),
    "prores": File(".mov", f"{picture()} -c:v prores_ks", holds=codec("prores")),
    "ffv1": File(".mkv", f"{picture()} -c:v ffv1", holds=codec("ffv1")),
    "wmv, which gives no durations": File(".wmv", f"{picture()} -c:v wmv2"),
    "flv": File(".flv", f"{picture()} -c:v flv"),
    "gif": File(".gif", picture(fps="10")),
    "24 fps": File(".mp4", f"{picture(fps='24')} {X264}", holds=rate(24)),
    "29.97 fps": File(".mp4", f"{picture(fps='30000/1001')} {X264}", holds=rate(29.97)),
    "29.97 fps in milliseconds": File(".mkv", f"{picture(fps='30000/1001')} {X264}"),
    "30 fps": File(".mp4", f"{picture(fps='30')} {X264}", holds=rate(30)),
    "60 fps": File(".mp4", f"{picture(fps='60')} {X264}", holds=rate(60)),
    "60 fps in avi": File(".avi", f"{picture(fps='60')} -c:v mpeg4 -bf 2", holds=rate(60)),
    "variable rate": File(
        ".mp4",
        f"{picture(fps='30')} -vf select=not(mod(n\\,3))+lt(n\\,20) -fps_mode vfr {X264}",
        holds=lambda c, v, f: 15 < v.average_rate < 25,
    ),
    "variable rate in milliseconds": File(
        ".mkv", f"{picture(fps='30')} -vf select=not(mod(n\\,7))+lt(n\\,20) -fps_mode vfr {X264}"
    ),
    "odd sides": File(
        ".mkv",
        f"{picture('161x121', source='testsrc')} -c:v ffv1 -pix_fmt yuv420p",
        (161, 121),
        holds=lambda c, v, f: (f.width, f.height, f.format.name) == (161, 121, "yuv420p"),
    ),
    "odd sides, full colour": File(
        ".mkv",
        f"{picture('91x163', source='testsrc')} -c:v libx264 -pix_fmt yuv444p",
        (91, 163),
        holds=lambda c, v, f: (f.width, f.height, f.format.name) == (91, 163, "yuv444p"),
    ),
    "portrait": File(".mp4", f"{picture('90x160')} {X264}", (90, 160)),
    "turned by 90": File(".mp4", "-display_rotation 90 -i {h264} -c copy", (120, 160), turned(90)),
    "turned by 180": File(
        ".mp4",
        "-display_rotation 180 -i {h264} -c copy",
        holds=lambda c, v, f: f.rotation in {180, -180},
    ),
    "turned by 270": File(
        ".mp4", "-display_rotation 270 -i {h264} -c copy", (120, 160), turned(-90)
    ),
    "late": File(
        ".mp4",
        f"-itsoffset 0.7 {picture()} {SINE} {X264} -c:a aac",
        holds=lambda c, v, f: v.start_time * v.time_base > 0.6 and c.start_time <= 0,
    ),
    "late in matroska": File(".mkv", f"-itsoffset 0.7 {picture()} {SINE} {X264} -c:a aac"),
    "late, and nothing else": File(
        ".mkv",
        f"-itsoffset 0.7 {picture()} {X264}",
        holds=lambda c, v, f: len(c.streams) == 1,
    ),
    "transport stream": File(
        ".ts",
        f"{picture()} {SINE} {X264} -c:a aac",
        holds=lambda c, v, f: c.start_time > 1.3 * av.time_base,
    ),
    "late in a transport stream": File(".ts", f"-itsoffset 0.7 {picture()} {SINE} {X264} -c:a mp2"),
    "late sound": File(".ts", f"{picture()} -itsoffset 0.7 {SINE} {X264} -c:a mp2"),
    "a clock set anew": File(
        ".ts",
        "-i {transport stream} -c copy -output_ts_offset 100",
        holds=lambda c, v, f: f.pts * v.time_base < 2 and f.time < 2,
    ),
    "programme stream": File(".mpg", f"{picture()} {SINE} -c:v mpeg2video -bf 2 -c:a mp2"),
    "interlaced": File(".ts", f"{picture()} -c:v mpeg2video -flags +ilme+ildct"),
    "sound first, before 0": File(
        ".mkv",
        f"{picture()} -itsoffset -0.5 {SINE} {X264} -c:a aac -avoid_negative_ts disabled",
        holds=lambda c, v, f: c.start_time < -0.5 * av.time_base,
    ),
    "sound before the picture": File(
        ".mkv",
        f"{picture()} {SINE} -map 1 -map 0 {X264.replace('-bf 2', '-bf 8')} -c:a aac",
        holds=lambda c, v, f: c.streams[0].type == "audio",
    ),
    "wmv with sound": File(".wmv", f"{picture()} {SINE} -c:v wmv2 -c:a wmav2"),
    "a bare stream": File(".h264", f"{picture()} {X264}", holds=lambda c, v, f: f.pts is None),
    "a bare stream of false times": File(".m1v", f"{picture()} -c:v mpeg1video -bf 2"),
    "10 bit": File(
        ".mkv",
        f"{picture()} {X265} -pix_fmt yuv420p10le",
        holds=lambda c, v, f: f.format.components[0].bits == 10,
    ),
    "oblong pixels": File(
        ".mkv",
        f"{picture()} -vf setsar=4/3 {X264}",
        holds=lambda c, v, f: v.sample_aspect_ratio == Fraction(4, 3),
    ),
    "HD colours": File(
        ".mp4",
        f"{picture()} -vf scale=out_color_matrix=bt709 -colorspace bt709 {X264}",
        holds=lambda c, v, f: f.colorspace == 1,
    ),
    "full range": File(
        ".mp4",
        f"{picture()} -vf scale=out_range=full -color_range pc {X264}",
        holds=lambda c, v, f: f.color_range == 2,
    ),
    "animated png": File(".png", f"{picture(fps='10')} -c:v apng -f apng"),
    "edit list that begins within the picture": File(
        ".mp4",
        "-ss 0.7 -i {h264} -c copy",
        holds=lambda c, v, f: f.pts < 0 or v.start_time < 0 or f.time < 0.1,
    ),
    "fragmented": File(".mp4", f"{picture()} {SINE} {X264} -c:a aac -movflags frag_keyframe"),
    "a screen that hardly changes": File(
        ".mp4", f"{picture(fps='10', seconds=9)} -vf select=not(mod(n\\,40)) -fps_mode vfr {X264}"
    ),
    "no frame within seconds": File(".mp4", f"{picture(fps='1/4', seconds=9)} {X264}"),
    "1000 fps": File(".mp4", f"{picture(fps='1000', seconds=0.4)} {X264}"),
    "12 bit": File(".mkv", f"{picture()} -c:v ffv1 -pix_fmt yuv444p12le"),
    "grey": File(".mp4", f"{picture()} -c:v libx264 -preset ultrafast -pix_fmt gray"),
    "palette": File(
        ".mkv",
        f"{picture()} -c:v png -pix_fmt pal8",
        holds=lambda c, v, f: f.format.name == "pal8",
    ),
    "see-through": File(
        ".mov",
        "-f lavfi -i testsrc2=alpha=100:size=160x120:duration=1.5 -c:v prores_ks "
        "-pix_fmt yuva444p10le",
        holds=lambda c, v, f: "yuva" in f.format.name,
    ),
    "HDR": File(
        ".mp4",
        f"{picture()} {X265} -pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 "
        "-colorspace bt2020nc",
        holds=lambda c, v, f: f.colorspace == 9,
    ),
    "mirrored, odd sides": File(
        ".mov",
        "-display_rotation 90 -display_hflip -i {odd sides} -c copy",
        (121, 161),
    ),
    "oblique": File(".mp4", "-display_rotation 37 -i {h264} -c copy"),
    "a pixel wide": File(
        ".mkv",
        f"{picture('1x64', source='color')} -vf geq=lum=N*3+Y -c:v png -pix_fmt gray",
        (1, 64),
    ),
    "sound 3 s late": File(".mp4", f"{picture(seconds=4)} -itsoffset 3 {SINE} {X264} -c:a aac"),
    "picture 3 s late": File(".mkv", f"-itsoffset 3 {picture()} {SINE} {X264} -c:a aac"),
    "a film twice": File(".mpg", "-i {programme stream} -c copy"),
    "under a second": File(".mp4", f"{picture(seconds=0.4)} {X264}"),
    "one frame": File(".mp4", f"{picture()} -frames:v 1 {X264}"),
    "one frame without a duration": File(".flv", f"{picture()} -frames:v 1 -c:v flv"),
    "a still picture": File(".jpg", f"{picture()} -frames:v 1 -pix_fmt yuvj420p"),
    "with a cover": File(
        ".mp4",
        f"{picture()} {COVER % (1, 1)} {X264.replace('c:v', 'c:v:0')}",
        holds=lambda c, v, f: len(c.streams.video) == 2,
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    yield folder
    shutil.rmtree(folder)


def make(folder: Path, name: str) -> Path:
    """The file of that name, written once."""
    path = folder / f"{name.replace(' ', '-')}{FILES[name].suffix}"
    if not path.exists():
        write(path, FILES[name].arguments)
        if name == "a clock set anew":
            first = make(folder, "transport stream").read_bytes()
            path.write_bytes(first + path.read_bytes() + first)
        if name == "a film twice":
            path.write_bytes(2 * path.read_bytes())
    return path


def write(path: Path, arguments: str) -> None:
    """Run the ffmpeg program; {name} in its arguments is the file of that name."""
    for name in FILES:
        if f"{{{name}}}" in arguments:
            arguments = arguments.replace(f"{{{name}}}", str(make(path.parent, name)))
    ffmpeg(*arguments.split(" "), path)


@pytest.mark.filterwarnings("ignore:.*clock set anew.*damaged")  # packets are missing where it is
@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_read_clips_gives_the_frames_of_the_ffmpeg_program(folder, name):
    path, file = make(folder, name), FILES[name]
    with av.open(str(path)) as container:
        container.flags &= ~av.container.Flags.gen_pts.value
        video = container.streams.best("video")
        assert file.holds(container, video, next(container.decode(video)))
    wants = {"fast": FrameSpec(32, 64, 64, 1), "slow": FrameSpec(1, 66, 66, 1)}
    ours = our_frames(path, wants)
    for expert, want in wants.items():
        theirs = program_frames(path, file.size, want)
        assert len(theirs) and ours[expert].shape == theirs.shape
        assert np.array_equal(ours[expert], theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, file in FILES.items() if SINE in file.arguments])
def test_read_clips_keeps_picture_and_sound_apart(folder, name):
    """Some decoders keep frames until the end, which then must go where they belong."""
    wants = {"v": FrameSpec(32, 64, 64, 1), "s": AudioSpec(16000, 0.25, 0.25)}
    together = list(read_clips(make(folder, name), wants))
    for one, want in wants.items():
        alone = list(read_clips(make(folder, name), {one: want}))
        found = [clip for clip in together if clip.name == one]
        assert alone and len(found) == len(alone)
        assert all(np.array_equal(a.data, b.data) for a, b in zip(found, alone, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [(BIG_BUCK_BUNNY, (1280, 720)), (BIKES, (640, 272))])
def test_read_clips_gives_the_frames_of_the_ffmpeg_program_of_footage(name, size):
    wants = {"VIDEO": FrameSpec(32, 224, 224, 1), "CLIP": FrameSpec(1, 228, 228, 1)}
    ours = our_frames(footage(name), wants)
    for expert, want in wants.items():
        assert np.array_equal(ours[expert], program_frames(footage(name), size, want))


def test_read_clips_cuts_frames_into_runs(folder):
    path = make(folder, "29.97 fps")
    theirs = program_frames(path, (160, 120), FrameSpec(32, 64, 64, 1))
    whole, rest = read_clips(path, {"v": FrameSpec(32, 64, 64, 32)})
    picks = np.ceil(np.linspace(32, len(theirs) - 1, 32)).astype(int)
    assert np.array_equal(whole.data, theirs[:32]) and np.array_equal(rest.data, theirs[picks])


@pytest.mark.parametrize(
    ("turn", "size"), [("", (160, 120)), ("-display_rotation 90 ", (120, 160))]
)
def test_read_clips_brings_frames_to_the_size_of_the_first(folder, turn, size):
    wide, narrow, both = folder / "wide.ts", folder / "narrow.ts", folder / "both.ts"
    write(wide, f"{picture(seconds=1)} {X264}")
    write(narrow, f"{picture('80x100', seconds=1)} {X264}")
    ffmpeg("-i", f"concat:{wide}|{narrow}", "-c", "copy", both)
    shown = [path.with_suffix(".mov") for path in (wide, narrow, both)]
    for path in shown:
        write(path, f"{turn}-i {path.with_suffix('.ts')} -c copy")
    want = FrameSpec(32, 64, 64, 1)
    ours = our_frames(shown[2], {"v": want})["v"]
    assert ours.shape == program_frames(shown[2], size, want).shape == (64, 64, 64, 3)
    assert np.array_equal(ours[:32], program_frames(shown[0], size, want))
    assert np.array_equal(ours[32:], program_frames(shown[1], size, want))


def test_read_clips_gives_every_frame_in_order_with_its_time(tmp_path):
    path = write_video(tmp_path / "a.mkv", flat([10, 60, 110, 160]))
    clips = list(read_clips(path, {"f": FRAMES}))
    assert greys(clips)[:4] == [10, 60, 110, 160]
    assert all(c.data.shape == (1, 64, 64, 3) and c.data.dtype == np.uint8 for c in clips)
    np.testing.assert_allclose([(c.start_s, c.end_s) for c in clips[:2]], [(0, 0.1), (0.1, 0.2)])


def test_read_clips_holds_a_late_picture_back_to_the_beginning(tmp_path):
    sound = np.zeros((1, 16000 * 2))
    path = write_video(tmp_path / "late.mkv", flat([50] + [200] * 9), 10, sound, video_start_s=1.0)
    got = greys(read_clips(path, {"f": FRAMES}))
    assert got[:11] == [50] * 11 and got[12] == 200
    assert 19 <= len(got) <= 21


def test_read_clips_opens_a_file_once_for_all_experts(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", flat([100] * 10), 10, np.zeros((1, 16000)))
    opened = []
    real = opening.open_media
    monkeypatch.setattr(decode, "open_media", lambda path: opened.append(path) or real(path))
    monkeypatch.setattr(tracks, "open_media", lambda path: opened.append(path) or real(path))
    wants = {"a": FRAMES, "b": FrameSpec(5, 32, 32, 2), "c": SOUND}
    names = {clip.name for clip in read_clips(path, wants)}
    assert names == {"a", "b", "c"} and len(opened) == 1


@pytest.mark.parametrize("end_s", [0, 0.4, 1, 1.05, 5.9, 100])
def test_read_clips_stops_each_expert_at_the_end(tmp_path, end_s):
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


def test_read_clips_decodes_no_more_than_is_needed(tmp_path, monkeypatch):
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


def test_read_clips_keeps_only_the_current_clip_in_memory():
    want = FrameSpec(fps=25, short_side=224, crop=224, clip_frames=8)
    clip_bytes = 8 * 224 * 224 * 3
    tracemalloc.start()
    clips = sum(1 for _ in read_clips(footage(BIG_BUCK_BUNNY), {"f": want}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert clips >= 16 and peak < 5 * clip_bytes


def test_read_clips_gives_nothing_of_a_missing_medium(tmp_path):
    silent = write_video(tmp_path / "silent.mkv", flat([1, 2, 3]))
    blind = write_video(tmp_path / "blind.mkv", sound=np.zeros((1, 16000)))
    wants = {"f": FRAMES, "s": SOUND}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {c.name for c in read_clips(silent, wants)} == {"f"}
    assert {c.name for c in read_clips(blind, wants)} == {"s"}
    assert list(read_clips(silent, {"s": SOUND})) == []
    assert {c.name for c in read_clips(footage(BIKES), wants)} == {"f"}


def test_read_clips_refuses_other_files_by_name(tmp_path):
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


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif", ".mp4"])
def test_read_clips_warns_of_a_still_picture(folder, tmp_path, suffix):
    still = tmp_path / f"still{suffix}"
    ffmpeg("-i", make(folder, "a still picture"), still)
    with pytest.warns(UserWarning, match=rf"still\{suffix}' is a still picture") as caught:
        clips = list(read_clips(still, {"f": FrameSpec(1, 64, 64, 1), "s": SOUND}))
    assert len(caught) == len(clips) == 1 and caught[0].filename == __file__


def test_read_clips_tells_an_animated_webp(tmp_path):
    path = tmp_path / "a.webp"
    ffmpeg(*picture(fps="10").split(" "), "-c:v", "libwebp_anim", path)
    with pytest.raises(InputError, match="is an animated WebP, which this version of PyAV cannot"):
        list(read_clips(path, {"f": FRAMES}))
    path.write_bytes(path.read_bytes()[:300])  # and a damaged one of a single picture
    still = tmp_path / "still.webp"
    ffmpeg(*picture().split(" "), "-frames:v", "1", "-c:v", "libwebp", still)
    still.write_bytes(still.read_bytes()[:60])
    with pytest.raises(InputError) as caught:
        list(read_clips(still, {"f": FRAMES}))
    assert "animated" not in str(caught.value)


def test_read_clips_takes_no_film_for_a_still_picture(folder, tmp_path):
    slide, two = tmp_path / "slide.mp4", tmp_path / "two.gif"
    ffmpeg("-i", make(folder, "a still picture"), *SINE.split(" "), slide)
    ffmpeg(*picture().split(" "), "-frames:v", "2", two)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in (slide, two):
            assert list(read_clips(path, {"f": FRAMES}, end_s=0.1))


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


def of(name, clips):
    return [clip.data for clip in clips if clip.name == name]


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["f", "s"])
def test_read_clips_gives_the_beginning_of_a_cut_file_and_a_warning(whole, tmp_path, wanted):
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
    assert len(caught) == 1 and caught[0].filename == __file__
    assert LENGTH_S / 4 < damaged_s < 3 * LENGTH_S / 4
    assert len(all_of_it) / 4 <= len(part) < 3 * len(all_of_it) / 4
    assert np.array_equal(part[1].data, all_of_it[1].data)


@pytest.mark.parametrize("whole", [".mkv", ".mp4", ".ts"], indirect=True)
def test_read_clips_loses_only_what_is_around_damage(whole, tmp_path):
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


FLV_PICTURE, FLV_SOUND = 9, 8  # types of the tags that an FLV file is made of


def flip_time_stamp(content: bytes, kind: int, number: int, bit: int) -> bytes:
    """Flip a bit of the time stamp, which counts milliseconds, of one tag of an FLV file."""
    at, flipped = 13, bytearray(content)
    while True:
        if content[at] == kind:
            if number == 0:
                flipped[at + (7 if bit >= 24 else 6 - bit // 8)] ^= 1 << bit % 8
                return bytes(flipped)
            number -= 1
        at += 11 + int.from_bytes(content[at + 1 : at + 4], "big") + 4


@pytest.mark.parametrize("kind", [FLV_PICTURE, FLV_SOUND])
@pytest.mark.parametrize("number", [1, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("bit", [15, 16, 23, 30])
def test_read_clips_loses_nothing_behind_a_flipped_time_stamp(tmp_path, kind, number, bit):
    """Neither frames nor windows are lost or given other times, however far the stamp jumps."""
    whole, flipped = tmp_path / "whole.flv", tmp_path / "flipped.flv"
    sound = SINE.replace("48000", "44100").replace("1.5", "4")
    ffmpeg(*f"{picture(seconds=4)} {sound} -c:v flv -c:a libmp3lame".split(" "), whole)
    flipped.write_bytes(flip_time_stamp(whole.read_bytes(), kind, number, bit))
    wants = {"f": FrameSpec(25, 64, 64, 1), "s": AudioSpec(16000, 0.02, 0.02)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = list(read_clips(whole, wants))
    ahead_s = 2**bit // 1000
    with pytest.warns(
        UserWarning, match=rf"flipped\.flv.* {ahead_s // 10}\d+ seconds ahead"
    ) as caught:
        clips = list(read_clips(flipped, wants))
    assert len(caught) == 1
    for name, want in (("f", 100), ("s", 198)):
        ours, theirs = ([one for one in read if one.name == name] for read in (clips, expected))
        assert len(ours) == len(theirs) >= want
        for one, other in zip(ours, theirs, strict=True):
            assert np.array_equal(one.data, other.data)
            assert one.start_s == pytest.approx(other.start_s, abs=0.05)


def test_read_clips_refuses_a_file_cut_before_its_first_frame(tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(footage(BIKES).read_bytes()[:40])
    with pytest.raises(InputError, match=r"cut\.mp4"):
        list(read_clips(cut, {"f": FRAMES}))


NOISE_AFTER_SILENCE = "-f lavfi -i aevalsrc=random(0)*gte(t\\,3):s=48000:d=6"
WHOLE = {
    "raw aac": (".aac", f"{NOISE_AFTER_SILENCE} -c:a aac -q:a 2 -f adts"),
    "raw mp3": (".mp3", f"{NOISE_AFTER_SILENCE} -q:a 2 -write_xing 0 -f mp3"),
    "wav to a pipe": (".wav", f"{NOISE_AFTER_SILENCE} -f wav"),
    "caf to a pipe": (".caf", f"{NOISE_AFTER_SILENCE} -f caf"),
    "avi to a pipe": (".avi", f"{picture(seconds=4)} -c:v mjpeg -f avi"),
    "flv to a pipe": (".flv", f"{picture(seconds=4)} -c:v flv -f flv"),
    "rm to a pipe": (".rm", f"{picture('160x112', seconds=4)} -c:v rv10 -f rm"),
    "sound in rm to a pipe": (".rm", f"{NOISE_AFTER_SILENCE} -c:a ac3 -f rm"),
    "ivf to a pipe": (".ivf", f"{picture(seconds=4)} -c:v libvpx -deadline realtime -f ivf"),
    "rf64 to a pipe": (".wav", f"{NOISE_AFTER_SILENCE} -rf64 auto -f wav"),
    "au to a pipe": (".au", f"{NOISE_AFTER_SILENCE} -f au"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_read_clips_takes_no_estimate_for_a_statement(tmp_path, name):
    suffix, arguments = WHOLE[name]
    path = tmp_path / f"whole{suffix}"
    path.write_bytes(ffmpeg(*arguments.split(" "), "-"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clips = list(read_clips(path, BOTH))
    if {clip.name for clip in clips} == {"f"}:
        assert 40 <= len(clips) <= 41
    else:
        pcm = ffmpeg("-i", path, *["-f", "s16le", "-ac", "1", "-ar", "16000", "-"])
        assert len(clips) == len(pcm) // 16000


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".w64", "-f w64"), (".wav", "-rf64 always -f wav"), (".aiff", "-f aiff")],
)
def test_read_clips_refuses_what_the_ffmpeg_program_cannot_read_back(tmp_path, suffix, options):
    """Headers of unknown length that no FFmpeg reads: the sound is not called damaged."""
    path = tmp_path / f"piped{suffix}"
    path.write_bytes(ffmpeg(*f"{NOISE_AFTER_SILENCE} {options}".split(" "), "-"))
    with contextlib.suppress(subprocess.CalledProcessError):
        assert ffmpeg("-i", path, "-f", "s16le", "-") == b""
    with pytest.raises(InputError, match=rf"piped\{suffix}") as caught:
        list(read_clips(path, {"s": SOUND}))
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".wav", ".caf", ".w64", ".au", ".aiff", ".flac", ".mp3", ".rm"])
def test_read_clips_warns_of_a_cut_sound(tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    ffmpeg(*NOISE_AFTER_SILENCE.split(" "), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.warns(UserWarning, match="damaged"):
        list(read_clips(path, {"s": SOUND}))


def test_frames_are_freed_as_soon_as_they_are_used(tmp_path):
    """Without waiting until Python looks for cycles, before which hundreds of frames can come."""
    path = write_video(tmp_path / "a.mkv", flat(list(range(40))), 10)
    gc.collect()
    gc.disable()
    try:
        clips = sum(1 for _ in read_clips(path, {"e": FrameSpec(10, 64, 64, 1)}))
        kept = sum(type(one) is av.VideoFrame for one in gc.get_objects())
    finally:
        gc.enable()
    assert clips == 40 and kept <= 4

"""Frames and sound are, bit for bit, those that the ffmpeg program makes of the same files."""

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from media import BIG_BUCK_BUNNY, BIKES, ffmpeg, footage

from mdmmt.media.decode import read_clips
from mdmmt.media.specs import AudioSpec, FrameSpec

X264 = "-c:v libx264 -preset ultrafast -bf 2 -pix_fmt yuv420p"
X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=error"
VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"
SINE = "-f lavfi -i sine=sample_rate=48000:duration=1.5"


COVER = "-i {a still picture} -map 0 -map 1 -c:v:%d copy -disposition:v:%d attached_pic"


def picture(
    size: str = "160x120", fps: str = "25", seconds: float = 1.5, source: str = "testsrc2"
) -> str:
    return f"-f lavfi -i {source}=size={size}:rate={fps}:duration={seconds}"


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
    return path


def write(path: Path, arguments: str) -> None:
    """Run the ffmpeg program; {name} in its arguments is the file of that name."""
    for name in FILES:
        if f"{{{name}}}" in arguments:
            arguments = arguments.replace(f"{{{name}}}", str(make(path.parent, name)))
    ffmpeg(*arguments.split(" "), path)


def program_frames(path, size, want: FrameSpec) -> np.ndarray:
    width, height = (round(side / min(size) * want.short_side / 2) * 2 for side in size)
    x, y = (round((side - want.crop) * 0.5) for side in (width, height))
    filters = f"fps={want.fps}:round=up,scale={width}:{height},crop={want.crop}:{want.crop}:{x}:{y}"
    raw = ffmpeg("-i", path, "-vf", filters, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, want.crop, want.crop, 3)


def our_frames(path, wants: dict[str, FrameSpec]) -> dict[str, np.ndarray]:
    clips = list(read_clips(path, wants))
    return {
        name: np.concatenate([clip.data for clip in clips if clip.name == name]) for name in wants
    }


@pytest.mark.filterwarnings("ignore:.*clock set anew.*damaged")  # packets are missing where it is
@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_of_the_ffmpeg_program(folder, name):
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


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if SINE in file.arguments])
def test_picture_and_sound_do_not_get_into_each_others_way(folder, name):
    """Some decoders keep frames until the end, which then must go where they belong."""
    wants = {"v": FrameSpec(32, 64, 64, 1), "s": AudioSpec(16000, 0.25, 0.25)}
    together = list(read_clips(make(folder, name), wants))
    for one, want in wants.items():
        alone = list(read_clips(make(folder, name), {one: want}))
        found = [clip for clip in together if clip.name == one]
        assert alone and len(found) == len(alone)
        assert all(np.array_equal(a.data, b.data) for a, b in zip(found, alone, strict=True))


@pytest.mark.parametrize(("name", "size"), [(BIG_BUCK_BUNNY, (1280, 720)), (BIKES, (640, 272))])
def test_so_are_those_of_real_footage_in_full_size(name, size):
    wants = {"VIDEO": FrameSpec(32, 224, 224, 1), "CLIP": FrameSpec(1, 228, 228, 1)}
    ours = our_frames(footage(name), wants)
    for expert, want in wants.items():
        assert np.array_equal(ours[expert], program_frames(footage(name), size, want))


def test_clips_are_runs_of_those_frames(folder):
    path = make(folder, "29.97 fps")
    theirs = program_frames(path, (160, 120), FrameSpec(32, 64, 64, 1))
    whole, rest = read_clips(path, {"v": FrameSpec(32, 64, 64, 32)})
    picks = np.ceil(np.linspace(32, len(theirs) - 1, 32)).astype(int)
    assert np.array_equal(whole.data, theirs[:32]) and np.array_equal(rest.data, theirs[picks])


@pytest.mark.parametrize(
    ("turn", "size"), [("", (160, 120)), ("-display_rotation 90 ", (120, 160))]
)
def test_frames_of_another_size_are_brought_to_that_of_the_first(folder, turn, size):
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


TONES = {"mono": "sin(700*t)", "stereo": "sin(700*t)|0.5*sin(900*t)"}
TONES["5.1"] = "|".join(f"0.{9 - i}*sin({500 + 90 * i}*t)" for i in range(6))
TONES["7.1"] = "|".join(f"0.{9 - i}*sin({500 + 90 * i}*t)" for i in range(8))
CHANNELS = {layout: tones.count("|") + 1 for layout, tones in TONES.items()}
ENCODERS = {".mkv": "pcm_s16le", ".wav": "pcm_f32le", ".mp4": "aac", ".flac": "flac"}


def sound(layout: str, rate_hz: int, seconds: float = 1.3) -> str:
    return f"-f lavfi -i aevalsrc={TONES[layout]}:c={layout}:s={rate_hz}:d={seconds}"


def program_sound(path, channels: int) -> np.ndarray:
    pcm = np.frombuffer(ffmpeg("-i", path, "-f", "s16le", "-"), "<i2").reshape(-1, channels)
    return (pcm.mean(axis=1) / 32768).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [8000, 44100, 48000])
@pytest.mark.parametrize("layout", TONES)
@pytest.mark.parametrize("suffix", ENCODERS)
def test_sound_is_the_mean_of_what_the_ffmpeg_program_makes(folder, suffix, layout, rate_hz):
    path = folder / f"{layout}-{rate_hz}{suffix}"
    write(path, f"{sound(layout, rate_hz)} -c:a {ENCODERS[suffix]}")
    theirs = program_sound(path, CHANNELS[layout])
    assert theirs.std() > 0.05
    clips = list(read_clips(path, {"s": AudioSpec(rate_hz, 0.25, 0.25)}))
    assert len(clips) == len(theirs) * 4 // rate_hz
    ours = np.concatenate([clip.data for clip in clips])
    assert ours.dtype == np.float32 and np.array_equal(ours, theirs[: len(ours)])
    clips = list(read_clips(path, {"s": AudioSpec(16000, 0.96, 0.96)}))
    assert [(clip.data.shape, clip.start_s, clip.end_s) for clip in clips] == [((15360,), 0, 0.96)]


def test_channels_may_be_many_and_without_a_place(folder):
    path = folder / "ten.mkv"
    tones = "|".join(f"0.5*sin({500 + 90 * i}*t)" for i in range(10))
    write(path, f"-f lavfi -i aevalsrc={tones}:s=16000:d=1 -c:a pcm_s16le")
    (clip,) = read_clips(path, {"s": AudioSpec(16000, 0.96, 0.96)})
    assert np.array_equal(clip.data, program_sound(path, 10)[:15360])


def test_late_sound_begins_with_its_first_sample(folder):
    path = folder / "late sound.mkv"
    write(path, f"{picture()} -itsoffset 0.6 {sound('mono', 16000)} {X264} -c:a flac")
    clips = list(read_clips(path, {"s": AudioSpec(16000, 0.25, 0.25)}))
    theirs = program_sound(path, 1)
    assert len(theirs) == 20800 and len(clips) == 5
    assert np.array_equal(np.concatenate([clip.data for clip in clips]), theirs[:20000])


def test_sound_may_change_its_rate_and_layout(folder):
    parts = [folder / "first.mp3", folder / "second.mp3"]
    write(parts[0], f"{sound('stereo', 44100)} -c:a libmp3lame -write_xing 0 -id3v2_version 0")
    write(parts[1], f"{sound('mono', 22050)} -c:a libmp3lame -write_xing 0 -id3v2_version 0")
    both = folder / "both.mp3"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    want = {"s": AudioSpec(16000, 0.1, 0.1)}
    first, second, joined = (
        np.concatenate([clip.data for clip in read_clips(path, want)]) for path in (*parts, both)
    )
    assert len(first) <= len(joined) - len(second) <= len(first) + 3200
    assert np.array_equal(joined[: len(first) - 1600], first[:-1600])
    heard = np.abs(np.fft.rfft(joined[-16000:]))
    assert round(heard.argmax() * 2 * np.pi) in range(690, 711)


def test_sound_shorter_than_a_window_gives_none(folder):
    path = folder / "short.mkv"
    write(path, f"{picture()} {sound('mono', 8000, 0.95)} {X264} -c:a pcm_s16le")
    wants = {"s": AudioSpec(16000, 0.96, 0.96), "v": FrameSpec(1, 64, 64, 1)}
    assert {clip.name for clip in read_clips(path, wants)} == {"v"}


@pytest.mark.parametrize(("suffix", "encoder"), [(".mp3", "libmp3lame"), (".m4a", "aac")])
def test_a_cover_is_no_video(folder, suffix, encoder):
    path = folder / f"cover{suffix}"
    write(path, f"{SINE} {COVER % (0, 0)} -c:a {encoder}")
    with av.open(str(path)) as container:
        assert container.streams.best("video") is not None
    wants = {"s": AudioSpec(16000, 0.5, 0.5), "v": FrameSpec(1, 64, 64, 1)}
    assert [clip.name for clip in read_clips(path, wants)] == ["s", "s", "s"]
    assert list(read_clips(path, {"v": wants["v"]})) == []

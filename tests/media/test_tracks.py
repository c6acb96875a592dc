"""Which tracks are taken: those that the ffmpeg program takes."""

import re
import subprocess
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from media import SINE, our_frames, picture, program_frames, write_with_ffmpeg

from mdmmt.media.decode import read_clips
from mdmmt.media.opening import open_media
from mdmmt.media.specs import AudioSpec, FrameSpec
from mdmmt.media.tracks import best_track

SMALL, LARGE = picture("80x60", seconds=1), picture("160x120", seconds=1)
LONG = picture("80x60", fps="10", seconds=9)
LATE = f"-itsoffset 8 {LARGE}"
X264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p"
COVER = "-c:v:%d mjpeg -pix_fmt:v:%d yuvj420p -disposition:v:%d attached_pic"
BOTH = "-map 0 -map 1"
UNMARKED = "-disposition:v 0 -disposition:a 0 -default_mode passthrough"


def sound(channels: int, seconds: int = 1) -> str:
    """Arguments of the ffmpeg program for a sound."""
    tones = "|".join(["0.1*sin(3000*t)"] * channels)
    return f"-f lavfi -i aevalsrc={tones}:s=48000:d={seconds}"


FILES = {
    "the larger.mkv": f"{SMALL} {LARGE} {BOTH} {X264} {UNMARKED}",
    "the larger.ts": f"{SMALL} {LARGE} {BOTH} {X264}",
    "the larger.avi": f"{SMALL} {LARGE} {BOTH} -c:v mpeg4",
    "the larger.mpg": f"{SMALL} {LARGE} {BOTH} -c:v mpeg2video",
    "the first of two alike.ts": f"{LARGE} {LARGE} {BOTH} {X264} -b:v:1 2M",
    "marked as default.mkv": f"{SMALL} {LARGE} {BOTH} {X264} -disposition:v:0 default",
    "marked as default.mp4": f"{SMALL} {LARGE} {BOTH} {X264}",
    "with data.mkv": f"{LONG} {LATE} {BOTH} {X264} {UNMARKED}",
    "with data.ts": f"{LONG} {LATE} {BOTH} {X264}",
    "the other is empty.mkv": f"{LONG} {LATE} {BOTH} -t 2 {X264} {UNMARKED}",
    "more channels.mkv": f"{sound(1)} {sound(2)} {BOTH} -c:a aac {UNMARKED}",
    "more channels.ts": f"{sound(1)} {sound(2)} {SMALL} {BOTH} -map 2 -c:a aac {X264}",
    "more channels, for the blind.mkv": f"{sound(1)} {sound(2)} {BOTH} -c:a aac {UNMARKED} "
    "-disposition:a:1 visual_impaired",
    "sound with data.mkv": f"{sound(1, 9)} -itsoffset 8 {sound(2)} {BOTH} -c:a aac {UNMARKED}",
    "first sound.mp4": f"{sound(2)} {sound(6)} {SMALL} {BOTH} -map 2 -c:a aac {X264}",
    "no cover.mp4": f"{SMALL} {LARGE} {BOTH} -frames:v:1 1 {X264} {COVER % (1, 1, 1)}",
    "no cover, though first.mp4": f"{LARGE} {SMALL} {BOTH} -frames:v:0 1 {X264} "
    f"{COVER % (0, 0, 0)}+default -disposition:v:1 0",
    "no cover.mkv": f"{SMALL} {LARGE} {BOTH} -frames:v:1 1 {X264} {COVER % (1, 1, 1)}",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_best_track_is_that_of_the_ffmpeg_program(tmp_path, name):
    path = tmp_path / name
    write_with_ffmpeg(path, FILES[name])
    with open_media(path) as container:
        tracks = [best_track(container, path, kind) for kind in ("video", "audio")]
        indexes = [track.index for track in tracks if track is not None]
    assert indexes == program_tracks(path)


def program_tracks(path: Path) -> list[int]:
    """The numbers of the tracks that the ffmpeg program takes."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-i", path, "-f", "null", "-"]
    told = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True).stderr
    return [int(number) for number in re.findall(r"Stream #0:(\d+) -> ", told)]


@pytest.mark.slow
def test_best_track_of_an_animated_avif_is_the_film(tmp_path):
    """The program takes the still picture that stands for it, and the film if it is told to."""
    path, film = tmp_path / "a.avif", tmp_path / "a.mp4"
    write_with_ffmpeg(path, f"{picture(fps='10')} -c:v libaom-av1 -cpu-used 8")
    write_with_ffmpeg(film, f"-i {path} -map 0:v:1 -c copy")
    assert program_tracks(path) == [0]
    want = FrameSpec(10, 64, 64, 1)
    (frames,) = our_frames(path, {"v": want}).values()
    np.testing.assert_array_equal(frames, program_frames(film, (160, 120), want))
    assert len(frames) == 15 and len({frame.tobytes() for frame in frames}) == 15
    write_with_ffmpeg(path, f"{picture(fps='10')} -frames:v 1 -c:v libaom-av1 -cpu-used 8")
    with pytest.warns(UserWarning, match="is a still picture"):
        assert our_frames(path, {"v": want})["v"].any()


@pytest.mark.parametrize(("suffix", "encoder"), [(".mp3", "libmp3lame"), (".m4a", "aac")])
def test_best_track_takes_no_cover_for_a_video(tmp_path, suffix, encoder):
    path, cover = tmp_path / f"cover{suffix}", tmp_path / "cover.jpg"
    write_with_ffmpeg(cover, f"{LARGE} -frames:v 1 -pix_fmt yuvj420p")
    marked = "-c:v copy -disposition:v attached_pic"
    write_with_ffmpeg(path, f"{SINE} -i {cover} {BOTH} {marked} -c:a {encoder}")
    with av.open(str(path)) as container:
        assert container.streams.best("video") is not None
    wants = {"s": AudioSpec(16000, 0.5, 0.5), "v": FrameSpec(1, 64, 64, 1)}
    assert [clip.name for clip in read_clips(path, wants)] == ["s", "s", "s"]
    assert list(read_clips(path, {"v": wants["v"]})) == []

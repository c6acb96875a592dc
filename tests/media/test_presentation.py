"""Frames as a file wants them shown: turned, mirrored and cropped as by the ffmpeg program."""

import itertools
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from media import X264, ffmpeg, our_frames, picture, program_frames, write_with_ffmpeg
from PIL import Image

from mdmmt.media.opening import open_media
from mdmmt.media.presentation import Crop
from mdmmt.media.specs import FrameSpec
from mdmmt.media.stills import stills_at

SIZE = (160, 120)
FRAMES = FrameSpec(fps=5, short_side=64, crop=64, clip_frames=1)
UNIT = 65536  # 1.0 in a display matrix
TURNS = {
    "mirrored": "-display_hflip",
    "upside down": "-display_vflip",
    "a quarter, mirrored": "-display_rotation 90 -display_hflip",
    "a quarter, upside down": "-display_rotation 90 -display_vflip",
    "three quarters, mirrored": "-display_rotation 270 -display_hflip",
    "half, mirrored": "-display_rotation 180 -display_hflip",
    "30 degrees": "-display_rotation 30",
    "-100.5 degrees, mirrored": "-display_rotation -100.5 -display_hflip",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A film without a display matrix."""
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    write_with_ffmpeg(path, f"{picture(seconds=0.4)} {X264}")
    return path


def check_frames(path: Path, size: tuple[int, int]) -> None:
    """Frames are those of the ffmpeg program."""
    theirs = program_frames(path, size, FRAMES)
    assert len(theirs) and np.array_equal(our_frames(path, {"f": FRAMES})["f"], theirs)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("turn", TURNS)
def test_presentation_turns_frames_as_the_ffmpeg_program_does(plain, tmp_path, turn, suffix):
    path = tmp_path / f"turned{suffix}"
    write_with_ffmpeg(path, f"{TURNS[turn]} -i {plain} -c copy")
    check_frames(path, SIZE[::-1] if "quarter" in turn else SIZE)


def matrices() -> list[tuple[int, ...]]:
    """The first two columns of display matrices: all of 0 and 1, and many angles and mirrors."""
    result = [tuple(UNIT * one for one in all_) for all_ in itertools.product((-1, 0, 1), repeat=4)]
    for degrees in (0.6, 1, 1.4, 45, 89.4, 90.6, 179.4, 181.2, 269, 271, 359.05, 359.2):
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        for x, y in ((1, 1), (-1, 1), (2, 0.5)):
            turned = (cosine * x, sine * y, -sine * x, cosine * y)
            result.append(tuple(round(UNIT * one) for one in turned))
    return result


@pytest.mark.slow
@pytest.mark.parametrize("matrix", matrices(), ids=str)
def test_presentation_follows_any_display_matrix(plain, tmp_path, matrix):
    a, b, c, d = matrix
    upright = struct.pack(">9i", UNIT, 0, 0, 0, UNIT, 0, 0, 0, 1 << 30)
    content = plain.read_bytes()
    track = content.index(b"tkhd")
    path = tmp_path / "any.mp4"
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:track] + content[track:].replace(upright, turned, 1))
    still = np.asarray(stills_at(path, [0.0])[0])
    theirs = ffmpeg("-i", path, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    assert np.array_equal(still.ravel(), np.frombuffer(theirs, np.uint8))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_presentation_turns_pictures_as_exif_says(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(rgb).save(path, exif=exif, quality=95)
    check_frames(path, SIZE if orientation < 5 else SIZE[::-1])


def cropped_matroska(path: Path, crop: Crop, pixel_format: str = "yuv420p") -> None:
    """Write a film whose container cuts off up to 127 pixels of each side."""
    oblong = f"{picture(seconds=0.4)} -vf setsar=4/3 -c:v ffv1 -pix_fmt {pixel_format}"
    write_with_ffmpeg(path, f"{oblong} -write_crc32 0")
    content = path.read_bytes()
    # The crop takes the place of elements that tell the size on the screen, and of the colours.
    elements = bytes.fromhex("54b08110 54ba8109 54b28103 55b08455b98101")
    top, bottom, left, right = (one.to_bytes(1, "big") for one in crop)
    cutting = b"\x54\xbb\x81%b\x54\xaa\x81%b\x54\xcc\x81%b\x54\xdd\x81%b\xec\x81\x00"
    assert content.count(elements) == 1
    path.write_bytes(content.replace(elements, cutting % (top, bottom, left, right)))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize("crop", [(15, 15, 0, 0), (0, 0, 6, 10), (15, 1, 5, 7)])
def test_crop_of_stream_is_that_of_the_container(tmp_path, crop, suffix):
    crop = Crop(*crop)
    path = tmp_path / "cropped.mkv"
    cropped_matroska(path, crop)
    if suffix != path.suffix:
        write_with_ffmpeg(path.with_suffix(suffix), f"-i {path} -c copy -strict -2")
        path = path.with_suffix(suffix)
    with open_media(path) as container:
        assert Crop.of_stream(container.streams.video[0]) == crop
    size = 160 - crop.left - crop.right, 120 - crop.top - crop.bottom
    check_frames(path, size)
    assert stills_at(path, [0.0])[0].size == size


@pytest.mark.parametrize(
    ("pixel_format", "size"),
    [("yuv420p", (154, 118)), ("yuv422p", (154, 119)), ("yuv444p", (155, 119))],
)
def test_crop_keeps_to_whole_pixels_of_colour(tmp_path, pixel_format, size):
    path = tmp_path / "cropped.mkv"
    cropped_matroska(path, Crop(1, 0, 3, 2), pixel_format)
    check_frames(path, size)
    assert stills_at(path, [0.0])[0].size == size


def test_presentation_crops_before_it_turns(tmp_path):
    cropped_matroska(tmp_path / "cropped.mkv", Crop(15, 15, 0, 10))
    path = tmp_path / "both.mp4"
    write_with_ffmpeg(
        path, f"-display_rotation 90 -display_hflip -i {tmp_path / 'cropped.mkv'} -c copy"
    )
    check_frames(path, (90, 150))


def test_crop_that_leaves_nothing_is_ignored(tmp_path):
    path = tmp_path / "cropped.mkv"
    cropped_matroska(path, Crop(60, 59, 0, 0))
    assert our_frames(path, {"f": FRAMES})["f"].shape == (2, 64, 64, 3)


@pytest.mark.parametrize("encoder", ["h264", "hevc"])
@pytest.mark.parametrize("left", [2, 6, 30])
def test_presentation_drops_the_left_edge_that_the_stream_cuts_off(tmp_path, encoder, left):
    options = X264 if encoder == "h264" else "-c:v libx265 -x265-params log-level=error"
    whole, path = tmp_path / "whole.mp4", tmp_path / "cropped.mp4"
    write_with_ffmpeg(whole, f"{picture('160x128', seconds=0.4)} {options}")
    bounds = f"crop_left={left}:crop_right=4:crop_top=2:crop_bottom=8"
    write_with_ffmpeg(path, f"-i {whole} -c copy -bsf:v {encoder}_metadata={bounds}")
    check_frames(path, (156 - left, 118))

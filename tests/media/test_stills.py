"""Single pictures of a video: the right ones, and upright."""

import av
import numpy as np
import pytest
from media import BIKES, ffmpeg, flat, footage, write_video

from mdmmt.errors import InputError
from mdmmt.media import stills
from mdmmt.media.stills import has_sound, stills_at


def grey(picture) -> int:
    return round(np.asarray(picture).mean())


@pytest.mark.parametrize("late_s", [0.0, 3.0])
def test_stills_at_shows_the_picture_of_each_time(tmp_path, late_s):
    values = list(range(10, 240, 10))
    path = write_video(tmp_path / "a.mkv", flat(values), fps=4, video_start_s=late_s)
    for i in (0, 1, 7, 22):
        for time_s in (i / 4, i / 4 + 0.2):
            (picture,) = stills_at(path, [time_s])
            assert grey(picture) == values[i]
    assert [grey(one) for one in stills_at(path, [5.0, 0.0, 100.0])] == [210, 10, 230]


def test_stills_at_finds_pictures_between_key_frames_of_footage():
    with av.open(str(footage(BIKES))) as container:
        frames = {frame.time: frame for frame in container.decode(video=0)}
    times = list(frames)
    for i in (3, 77, 249):
        (picture,) = stills_at(footage(BIKES), [times[i] + 0.01])
        assert np.array_equal(np.asarray(picture), frames[times[i]].to_ndarray(format="rgb24"))


def test_stills_at_turns_pictures_upright(tmp_path):
    frames = np.zeros((4, 64, 96, 3), dtype=np.uint8)
    frames[:, :, :48] = 255  # bright on the left
    plain = write_video(tmp_path / "plain.mp4", frames)
    bright = {0: "left", 90: "bottom", 180: "right", 270: "top"}
    for degrees, side in bright.items():
        turned = tmp_path / f"{degrees}.mp4"
        ffmpeg("-display_rotation", degrees, "-i", plain, "-c", "copy", turned)
        picture = np.asarray(stills_at(turned, [0.0])[0]).mean(axis=2)
        height, width = picture.shape
        assert (width > height) == (degrees in (0, 180))
        half = {
            "left": picture[:, : width // 2],
            "right": picture[:, width // 2 :],
            "top": picture[: height // 2],
            "bottom": picture[height // 2 :],
        }
        assert half[side].mean() > 200


@pytest.fixture
def sound_file(tmp_path):
    return write_video(tmp_path / "sound.mkv", sound=np.zeros((1, 16000)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"no picture can be read from .*a\.mkv"),
        (b"", r"a\.mkv' is empty"),
        (b"no video at all", r"no picture can be read from .*a\.mkv"),
    ],
)
def test_stills_at_names_the_file_without_pictures(tmp_path, content, words):
    path = tmp_path / "a.mkv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        stills_at(path, [0.0])
    assert not has_sound(path)


def test_stills_at_refuses_sound_alone(sound_file):
    with pytest.raises(InputError, match=r"no picture can be read from .*sound\.mkv"):
        stills_at(sound_file, [0.0])


def test_has_sound_tells_sound_from_pictures(sound_file, tmp_path):
    assert has_sound(sound_file)
    assert not has_sound(write_video(tmp_path / "silent.mkv", flat([1, 2, 3])))


def blinking(lit: list[bool]) -> np.ndarray:
    """Noisy dark frames, with a blue square that is hardly lighter in those that are lit."""
    noise = np.random.default_rng(0).normal(60, 6, (len(lit), 96, 96, 1))
    frames = np.repeat(noise, 3, axis=3).clip(0, 255).astype(np.uint8)
    for frame, on in zip(frames, lit, strict=True):
        if on:
            frame[40:60, 40:60] = (30, 50, 220)
    return frames


def has_square(picture) -> bool:
    return np.asarray(picture)[45:55, 45:55, 2].mean() > 150


def test_stills_at_gives_the_next_picture_that_shows_something(tmp_path):
    lit = [False] * 3 + [True] * 3 + [False] * 3 + [True] + [False] * 6
    path = write_video(tmp_path / "a.mkv", blinking(lit), fps=4)
    pictures = stills_at(path, [0.0, 0.5, 1.0, 1.5, 2.0, 2.25])
    assert all(map(has_square, pictures))


def test_stills_at_looks_no_further_than_a_second(tmp_path):
    lit = [False] * 6 + [True] * 2
    path = write_video(tmp_path / "a.mkv", blinking(lit), fps=4)
    assert [has_square(one) for one in stills_at(path, [0.0, 0.25, 0.5])] == [False, False, True]


def test_stills_at_keeps_the_empty_picture_of_its_time_if_all_are_empty(tmp_path):
    path = write_video(tmp_path / "a.mkv", flat([0, 20, 40, 60, 80, 100, 120, 140]), fps=4)
    assert [grey(one) for one in stills_at(path, [0.0, 0.5, 1.75])] == [0, 40, 140]


@pytest.mark.parametrize("late_s", [0.0, 3.0])
def test_stills_at_takes_near_times_in_one_pass(tmp_path, monkeypatch, late_s):
    values = [10 + 3 * n for n in range(60)]
    path = write_video(tmp_path / "a.mkv", flat(values), fps=10, video_start_s=late_s)
    sought = []
    is_near = stills._Frames.is_near

    def watched(self, time_s):
        near = is_near(self, time_s)
        sought.extend([] if near else [time_s])
        return near

    monkeypatch.setattr(stills._Frames, "is_near", watched)
    monkeypatch.setattr(stills, "SEARCHED_S", 0.0)  # all pictures are of one colour
    times_s = [0.02, 0.04, 0.12, 0.12, 0.9, 2.8, 5.9, 9.0, 1.0, 1.1]
    shown = [grey(one) for one in stills_at(path, times_s)]
    assert shown == [values[int(10 * min(time_s, 5.91))] for time_s in times_s]
    assert sought == [0.02, 5.9, 9.0, 1.0]  # first, far ahead, and back


@pytest.mark.parametrize(
    ("name", "codec"), [("a.swf", "flv1"), ("a.h264", "libx264"), ("a.ogg", "libtheora")]
)
def test_stills_at_reads_formats_without_seeking_from_the_beginning(tmp_path, name, codec):
    """The first one cannot seek, and the second one has no times either."""
    path = tmp_path / name
    original = write_video(tmp_path / "a.mkv", flat([4 * i for i in range(60)]), fps=25)
    ffmpeg("-i", original, "-vcodec", codec, path)
    times_s = [0.0, 0.4, 0.44, 9.0, 0.2]
    shades = [np.asarray(picture).mean() for picture in stills_at(path, times_s)]
    assert shades == pytest.approx([0, 40, 44, 236, 20], abs=6)

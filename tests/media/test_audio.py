"""Windows of sound: the mean of what the ffmpeg program makes of the same files, resampled."""

import numpy as np
import pytest
from media import X264, ffmpeg, picture, write_video, write_with_ffmpeg

from mdmmt.media import audio
from mdmmt.media.decode import read_clips
from mdmmt.media.specs import AudioSpec, FrameSpec

SOUND = AudioSpec(sample_rate_hz=16000, window_s=0.5, hop_s=0.5)


def test_window_cutter_takes_the_mean_of_the_channels(tmp_path):
    t = np.arange(32000) / 16000
    left = 0.6 * np.sin(2 * np.pi * 400 * t)
    path = write_video(tmp_path / "a.mkv", sound=np.stack([left, np.zeros_like(left)]))
    clips = list(read_clips(path, {"s": SOUND}))
    assert [(c.start_s, c.end_s) for c in clips] == [(0, 0.5), (0.5, 1), (1, 1.5), (1.5, 2)]
    assert all(c.data.shape == (8000,) and c.data.dtype == np.float32 for c in clips)
    np.testing.assert_allclose(np.concatenate([c.data for c in clips]), left / 2, atol=1e-4)


def test_window_cutter_resamples_and_overlaps_windows(tmp_path):
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


@pytest.mark.parametrize("rate_hz", [16000, 22050, 44100])
def test_window_cutter_gives_the_same_windows_whatever_it_resamples_at_once(
    tmp_path, monkeypatch, rate_hz
):
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 3 * rate_hz))
    path = write_video(tmp_path / "a.mkv", sound=noise, sample_rate_hz=rate_hz)
    clips = list(read_clips(path, {"s": SOUND}))
    assert len(clips) == 6
    for piece in (1, 5000, 10**9):
        monkeypatch.setattr(audio, "PIECE", piece)
        others = list(read_clips(path, {"s": SOUND}))
        assert [clip[2:] for clip in others] == [clip[2:] for clip in clips]
        for clip, other in zip(clips, others, strict=True):
            np.testing.assert_array_equal(other.data, clip.data)


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


@pytest.mark.parametrize(
    "rate_hz",
    [
        pytest.param(8000, marks=pytest.mark.slow),
        44100,
        pytest.param(48000, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("layout", TONES)
@pytest.mark.parametrize("suffix", ENCODERS)
def test_window_cutter_gives_the_mean_of_the_ffmpeg_program(tmp_path, suffix, layout, rate_hz):
    path = tmp_path / f"{layout}-{rate_hz}{suffix}"
    write_with_ffmpeg(path, f"{sound(layout, rate_hz)} -c:a {ENCODERS[suffix]}")
    theirs = program_sound(path, CHANNELS[layout])
    assert theirs.std() > 0.05
    clips = list(read_clips(path, {"s": AudioSpec(rate_hz, 0.25, 0.25)}))
    assert len(clips) == len(theirs) * 4 // rate_hz
    ours = np.concatenate([clip.data for clip in clips])
    assert ours.dtype == np.float32 and np.array_equal(ours, theirs[: len(ours)])
    clips = list(read_clips(path, {"s": AudioSpec(16000, 0.96, 0.96)}))
    assert [(clip.data.shape, clip.start_s, clip.end_s) for clip in clips] == [((15360,), 0, 0.96)]


def test_window_cutter_takes_many_channels_without_a_place(tmp_path):
    path = tmp_path / "ten.mkv"
    tones = "|".join(f"0.5*sin({500 + 90 * i}*t)" for i in range(10))
    write_with_ffmpeg(path, f"-f lavfi -i aevalsrc={tones}:s=16000:d=1 -c:a pcm_s16le")
    (clip,) = read_clips(path, {"s": AudioSpec(16000, 0.96, 0.96)})
    assert np.array_equal(clip.data, program_sound(path, 10)[:15360])


def test_window_cutter_begins_late_sound_with_its_first_sample(tmp_path):
    path = tmp_path / "late sound.mkv"
    write_with_ffmpeg(path, f"{picture()} -itsoffset 0.6 {sound('mono', 16000)} {X264} -c:a flac")
    clips = list(read_clips(path, {"s": AudioSpec(16000, 0.25, 0.25)}))
    theirs = program_sound(path, 1)
    assert len(theirs) == 20800 and len(clips) == 5
    assert np.array_equal(np.concatenate([clip.data for clip in clips]), theirs[:20000])


def test_window_cutter_follows_a_change_of_rate_and_layout(tmp_path):
    parts = [tmp_path / "first.mp3", tmp_path / "second.mp3"]
    mp3 = "-c:a libmp3lame -write_xing 0 -id3v2_version 0"
    write_with_ffmpeg(parts[0], f"{sound('stereo', 44100)} {mp3}")
    write_with_ffmpeg(parts[1], f"{sound('mono', 22050)} {mp3}")
    both = tmp_path / "both.mp3"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    want = {"s": AudioSpec(16000, 0.1, 0.1)}
    first, second, joined = (
        np.concatenate([clip.data for clip in read_clips(path, want)]) for path in (*parts, both)
    )
    assert len(first) <= len(joined) - len(second) <= len(first) + 3200
    assert np.array_equal(joined[: len(first) - 1600], first[:-1600])
    heard = np.abs(np.fft.rfft(joined[-16000:]))
    assert round(heard.argmax() * 2 * np.pi) in range(690, 711)


def test_window_cutter_drops_sound_shorter_than_a_window(tmp_path):
    path = tmp_path / "short.mkv"
    write_with_ffmpeg(path, f"{picture()} {sound('mono', 8000, 0.95)} {X264} -c:a pcm_s16le")
    wants = {"s": AudioSpec(16000, 0.96, 0.96), "v": FrameSpec(1, 64, 64, 1)}
    assert {clip.name for clip in read_clips(path, wants)} == {"v"}

"""Files whose headers or time stamps ask for too much are told, and cost next to nothing."""

import pickle
import struct
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from media import X264, ffmpeg, flat, picture, write_video

import mdmmt
from mdmmt.batch.extract import extract_files
from mdmmt.cli import main
from mdmmt.errors import InputError
from mdmmt.features.extraction import extract
from mdmmt.media.decode import read_clips
from mdmmt.media.limits import MAX_GAP_S, MAX_STREAMS
from mdmmt.media.specs import AudioSpec, FrameSpec
from mdmmt.media.stills import stills_at

SPECS = {
    "fast": FrameSpec(32, 64, 64, 32),
    "slow": FrameSpec(1, 64, 64, 1),
    "sound": AudioSpec(16000, 0.96, 0.96),
}
READ = """
import sys
from mdmmt.errors import InputError
from mdmmt.media.decode import read_clips
from mdmmt.media.specs import AudioSpec, FrameSpec
def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
specs = {"v": FrameSpec(32, 64, 64, 32), "s": AudioSpec(16000, 0.96, 0.96)}
before = peak_mb()
for path in sys.argv[1:]:
    try:
        for _ in read_clips(path, specs):
            pass
    except InputError:
        pass
print(peak_mb() - before)
"""


def write_gif(path: Path, width: int, height: int, delays_cs: list[int]) -> Path:
    content = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    for delay_cs in delays_cs:
        content += b"\x21\xf9\x04\x00" + struct.pack("<H", delay_cs) + b"\0\0"
        content += b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    path.write_bytes(content + b"\x3b")
    return path


def write_wav(path: Path, rate_hz: int, samples: int = 2000) -> Path:
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate_hz, 2 * rate_hz & 0xFFFFFFFF, 2, 16)
    data = struct.pack("<I", 2 * samples) + b"\1\0" * samples
    riff = b"WAVEfmt " + form + b"data" + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(riff)) + riff)
    return path


def write_streams(path: Path, number: int) -> Path:
    """Write a file of so many streams of sound, each of one second of silence."""
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
    frame.sample_rate = 16000
    with av.open(str(path), "w") as container:
        codec = "mp2" if path.suffix == ".ts" else "pcm_s16le"
        streams = [container.add_stream(codec, rate=16000) for _ in range(number)]
        for stream in streams:
            for packet in stream.encode(frame) + stream.encode(None):
                container.mux(packet)
    return path


def extra_mb(*paths: Path) -> int:
    return int(subprocess.check_output([sys.executable, "-c", READ, *paths]))


@pytest.mark.parametrize("rate_hz", [1, 999, 384_001, 8_000_009, 9_000_001, 2**31 - 1])
def test_read_clips_refuses_sample_rates_out_of_bounds(tmp_path, rate_hz):
    with pytest.raises(InputError, match=rf"odd\.wav.*{rate_hz} samples.*1000 to 384000"):
        list(read_clips(write_wav(tmp_path / "odd.wav", rate_hz), SPECS))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4"])
def test_read_clips_and_stills_at_refuse_a_file_of_too_many_streams(tmp_path, suffix):
    path = write_streams(tmp_path / f"many{suffix}", MAX_STREAMS + 1)
    for read in (lambda: list(read_clips(path, SPECS)), lambda: stills_at(path, [0.0])):
        with pytest.raises(InputError, match=rf"many\{suffix}.* more than {MAX_STREAMS} streams"):
            read()


@pytest.mark.slow
def test_read_clips_takes_a_file_of_as_many_streams_as_it_may_have(tmp_path):
    assert list(read_clips(write_streams(tmp_path / "many.mkv", MAX_STREAMS), SPECS))


@pytest.mark.parametrize("size", [(16000, 16000), (65000, 1), (1, 65000), (9000, 8000)])
def test_read_clips_refuses_pictures_out_of_bounds(tmp_path, size):
    path = write_gif(tmp_path / "large.gif", *size, [10] * 3)
    with pytest.raises(InputError, match=rf"large\.gif.*{size[0]} x {size[1]} pixels, expected"):
        list(read_clips(path, SPECS))


@pytest.mark.parametrize("size", [(16000, 16000), (65000, 1)])
def test_stills_at_refuses_pictures_out_of_bounds(tmp_path, size):
    path = write_gif(tmp_path / "large.gif", *size, [10] * 3)
    with pytest.raises(InputError, match=rf"large\.gif.*{size[0]} x {size[1]} pixels, expected"):
        stills_at(path, [0.0])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_read_clips_takes_no_memory_by_header(tmp_path):
    large = write_gif(tmp_path / "large.gif", 16000, 16000, [10] * 3)
    assert extra_mb(large, write_wav(tmp_path / "fast.wav", 8_000_009)) < 50


def test_read_clips_jumps_over_long_delays_and_keeps_times(tmp_path):
    path = write_gif(tmp_path / "slow.gif", 64, 64, [65535] * 20)
    began_s = time.monotonic()
    with pytest.warns(UserWarning, match=rf"655 seconds, and at most {MAX_GAP_S}"):
        clips = list(read_clips(path, {"slow": SPECS["slow"]}))
    assert time.monotonic() - began_s < 20
    assert len(clips) <= 20 * (MAX_GAP_S + 1)
    starts_s = {clip.start_s for clip in clips}
    assert {0.0, 656.0, 1311.0} <= starts_s and 400.0 not in starts_s


@pytest.mark.parametrize("gap_s", [1000, 10**6, 10**9])
def test_read_clips_jumps_over_a_gap_and_keeps_times(tmp_path, gap_s):
    path = tmp_path / "gap.mkv"
    write_video(tmp_path / "first.mkv", flat([50] * 20), 10)
    with av.open(str(tmp_path / "first.mkv")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for k, packet in enumerate(p for p in source.demux() if p.size):
            if k >= 10:
                shift = round(gap_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = stream
            target.mux(packet)
    with pytest.warns(UserWarning, match=r"gap\.mkv.* is damaged .*seconds"):
        clips = list(read_clips(path, {"f": FrameSpec(10, 64, 64, 5)}))
    assert [clip.start_s for clip in clips[:2]] == [0, 0.5]
    assert clips[2].start_s == pytest.approx(gap_s + 1, abs=0.5) and len(clips) <= 5
    assert all(np.abs(clip.data.astype(int) - 50).max() <= 1 for clip in clips)


def test_read_clips_fills_a_gap_within_the_bound(tmp_path):
    path = write_gif(tmp_path / "slides.gif", 64, 64, [100 * (MAX_GAP_S - 1), 100])
    assert len(list(read_clips(path, {"slow": SPECS["slow"]}))) == MAX_GAP_S


def test_read_clips_keeps_to_the_time_limit(tmp_path):
    path = tmp_path / "film.mp4"
    ffmpeg(*f"{picture()} {X264}".split(" "), path)
    with pytest.raises(InputError, match=r"film\.mp4.* more than 1e-06 seconds"):
        list(read_clips(path, SPECS, time_limit_s=1e-6))


@pytest.mark.parametrize("limit_s", [0, -1.0, float("nan"), "60", None])
def test_time_limits_are_checked_before_any_work(tmp_path, limit_s):
    for call in (
        lambda: extract(tmp_path / "none.mp4", ["frame"], time_limit_s=limit_s),
        lambda: mdmmt.load("sample", time_limit_s=limit_s),
        lambda: extract_files({}, {}, time_limit_s=limit_s),
    ):
        with pytest.raises(InputError, match=r"time limit of a file is .*, expected seconds above"):
            call()


def test_a_model_and_the_operator_keep_to_the_time_limit(short):
    options = {"device": "cpu", "time_limit_s": 1e-6}
    model = pickle.loads(pickle.dumps(mdmmt.load("sample", **options)))
    operator = mdmmt.MDMMT("video", "sample", **options)
    for call in (model.encode_video, model.encode_segments, model.extract, operator):
        with pytest.raises(InputError, match="more than 1e-06 seconds"):
            call(short)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["extract", "--experts=frame", "--out={folder}"],
        ["embed", "--weights=sample", "--out={folder}/a.npy"],
        ["embed", "--weights=sample", "--segments=windows", "--out={folder}/a.jsonl"],
        ["index", "build", "--weights=sample", "--db={folder}/a.db"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_commands_keep_to_the_time_limit(short, tmp_path, command, capsys):
    command = [part.format(folder=tmp_path) for part in command] + [str(short)]
    assert main([*command, "--time-limit=1e-6"]) == 1
    assert f"{str(short)!r} takes more than 1e-06 seconds" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--time-limit=nan"])
    assert "'nan', expected a number of seconds above 0" in capsys.readouterr().err
    assert main([*command, "--time-limit=3600"]) == 0


def test_read_clips_names_the_file_of_any_error(tmp_path, monkeypatch):
    path = write_gif(tmp_path / "odd.gif", 64, 64, [10])

    def fail(*_):
        raise IndexError("list index out of range")

    monkeypatch.setattr("mdmmt.media.decode.FrameCutter.push", fail)
    with pytest.raises(InputError, match=r"odd\.gif"):
        list(read_clips(path, SPECS))

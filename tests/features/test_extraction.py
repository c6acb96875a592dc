"""Experts on whole files: features with their seconds, and memory that does not grow."""

import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import BIG_BUCK_BUNNY, BIKES, ffmpeg, flat, footage, moved, write_video

from mdmmt.errors import InputError
from mdmmt.experts import LIGHT_EXPERTS, Expert, FrameSpec, expert_classes
from mdmmt.features import extraction
from mdmmt.features.extraction import BATCH_SIZE, BATCHES_AHEAD, extract
from mdmmt.features.segments import select
from mdmmt.media.specs import Clip

EXPERTS = expert_classes(LIGHT_EXPERTS)

# In a process of its own, whose peak is that of the reading. Linux passes `ru_maxrss` on from the
# parent, so it would be that of the tests; VmHWM begins anew.
READ = """
import json, sys
import numpy as np
from mdmmt.experts import AudioSpec, Expert, FrameSpec
from mdmmt.features import extract

class Tiny(Expert):
    dim = 1

    def __init__(self, name, spec):
        self.name, self.spec = name, spec

    def features(self, clips):
        return np.array([[clip.mean()] for clip in clips], dtype=np.float32)

experts = [
    Tiny("fast", FrameSpec(32, 112, 112, 32)),
    Tiny("slow", FrameSpec(1, 112, 112, 1)),
    Tiny("sound", AudioSpec(SAMPLE_RATE_HZ, 0.96, 0.96)),
]
found = extract(sys.argv[1], {expert.name: expert for expert in experts})
with open("/proc/self/status") as status:
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
print(json.dumps({"kib": int(peak), **{name: len(one) for name, one in found.items()}}))
"""

PICTURE = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=10"
SOUND = "-f lavfi -i sine=sample_rate={}:duration=10"


def test_extract_gives_features_with_their_seconds(tmp_path):
    frames = np.concatenate([moved(1, 0)] * 4)
    t = np.arange(64000) / 16000
    path = write_video(tmp_path / "a.mkv", frames, 12, 0.3 * np.sin(2 * np.pi * 500 * t)[None])
    found = extract(path, LIGHT_EXPERTS)
    assert tuple(found) == LIGHT_EXPERTS
    lengths_s = {"frame": 1 / 4, "motion": 1.0, "sound": 0.5}
    for name, one in found.items():
        features, times = one.values, one.times_s
        assert features.shape == (len(times), EXPERTS[name].dim) and features.dtype == np.float32
        starts = np.arange(len(times)) * lengths_s[name]
        np.testing.assert_allclose(times, np.stack([starts, starts + lengths_s[name]], 1))
    assert len(found["frame"]) >= BATCH_SIZE  # more than one batch, joined in order
    alone = extract(path, ["motion"])["motion"].values
    np.testing.assert_array_equal(alone, found["motion"].values)


def test_extract_leaves_out_experts_without_features(tmp_path):
    silent = write_video(tmp_path / "silent.mkv", flat([5, 5, 5]))
    short = write_video(tmp_path / "short.mkv", flat([5] * 5), 10, np.zeros((1, 1000)))
    assert list(extract(silent, ["sound", "frame"])) == ["frame"]
    assert list(extract(short, ["sound", "frame"])) == ["frame"]
    assert extract(silent, ["sound"]) == {}


def test_extract_refuses_an_unknown_expert_by_name(tmp_path):
    with pytest.raises(InputError, match=r"speech.*frame, motion, sound"):
        extract(tmp_path / "a.mp4", ["frame", "speech"])


@pytest.mark.parametrize("size", [(16, 400), (300, 18), (2, 2)])
@pytest.mark.parametrize("count", [1, 7])
def test_extract_takes_any_size_and_length(tmp_path, size, count):
    frames = np.random.default_rng(0).integers(0, 255, (count, *size, 3), dtype=np.uint8)
    found = extract(write_video(tmp_path / "a.mkv", frames), ["frame", "motion"])
    assert set(found) == {"frame", "motion"}
    assert all(np.isfinite(one.values).all() for one in found.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, seconds, experts",
    [(BIG_BUCK_BUNNY, 5.3, {"frame", "motion", "sound"}), (BIKES, 10.0, {"frame", "motion"})],
)
def test_extract_describes_real_footage(name, seconds, experts):
    found = extract(footage(name), LIGHT_EXPERTS)
    assert set(found) == experts
    for one in found.values():
        features, times = one.values, one.times_s
        assert np.isfinite(features).all()
        assert np.abs(features).max() < 5 and features.std(axis=0).max() > 0.05
        assert abs(times[-1, 1] - seconds) <= 1


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(start_s=st.floats(0, 25), length_s=st.floats(0.01, 20))
def test_extract_of_a_part_gives_what_a_selection_of_the_whole_gives(
    start_s, length_s, long, running, whole
):
    part = select(extract(long, running, start_s, start_s + length_s), start_s, 1e9)
    part = select(part, start_s, start_s + length_s)
    expected = select(whole, start_s, start_s + length_s)
    assert list(part) == list(expected)
    for name in part:
        np.testing.assert_array_equal(part[name].times_s, expected[name].times_s)
        np.testing.assert_allclose(part[name].values, expected[name].values, atol=1e-6)


@pytest.mark.parametrize(
    "shape, at_once, sizes",
    [
        ((1, 8, 8, 3), 1, [BATCH_SIZE, 4]),
        ((32, 224, 224, 3), 1, [3] * 6 + [2]),  # of VIDEO, 4.8 MB each
        ((32, 224, 224, 3), 2, [2] * 10),  # on two threads
        ((32, 224, 224, 3), 8, [8, 8, 4]),  # on CUDA
        ((8, 8, 8, 3), 5, [15, 5]),
        ((32, 512, 512, 3), 1, [1] * 20),  # 25 MB each
    ],
)
def test_batches_are_bounded_in_clips_and_in_memory(shape, at_once, sizes):
    data = np.broadcast_to(np.uint8(0), shape)
    clips = (Clip("a", data, float(i), i + 1.0) for i in range(20))
    expert = Watched(print)
    expert.clips_at_once = at_once
    batches = list(extraction._batches(clips, {"a": expert}))
    assert [len(batch.clips) for batch in batches] == sizes
    assert [start for batch in batches for start, _ in batch.times_s] == list(range(20))


class Watched(Expert):
    """Calls a function with each batch."""

    name, dim, spec = "watched", 1, FrameSpec(fps=10, short_side=16, crop=16, clip_frames=1)

    def __init__(self, watch):
        self.watch = watch

    def features(self, clips):
        self.watch(clips)
        return clips.mean((1, 2, 3, 4))[:, None].astype(np.float32)


def test_extract_decodes_while_an_expert_works_and_holds_few_batches(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", flat([i % 250 for i in range(12 * BATCH_SIZE)]))
    made, done, most = [], [], []
    real = extraction._batches

    def batches(clips, running):
        for batch in real(clips, running):
            made.append(len(made))
            yield batch

    def watch(clips):
        assert threading.current_thread() is threading.main_thread()
        done.append(len(done))
        # One batch is being worked on, some wait, and the thread holds the next one.
        wanted = min(12, len(done) + BATCHES_AHEAD + 1)
        end_s = time.monotonic() + 20
        while len(made) < wanted and time.monotonic() < end_s:
            time.sleep(0.001)
        time.sleep(0.03)
        most.append(len(made) - len(done))

    monkeypatch.setattr(extraction, "_batches", batches)
    values = extract(path, {"watched": Watched(watch)})["watched"].values
    np.testing.assert_array_equal(values[:, 0].round(), [i % 250 for i in range(12 * BATCH_SIZE)])
    assert most == [BATCHES_AHEAD + 1] * (12 - BATCHES_AHEAD - 1) + [2, 1, 0][-BATCHES_AHEAD - 1 :]


@pytest.mark.parametrize("frames", [5, 20 * BATCH_SIZE])
def test_extract_counts_the_work_of_the_experts_into_the_time_limit(tmp_path, frames):
    path = write_video(tmp_path / "a.mkv", flat([5] * frames))
    slow = {"one": Watched(lambda _: time.sleep(0.3)), "two": Watched(lambda _: None)}
    with pytest.raises(InputError, match=r"a\.mkv.* more than 0.2 seconds"):
        extract(path, slow, time_limit_s=0.2)


def test_extract_ends_its_thread_when_an_expert_is_interrupted(tmp_path):
    path = write_video(tmp_path / "a.mkv", flat([5] * 20 * BATCH_SIZE))

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(path, {"watched": Watched(interrupt)})
    assert all(thread.name != "mdmmt" for thread in threading.enumerate())


def read_in_process(path, sample_rate_hz):
    program = READ.replace("SAMPLE_RATE_HZ", str(sample_rate_hz))
    result = subprocess.run(
        [sys.executable, "-c", program, path], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("inputs", "encoders", "sample_rate_hz", "times"),
    [
        (f"{PICTURE} {SOUND.format(16000)}", "-c:v mpeg4 -c:a pcm_s16le", 16000, 60),
        (SOUND.format(48000), "-c:a aac -b:a 48k", 48000, 180),
    ],
    ids=["ten minutes of video", "half an hour of sound"],
)
def test_extract_takes_no_more_memory_for_longer_files(
    tmp_path, inputs, encoders, sample_rate_hz, times
):
    short, long = tmp_path / "short.mkv", tmp_path / "long.mkv"
    ffmpeg(*f"{inputs} {encoders}".split(" "), short)
    ffmpeg("-stream_loop", times - 1, "-i", short, "-c", "copy", long)
    few, many = (read_in_process(path, sample_rate_hz) for path in (short, long))
    assert many.pop("kib") <= 1.2 * few.pop("kib")
    assert few["sound"] == 10 and abs(many["sound"] - times * 10 / 0.96) <= 2
    if "fast" in few:
        assert few["fast"] == few["slow"] == 10
        assert abs(many["fast"] - times * 10) <= 1 and abs(many["slow"] - times * 10) <= 1

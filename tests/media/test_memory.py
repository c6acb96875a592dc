"""Extraction takes as much memory for ten minutes as for ten seconds."""

import json
import subprocess
import sys

import pytest
from media import ffmpeg

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


def read(path, sample_rate_hz):
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
    few, many = read(short, sample_rate_hz), read(long, sample_rate_hz)
    assert many.pop("kib") <= 1.2 * few.pop("kib")
    assert few["sound"] == 10 and abs(many["sound"] - times * 10 / 0.96) <= 2
    if "fast" in few:
        assert few["fast"] == few["slow"] == 10
        assert abs(many["fast"] - times * 10) <= 1 and abs(many["slow"] - times * 10) <= 1

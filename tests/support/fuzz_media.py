"""Mutate small media files and read them: every file gives clips or an `InputError`, in time.

    PYTHONPATH=tests/support python -m fuzz_media --seconds 3600 --seed 1

A finding is printed as JSON with the container, the seed and the mutation, so that it can be made
again with `mutated(container, seed)`; keep it as a named case of tests/media/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from media import ffmpeg

from mdmmt.errors import InputError
from mdmmt.experts import load
from mdmmt.features import extract

# Options of the ffmpeg program by container; one second of a test picture, and a tone.
VIDEO = ("-c:v", "mpeg4", "-qscale:v", "9")
CONTAINERS = {
    ".mp4": (*VIDEO, "-c:a", "aac"),
    ".mkv": (*VIDEO, "-c:a", "pcm_s16le"),
    ".mov": ("-c:v", "mjpeg", "-c:a", "pcm_s16le"),
    ".avi": (*VIDEO, "-c:a", "pcm_s16le"),
    ".ts": ("-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2"),
    ".flv": ("-c:v", "flv", "-c:a", "adpcm_swf", "-ar", "22050"),
    ".webm": ("-c:v", "libvpx", "-c:a", "libopus"),
    ".mpg": ("-c:v", "mpeg1video", "-r", "25", "-c:a", "mp2"),
    ".gif": (),
    ".wav": ("-vn", "-c:a", "pcm_s16le"),
    ".flac": ("-vn", "-c:a", "flac"),
    ".aac": ("-vn", "-c:a", "aac"),
    ".png": ("-frames:v", "1"),
}
EXPERTS = ("frame", "sound")
MAX_SECONDS = 30.0  # for one file of a few kB
MAX_BYTES = 4 << 30  # of address space


def original(folder: Path, container: str) -> bytes:
    """A small, valid file of a container."""
    path = folder / f"original{container}"
    picture = ("-f", "lavfi", "-i", "testsrc=duration=1:size=64x48:rate=10")
    tone = ("-f", "lavfi", "-i", "sine=duration=1:sample_rate=16000")
    ffmpeg(*picture, *tone, *CONTAINERS[container], "-fflags", "+bitexact", path)
    return path.read_bytes()


def mutate(content: bytes, seed: int) -> bytes:
    """A copy with a few random changes; the same seed makes the same changes."""
    random = np.random.default_rng(seed)
    data = bytearray(content)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(data)))
        length = int(random.integers(1, 1 + min(64, len(data) - at)))
        kind = random.integers(6)
        if kind == 0:
            data[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            data[at : at + length] = random.bytes(length)
        elif kind == 2:
            data[at : at + length] = bytes(length)
        elif kind == 3:
            data[at : at + length] = b"\xff" * length
        elif kind == 4 and len(data) > 64:
            del data[at : at + length]
        else:
            data[at:at] = data[at : at + length]
    if random.integers(4) == 0:
        del data[int(random.integers(1, len(data))) :]
    return bytes(data)


def read(path: Path) -> str | None:
    """Read a file as `mdmmt extract` does; the reason if that breaks a promise."""
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            features = extract(path, load(EXPERTS))
    except InputError:
        features = {}
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    took = time.perf_counter() - started
    if took > MAX_SECONDS:
        return f"took {took:.0f} seconds"
    if not all(np.isfinite(one.values).all() for one in features.values()):
        return "features hold NaN or infinity"
    return None


def fuzz(seconds: float, seed: int, log: Path) -> list[dict[str, object]]:
    """Read mutated files until the time is over; `log` names the file that is being read."""
    findings: list[dict[str, object]] = []
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        originals = {container: original(folder, container) for container in CONTAINERS}
        while time.monotonic() < deadline:
            for container, content in originals.items():
                path = folder / f"mutated{container}"
                path.write_bytes(mutate(content, seed))
                log.write_text(json.dumps({"container": container, "seed": seed}))
                reason = read(path)
                if reason is not None:
                    findings.append({"container": container, "seed": seed, "reason": reason})
                    print(json.dumps(findings[-1]), flush=True)
            seed += 1
    print(json.dumps({"last seed": seed - 1, "findings": len(findings)}), flush=True)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("fuzz.log"))
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    return 1 if fuzz(arguments.seconds, arguments.seed, arguments.log) else 0


if __name__ == "__main__":
    sys.exit(main())

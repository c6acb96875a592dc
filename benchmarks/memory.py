"""Memory of a process over many ragged calls, with rows padded to few numbers and without.

python benchmarks/memory.py [CALLS]
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

CALLS = 10_000
SHOWN_AT = (1, 100, 200, 400, 800, 1600, 2400, 5000)  # and the last
STEP = 100  # calls of one process before the other has its turn
MAX_VIDEOS, POOL = 4, 500
PADDED, UNPADDED = "padded", "unpadded"  # what a child is told to be


def main() -> None:
    calls = int(sys.argv[1]) if sys.argv[1:] else CALLS
    children = [start(PADDED), start(UNPADDED)]
    total_s, done = np.zeros(2), 0
    print("calls    MB, padded    MB, unpadded     CPU time, padded / unpadded")
    for until in sorted({*SHOWN_AT, *range(0, calls, STEP), calls} - {0}):
        if until > calls:
            break
        answers = [answer(child, until - done) for child in children]
        done = until
        total_s += [cpu_s for _, cpu_s in answers]
        if until in (*SHOWN_AT, calls):
            padded_mb, unpadded_mb = (mb for mb, _ in answers)
            ratio = total_s[0] / total_s[1]
            print(f"{until:5d} {padded_mb:13d} {unpadded_mb:15d} {ratio:31.3f}", flush=True)


def start(kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, kind]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(child: subprocess.Popen[str], calls: int) -> tuple[int, float]:
    """Have a child make so many calls -> its megabytes, and the CPU seconds that they took."""
    assert child.stdin and child.stdout
    print(calls, file=child.stdin, flush=True)
    mb, cpu_s = child.stdout.readline().split()
    return int(mb), float(cpu_s)


def be_child(kind: str) -> None:
    """Embed ragged batches of the sample model's videos, as many as each line of stdin says."""
    import mdmmt
    from mdmmt.features import ExpertFeatures
    from mdmmt.kernels import private

    if kind == UNPADDED:
        private.pad_rows = lambda x: x
    model = mdmmt.load("sample", "cpu")
    rng = np.random.default_rng(0)
    videos = [
        {
            expert.name: ExpertFeatures(
                rng.standard_normal((count, expert.dim)).astype(np.float32),
                np.arange(count)[:, None] + [0.0, 1.0],
            )
            for expert in model.config.video.experts
            for count in [rng.integers(1, expert.max_tokens + 1)]
        }
        for _ in range(POOL)
    ]
    tokens = [model.read_tokens(video) for video in videos]
    for line in sys.stdin:
        began_s = time.process_time()
        for _ in range(int(line)):
            size = rng.integers(1, MAX_VIDEOS + 1)
            model.encode_tokens([tokens[i] for i in rng.integers(0, POOL, size)])
        print(resident_mb(), time.process_time() - began_s, flush=True)


def resident_mb() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) // 1024


if __name__ == "__main__":
    be_child(sys.argv[1]) if sys.argv[1:] in ([PADDED], [UNPADDED]) else main()

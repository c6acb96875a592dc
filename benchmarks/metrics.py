"""Time and memory of ranking at the size of MSR-VTT, and times of intervals and comparison.

python benchmarks/metrics.py
"""

from __future__ import annotations

import resource
import time

import numpy as np

from mdmmt.evaluation.metrics import compare, intervals, ranks, summary

CAPTIONS, SEGMENTS, WIDTH = 60_000, 3_000, 1536


def main() -> None:
    rng = np.random.default_rng(0)
    video = rng.standard_normal((SEGMENTS, WIDTH), dtype=np.float32)
    video /= np.linalg.norm(video, axis=1, keepdims=True) / 3**0.5
    segment_of = np.arange(CAPTIONS) % SEGMENTS
    text = rng.standard_normal((CAPTIONS, WIDTH), dtype=np.float32)
    text *= 1 / 60
    for i in range(0, CAPTIONS, SEGMENTS):
        text[i : i + SEGMENTS] += 0.08 * video
    started = time.perf_counter()
    result = ranks(text, video, np.arange(CAPTIONS), segment_of)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{CAPTIONS} captions, {SEGMENTS} segments, {WIDTH} wide: ranked in {seconds:.1f} s")
    print(
        f"{peak:.0f} MB at the peak, {(text.nbytes + video.nbytes) / 2**20:.0f} of them embeddings"
    )
    print("t2v", {name: round(value, 2) for name, value in summary(result.t2v).items()})
    for name, run in (
        ("intervals", lambda: intervals(result.t2v)),
        ("comparison", lambda: compare(result.t2v, np.roll(result.t2v, 1))),
    ):
        started = time.perf_counter()
        run()
        print(f"{name}: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()

"""Compute what a large library needs, stage by stage, from the figures that were measured.

    python benchmarks/plan.py --clips 1000000 1000000000 --seconds 10

It measures nothing itself: change MEASURED to the figures of your own machine. The video tower is
not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

# `experts.py files` and `cost`, `servers.py` and `cluster.py`, on two cores of an AMD EPYC with
# AVX512-VNNI, 2026-11-28; `experts_on_cuda.py` on an NVIDIA H200. Core seconds are processor time.
MEASURED = {
    "decoding": 0.599 / 5.28,  # core seconds for each second of 720p video, for all three experts
    "VIDEO": 11.016 / 5.28,  # these three with their own decoding
    "CLIP": 0.785 / 5.28,
    "tf_vggish": 0.178 / 5.28,
    "all in one pass": 11.924 / 5.28,
    "all in one pass, int8": 6.093 / 5.28,
    "VIDEO in float16, GPU": 0.001,  # seconds for each second of video, decoded already
    "feature bytes": 647_000 / 60,  # of a second of video
    "rows a second": 2_517,  # into a Milvus server of two cores, in batches
}
STAGES = ("decoding", "VIDEO", "CLIP", "tf_vggish", "all in one pass", "all in one pass, int8")
VECTOR_BYTES = 1536 * 4
# Milvus' formulas give the bytes of an index for each vector. No benchmark measured them.
INDEX_BYTES = {
    "FLAT, IVF_FLAT": VECTOR_BYTES,
    "HNSW, M 16": VECTOR_BYTES + 2 * 16 * 4,  # two lists of neighbours at the lowest level
    "IVF_SQ8": VECTOR_BYTES / 4,
    "IVF_PQ, 96 codes": 96,
}


def needs(clips: int, seconds: float, megabits: float) -> Iterator[tuple[str, float]]:
    """Yield what is needed, and how much of it."""
    for stage in STAGES:
        yield f"{stage}, core hours", clips * seconds * MEASURED[stage] / 3600
    gpu = "VIDEO in float16, GPU"
    yield f"{gpu} hours", clips * seconds * MEASURED[gpu] / 3600
    yield "videos to be read, TB (assumed rate)", clips * seconds * megabits * 1e6 / 8 / 1e12
    yield "features, TB", clips * seconds * MEASURED["feature bytes"] / 1e12
    yield "vectors in Parquet, TB", clips * VECTOR_BYTES / 1e12
    yield "filling one Milvus server, hours", clips / MEASURED["rows a second"] / 3600
    for index, each in INDEX_BYTES.items():
        yield f"{index}, TB of memory (formula)", clips * each / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[10**6, 10**9])
    parser.add_argument("--seconds", type=float, default=10, help="of a clip; default: 10")
    parser.add_argument("--megabits", type=float, default=2.5, help="of a second of video")
    arguments = parser.parse_args()
    columns = [
        dict(needs(clips, arguments.seconds, arguments.megabits)) for clips in arguments.clips
    ]
    print("| | " + " | ".join(f"{clips:,} clips" for clips in arguments.clips) + " |")
    print("|---|" + "---:|" * len(columns))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(amount(column[name]) for column in columns) + " |")


def amount(number: float) -> str:
    """Two digits are as much as such a figure can tell."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.4f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    main()

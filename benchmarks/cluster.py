"""Measure `mdmmt batch` on this machine; run by hand, on two cores that nothing else uses.

    python benchmarks/cluster.py efficiency   # beside `mdmmt embed`, on drawn clips
    python benchmarks/cluster.py items        # the cost of an item as items grow tenfold

Each run is a whole command. The cost of an item is the difference between a run of many and a run
of few, by the items between them. So it has none of the seconds in which Ray starts and a model is
loaded, and those are told beside it. The commands take turns.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mdmmt.sample.clips import COMBINATIONS, draw

DRAWN = 16  # clips that are drawn; the others are copies of them
SAMPLE = "--weights=sample"


def make_clips(folder: Path, count: int) -> None:
    folder.mkdir()
    for i in range(min(count, DRAWN)):
        draw(folder / f"{i}.mp4", COMBINATIONS[i * len(COMBINATIONS) // DRAWN], seed=(7, i))
    for i in range(DRAWN, count):
        shutil.copy(folder / f"{i % DRAWN}.mp4", folder / f"{i}.mp4")


def make_texts(file: Path, count: int) -> None:
    sizes, colours = ("small", "large"), ("red", "green", "blue")
    rng = np.random.default_rng(0)
    lines = (
        f"a {rng.choice(sizes)} {rng.choice(colours)} circle moves left, take {i}"
        for i in range(count)
    )
    file.write_text("\n".join(lines))


def run(arguments: Sequence[str], threads: int) -> float:
    """Run a command; return its seconds."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "RAY_worker_niceness": "0"}
    start_s = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "mdmmt", *arguments, "--quiet"],
        env=env,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start_s


def efficiency(scratch: Path, few: int, many: int, rounds: int) -> None:
    """`mdmmt batch` with two actors of one thread, beside `mdmmt embed` with two threads."""
    ways: dict[str, list[float]] = {"mdmmt embed": [], "mdmmt batch": []}
    for count in (few, many):
        make_clips(scratch / str(count), count)
    for turn in range(rounds):
        for way, costs_of_way in ways.items():
            costs = []
            for count in (few, many):
                source, out = str(scratch / str(count)), scratch / f"{way}-{turn}-{count}"
                if way == "mdmmt embed":
                    plain = ["embed", source, SAMPLE, "--segments=windows", "--jobs=2"]
                    costs.append(run([*plain, f"--out={out}.parquet"], 2))
                else:
                    actors = ["--actors=2", "--cpus-per-actor=1"]
                    costs.append(run(["batch", source, SAMPLE, f"--out={out}", *actors], 1))
            costs_of_way.append((costs[1] - costs[0]) / (many - few))
            print(f"{way}: {few} in {costs[0]:.1f} s, {many} in {costs[1]:.1f} s")
    cost = {way: statistics.median(costs) for way, costs in ways.items()}
    for way, one in cost.items():
        print(f"{way}: {1000 * one:.1f} ms a clip, {1 / one:.2f} clips a second")
    print(f"efficiency: {cost['mdmmt embed'] / cost['mdmmt batch']:.2f}")


def items(scratch: Path, few: int, rounds: int) -> None:
    """Texts, whose own cost is small, from `few` on, ten times as many, and a hundred times."""
    counts = [few, 10 * few, 100 * few]
    for count in counts:
        make_texts(scratch / f"{count}.txt", count)
    walls: dict[int, list[float]] = {count: [] for count in counts}
    for turn in range(rounds):
        for count in counts:
            source, out = str(scratch / f"{count}.txt"), scratch / f"{turn}-{count}"
            cost = run(["batch", "--texts", source, SAMPLE, f"--out={out}"], 1)
            walls[count].append(cost)
            print(f"{count} texts: {cost:.1f} s")
    wall = {count: statistics.median(seconds) for count, seconds in walls.items()}
    for less, more in itertools.pairwise(counts):
        each_s = (wall[more] - wall[less]) / (more - less)
        print(f"from {less} to {more} texts: {1e6 * each_s:.0f} microseconds a text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("efficiency", "items"))
    parser.add_argument("--few", type=int, help="items of the small run; default: 32, 200 texts")
    parser.add_argument("--many", type=int, default=320, help="clips of the large run")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(
        f"Python {platform.python_version()}, torch {version('torch')}, ray {version('ray')}, "
        f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
    )
    with tempfile.TemporaryDirectory(prefix="mdmmt-") as scratch:
        if arguments.what == "efficiency":
            efficiency(Path(scratch), arguments.few or 32, arguments.many, arguments.rounds)
        else:
            items(Path(scratch), arguments.few or 200, arguments.rounds)


if __name__ == "__main__":
    main()

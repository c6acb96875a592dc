"""Cases, timing and the machine, as the benchmarks of the towers share them.

Importing this module makes the helpers in tests/support importable by their bare names.
"""

from __future__ import annotations

import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from oracle import random_batch
from tiny import WORDS

from mdmmt.config import RELEASED

BASE = "towhee.models"  # the reference of all ratios
PRECISIONS = ("exact", "bfloat16", "int8")
EXPERTS = [expert.name for expert in RELEASED.video.experts]
PACKAGES = ("torch", "towhee.models", "transformers", "onnxruntime", "openvino", "nncf")
MAX_TOKENS = 30
RAGGED = None  # as tokens: each expert of each video has its own number of them, 1 to 30
VIDEO_BATCHES, VIDEO_TOKENS = (1, 8, 32), (5, 10, 20, 25, 30)
WORDS_EACH = 9

Batch = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]  # as the oracle takes it
Way = Callable[[], object]
Result = TypeVar("Result")


class Case(NamedTuple):
    """One job, and every way to do it."""

    name: str
    items: int  # videos or texts
    ways: dict[str, Way]


class Timing(NamedTuple):
    """Of one way to do a job."""

    median_s: float
    spread: float  # the middle half of the rounds, as a share of the median
    rounds: int


def measure(ways: dict[str, Way], seconds: float, least_rounds: int) -> dict[str, Timing]:
    """Run each in turn, after one round to warm up, until the seconds are spent."""
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    began = time.perf_counter()
    rounds = 0
    while rounds < least_rounds or time.perf_counter() - began < seconds:
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
        rounds += 1
    return {name: timing(all_of_it) for name, all_of_it in times.items()}


def timing(times_s: list[float]) -> Timing:
    median = statistics.median(times_s)
    quarter, three_quarters = np.quantile(times_s, [0.25, 0.75])
    return Timing(median, float(three_quarters - quarter) / median, len(times_s))


def video_case(size: int, valid: int | None) -> str:
    """The name of a case."""
    shape = "ragged 1…30" if valid is RAGGED else f"{valid} of {MAX_TOKENS} tokens"
    return f"video, batch {size}, {shape}"


def text_case(count: int) -> str:
    """The name of a case."""
    return "text, one query" if count == 1 else f"text, {count} captions"


def make_batch(size: int, valid: int | None) -> Batch:
    """Features; ragged ones have every number of tokens equally often, in a random order."""
    batch = random_batch(RELEASED.video.experts, size, MAX_TOKENS)
    generator = random.Random(0)
    for mask in batch[2].values():
        lengths = [1 + (2 * i + 1) * MAX_TOKENS // (2 * size) for i in range(size)]
        generator.shuffle(lengths)
        for row, length in zip(mask, lengths, strict=True):
            row[length if valid is RAGGED else valid :] = 0
    return batch


def as_dict(batch: Batch) -> dict[str, dict[str, Tensor]]:
    return dict(zip(("features", "features_t", "features_ind"), batch, strict=True))


def make_texts(count: int) -> list[str]:
    """Captions of about nine words."""
    generator = random.Random(0)
    lengths = [max(3, round(generator.gauss(WORDS_EACH, WORDS_EACH / 3))) for _ in range(count)]
    return [" ".join(generator.choices(WORDS, k=n)) for n in lengths]


def in_batches(run: Callable[[list], Result], rows: list, size: int) -> list[Result]:
    return [run(rows[i : i + size]) for i in range(0, len(rows), size)]


def describe_machine(threads: int) -> dict[str, object]:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    features = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "features": [name for name in features if capabilities.get(name)],
        "versions": {name: installed(name) for name in PACKAGES},
    }


def processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def show(case: Case, timings: dict[str, Timing]) -> list[dict[str, object]]:
    """Print the rows of one case, and return them."""
    base, exact = timings[BASE].median_s, timings["exact"].median_s
    rows = []
    for way, (median_s, spread, rounds) in timings.items():
        ratio = base / median_s
        print(
            f"{case.name:34} {way:23} {median_s * 1e3:9.2f} ms ±{spread * 50:3.0f} %"
            f" {ratio:7.2f} x {rounds:5} rounds",
            flush=True,
        )
        rows.append(
            {"case": case.name, "items": case.items, "way": way, "median_s": median_s}
            | {"spread": spread, "rounds": rounds, "ratio": ratio}
        )
    if "limit" in timings:
        share = timings["limit"].median_s / exact
        print(f"{case.name:34} share of the limit that exact reaches: {share:.2f}")
    return rows

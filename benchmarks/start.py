"""Measure a start: our import beyond torch's and towhee's, and loading the full-size model.

    python benchmarks/start.py

A model folder holds random weights of the released model's sizes. Memory is the peak of the process
(VmHWM) less its memory before, as a multiple of the size of the tower's weights.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from tiny import write_vocabulary

from mdmmt.config import RELEASED
from mdmmt.towers.text import TextTower
from mdmmt.towers.tokenizer import load_tokenizer
from mdmmt.towers.video import VideoTower
from mdmmt.weights.folder import save_model

ROUNDS = 5
IMPORT = """
import time, torch, towhee
from towhee.operator import NNOperator
from towhee.runtime import register
started = time.perf_counter()
import mdmmt
print(time.perf_counter() - started)
"""
LOAD = """
import sys, time, mdmmt
def memory(what):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024
path, kind, precision = sys.argv[1:]
getattr(mdmmt.load("sample", "cpu", precision=precision), kind + "_encoder")  # loads libraries
before = memory("VmRSS")
started = time.perf_counter()
model = mdmmt.load(path, "cpu", precision=precision)
encoder = getattr(model, kind + "_encoder")
print(time.perf_counter() - started, memory("VmHWM") - before, memory("VmRSS") - before)
"""


def run(code: str, *arguments: str) -> list[float]:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    took = [run(IMPORT)[0] for _ in range(ROUNDS)]
    print(f"import, beyond torch's and towhee's: {statistics.median(took):.3f} s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_vocabulary(folder / "vocabulary", RELEASED.text.bert.vocab_size)
        video, text = VideoTower(RELEASED.video), TextTower(RELEASED.text)
        tokenizer = load_tokenizer(folder / "vocabulary")
        save_model(folder / "model", RELEASED, video, text, tokenizer)
        for kind, tower in (("video", video), ("text", text)):
            size = sum(tensor.nbytes for tensor in tower.state_dict().values())
            for precision in ("exact", "bfloat16", "int8"):
                results = [run(LOAD, str(folder / "model"), kind, precision) for _ in range(ROUNDS)]
                seconds, peak, after = map(statistics.median, zip(*results, strict=True))
                print(
                    f"{kind} tower, {precision}: {size / 1e6:.0f} MB of weights, read in "
                    f"{seconds:.2f} s, at most {peak / size:.2f} times their size in memory, then "
                    f"{after / size:.2f}"
                )


if __name__ == "__main__":
    torch.manual_seed(0)
    main()

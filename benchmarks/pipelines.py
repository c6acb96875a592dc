"""Compare Towhee's ways of embedding many videos with direct calls, by throughput.

    python benchmarks/pipelines.py

The model has full size and random weights; each video has 25 of 30 tokens of each expert. All ways
run in turns in one process. `p.batch()` keeps some calls in flight (3 on 2 cores). It is compared
with that number of threads that call the operator. If it gathered its calls into one, it could gain
no more than lists of that length do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from towhee import pipe
from towhee.runtime import ops

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from tiny import write_vocabulary

import mdmmt
from mdmmt.config import RELEASED
from mdmmt.towers.text import TextTower
from mdmmt.towers.tokenizer import load_tokenizer
from mdmmt.towers.video import VideoTower
from mdmmt.weights.folder import save_model

VIDEOS, BATCH, IN_FLIGHT = 96, 32, 3


def video(rng: np.random.Generator, valid: int = 25, tokens: int = 30) -> dict:
    experts = RELEASED.video.experts
    mask = (np.arange(tokens) < valid).astype(np.float32)
    return {
        "features": {e.name: rng.normal(size=(tokens, e.dim)).astype("f") for e in experts},
        "features_t": {e.name: np.arange(tokens) + 2.5 for e in experts},
        "features_ind": {e.name: mask for e in experts},
    }


def drain(queue) -> list:
    return [queue.get() for _ in range(queue.size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    videos = [video(rng) for _ in range(VIDEOS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_vocabulary(folder / "vocabulary", RELEASED.text.bert.vocab_size)
        towers = VideoTower(RELEASED.video), TextTower(RELEASED.text)
        save_model(folder / "model", RELEASED, *towers, load_tokenizer(folder / "vocabulary"))
        weights = str(folder / "model")
        model = mdmmt.load(weights, "cpu")
        _ = model.video_encoder

        def operator():
            return ops.video_text_embedding.mdmmt(
                modality="video", weight_path=weights, device="cpu"
            )

        lists = pipe.input("x").map("x", "vec", operator()).output("vec")
        windows = (
            pipe.input("x")
            .flat_map("x", "x", lambda x: x)
            .window("x", "vec", BATCH, BATCH, operator())
            .output("vec")
        )
        whole = (
            pipe.input("x")
            .flat_map("x", "x", lambda x: x)
            .window_all("x", "vec", operator())
            .output("vec")
        )
        batches = [videos[i : i + BATCH] for i in range(0, VIDEOS, BATCH)]
        threads = ThreadPoolExecutor(IN_FLIGHT)
        ways: dict[str, Callable[[], object]] = {
            "direct, batches of 32": lambda: [model.encode_video(batch) for batch in batches],
            "lists of 32": lambda: [lists(batch).get() for batch in batches],
            "window of 32": lambda: drain(windows(videos)),
            "window_all": lambda: drain(whole(videos)),
            "direct, 3 threads": lambda: list(threads.map(model.encode_video, videos)),
            "p.batch()": lambda: [queue.get() for queue in lists.batch(videos)],
            "direct, lists of 3": lambda: [
                model.encode_video(videos[i : i + IN_FLIGHT]) for i in range(0, VIDEOS, IN_FLIGHT)
            ],
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(args.rounds + 1):  # the first one warms up
            for name, run in ways.items():
                started = time.perf_counter()
                run()
                if turn:
                    times[name].append(time.perf_counter() - started)
        threads.shutdown()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {VIDEOS} videos")
    for name, base in (
        ("lists of 32", "direct, batches of 32"),
        ("window of 32", "direct, batches of 32"),
        ("window_all", "direct, batches of 32"),
        ("p.batch()", "direct, 3 threads"),
        ("direct, lists of 3", "p.batch()"),
    ):
        ratios = [b / t for b, t in zip(times[base], times[name], strict=True)]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        rate = VIDEOS / statistics.median(times[name])
        print(f"{name:20} {rate:7.1f} videos/s, {middle:.2f} ({low:.2f}-{high:.2f}) of {base}")


if __name__ == "__main__":
    main()

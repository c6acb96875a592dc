"""Training on one domain, on another, and on both, as in the multidomain table of MDMMT.

python benchmarks/domains.py [--seeds 0 1 2] [--work FOLDER]

Two domains of clips are drawn, WARM and COOL. They share movements, changes and sounds, and differ
in colours, shapes and wording. A model of the sample's shape learns from random weights on WARM, on
COOL and on both; then the model of WARM learns COOL, alone and with some of WARM. All runs have the
same settings and the same number of samples. Each model is tested on clips of both domains whose
combinations training does not have. A run in the folder of `--work` that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import common  # makes the helpers importable
import numpy as np
import torch

import mdmmt
from mdmmt.batch.extract import extract_file
from mdmmt.datasets import read_captions
from mdmmt.evaluation import evaluate
from mdmmt.experts import LIGHT_EXPERTS, load
from mdmmt.features import FeatureFolder
from mdmmt.features.files import SUFFIX
from mdmmt.sample.captions import PHRASES, TEMPLATES
from mdmmt.sample.clips import COMBINATIONS, Combination, draw
from mdmmt.training import DatasetConfig, TrainingConfig, train

SEED = 4100  # of the clips and their captions
TRAIN_CLIPS, TEST_CLIPS = 100, 200  # of a domain
CAPTIONS = 5  # of a training clip; a test clip has one
SOME = 0.2  # share of WARM in the samples of the last run
SETTINGS = {
    "init": "sample",
    "device": "cpu",
    "epochs": 8,
    "samples_per_epoch": 1600,
    "batch_size": 32,
    "loss": "info-nce",
    "temperature": 0.07,
    "learning_rate": 2e-3,
    "decay": 0.85,
    "warm_up": 50,
}


class Domain(NamedTuple):
    """What the clips of a domain show, and how its captions call it."""

    name: str
    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    phrase: int  # which of the phrases of each value
    templates: tuple[str, ...]


WARM = Domain(
    "WARM", ("red", "orange", "yellow", "white"), ("circle", "square", "star"), 0, TEMPLATES[:3]
)
COOL = Domain(
    "COOL", ("green", "cyan", "blue", "purple"), ("triangle", "diamond", "star"), -1, TEMPLATES[3:6]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, help="a folder that keeps clips, features and runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(common.describe_machine(1)))
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.work or Path(scratch)
        for number, domain in enumerate((WARM, COOL)):
            write_domain(folder / domain.name, domain, (SEED, number))
        scores: dict[str, list[list[float]]] = {}
        for seed in options.seeds:
            for name, metrics in run_all(folder, seed):
                scores.setdefault(name, []).append(metrics)
                print(f"seed {seed}, {name}: {metrics}", flush=True)
    print(f"\n{time.process_time():.0f} s of processor time\n")
    print("| training | WARM R@1 | WARM R@5 | COOL R@1 | COOL R@5 |")
    print("|---|---:|---:|---:|---:|")
    for name, rows in scores.items():
        print(f"| {name} | {' | '.join(map(spread, zip(*rows, strict=True)))} |")


def spread(values: tuple[float, ...]) -> str:
    """The mean of the seeds, and the lowest and the highest."""
    return f"{statistics.fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def write_domain(folder: Path, domain: Domain, seed: tuple[int, ...]) -> None:
    """Draw the clips of a domain, and write their captions and features; what exists is kept."""
    rng = np.random.default_rng(seed)
    combinations = [
        one for one in COMBINATIONS if one.colour in domain.colours and one.shape in domain.shapes
    ]
    chosen = rng.permutation(len(combinations))[: TRAIN_CLIPS + TEST_CLIPS]
    folder.mkdir(parents=True, exist_ok=True)
    experts = load(LIGHT_EXPERTS)
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for number, at in enumerate(chosen):
        part, count = ("train", CAPTIONS) if number < TRAIN_CLIPS else ("test", 1)
        video = folder / f"{number}.mp4"
        features = folder / part / f"{video.name}{SUFFIX}"
        for _ in range(count):
            text = sentence(combinations[at], domain, rng)
            lines[part].append(json.dumps({"video": video.name, "caption": text}) + "\n")
        if not features.exists():
            draw(video, combinations[at], (*seed, number))
            extract_file(video, features, experts)
            video.unlink()
    for part, own in lines.items():
        (folder / f"{part}.jsonl").write_text("".join(own))


def sentence(combination: Combination, domain: Domain, rng: np.random.Generator) -> str:
    """A caption in the wording of a domain."""
    words = {
        attribute: PHRASES[attribute][value][domain.phrase]
        for attribute, value in combination._asdict().items()
    }
    return str(rng.choice(domain.templates)).format(article="one", **words)


def run_all(folder: Path, seed: int) -> Iterator[tuple[str, list[float]]]:
    """Yield the name of each run, and its R@1 and R@5 on WARM and on COOL."""
    warm = folder / f"WARM alone, {seed}"
    scratch = {"random_weights": True}
    for name, weights, changes in (
        ("WARM alone", (1.0, 0.0), scratch),
        ("COOL alone", (0.0, 1.0), scratch),
        ("both", (0.5, 0.5), scratch),
        ("WARM, then COOL", (0.0, 1.0), {"init": str(warm)}),
        ("WARM, then COOL with some of WARM", (SOME, 1 - SOME), {"init": str(warm)}),
    ):
        out = folder / f"{name}, {seed}"
        datasets = tuple(
            DatasetConfig(
                str(folder / domain.name / "train.jsonl"),
                str(folder / domain.name / "train"),
                weight=weight,
            )
            for domain, weight in zip((WARM, COOL), weights, strict=True)
            if weight
        )
        train(TrainingConfig(str(out), datasets, seed=seed, **{**SETTINGS, **changes}))
        yield name, recall(folder, out)


def recall(folder: Path, weights: Path) -> list[float]:
    """R@1 and R@5 from text to video on the test clips of both domains."""
    model = mdmmt.load(weights, "cpu")
    values = []
    for domain in (WARM, COOL):
        captions = read_captions(folder / domain.name / "test.jsonl")
        result = evaluate(model, captions, FeatureFolder(folder / domain.name / "test"), "single")
        values += [result.metrics["t2v"][name] for name in ("R@1", "R@5")]
    return values


if __name__ == "__main__":
    main()

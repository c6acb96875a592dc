"""Captions and drawn features of the tiny model, as a run takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tiny import TINY, WORDS

from mdmmt.features.files import FeatureFile, SourceVideo, write_features
from mdmmt.features.types import ExpertFeatures


class Pairs(NamedTuple):
    captions: Path
    features: Path


def write_video(folder: Path, name: str, rng: np.random.Generator, absent: str = "") -> None:
    """Features of 1 to 6 seconds for each expert but an absent one."""
    features = {}
    for expert in TINY.video.experts:
        n = int(rng.integers(1, 7))
        times_s = np.stack([np.arange(n), np.arange(n) + 1.0], axis=1)
        features[expert.name] = ExpertFeatures(rng.normal(size=(n, expert.dim)), times_s)
    versions = dict.fromkeys(features, "1")
    features.pop(absent, None)
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.safetensors"
    write_features(file, FeatureFile(features, SourceVideo(name, 5, "ab" * 32), versions))


def write_pairs(folder: Path, count: int = 32, seed: int = 0, per_video: int = 1) -> Pairs:
    """Videos with `per_video` different captions each; every fourth video lacks an expert."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        absent = TINY.video.experts[i % 3].name if i % 4 == 3 else ""
        write_video(folder / "features", f"v{i}.mp4", rng, absent)
        for j in range(per_video):
            words = " ".join(rng.choice(WORDS, size=int(rng.integers(2, 6))))
            lines.append({"video": f"v{i}.mp4", "caption": f"{words} {i} {j}"})
    file = folder / "captions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Pairs(file, folder / "features")

"""Measure queries of a text and a video together, on drawn clips; run by hand, see `make help`.

    python benchmarks/combined.py

Each query is a sentence that names one attribute, such as a colour, and a clip that has another
value of it. It asks for clips with what the sentence says that have another attribute, such as the
shape, in common with the clip. The best hit is looked at, of all clips but that one.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mdmmt
from mdmmt.model import Segments
from mdmmt.sample.clips import COMBINATIONS, Combination, draw_library
from mdmmt.sample.trials import trial_query
from mdmmt.search import Identity, Index

SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=120, help="default: %(default)s")
    clips = parser.parse_args().clips
    rng = np.random.default_rng(SEED)
    chosen = [COMBINATIONS[i] for i in rng.choice(len(COMBINATIONS), clips, replace=False)]
    model = mdmmt.load("sample", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_library(Path(folder, "clips"), chosen, show_progress=True)
        videos = model.encode_video(list(map(str, paths)))
        queries, sentences = draw_queries(chosen, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some sentences are long
            texts = model.encode_text(sentences)
        identity = Identity("sample", "0" * 64, model.dim)
        with Index.open(Path(folder, "library.db"), identity) as index:
            index.experts = tuple(expert.name for expert in model.config.video.experts)
            for i, vector in enumerate(videos):
                index.add(str(i), Segments(vector[None], np.array([[0.0, 1.0]])))
            print(f"{len(queries)} queries in {clips} clips")
            print("| query | fits the text | fits the video | fits both |\n|---|---|---|---|")
            for name, vectors in {
                "the text alone": texts,
                "the video alone": videos[[query[0] for query in queries]],
                "both, added as they are": texts + videos[[query[0] for query in queries]],
                "both, each counting as much": np.stack(
                    [
                        index.combine(text, videos[query[0]])
                        for text, query in zip(texts, queries, strict=True)
                    ]
                ),
            }.items():
                shares = " | ".join(f"{x:.0%}" for x in measure(index, vectors, queries, chosen))
                print(f"| {name} | {shares} |")


# The number of the clip, the attribute of the sentence with its value, and that of the clip.
Query = tuple[int, str, str, str]


def draw_queries(
    clips: list[Combination], rng: np.random.Generator
) -> tuple[list[Query], list[str]]:
    """For each clip and pair of attributes a query that at least one other clip answers."""
    queries, sentences = [], []
    for number, clip in enumerate(clips):
        for in_text, in_video in itertools.permutations(Combination._fields, 2):
            alike = [
                other for other in clips if getattr(other, in_video) == getattr(clip, in_video)
            ]
            values = sorted({getattr(other, in_text) for other in alike} - {getattr(clip, in_text)})
            if values:
                value = str(rng.choice(values))
                queries.append((number, in_text, value, in_video))
                sentences.append(trial_query({in_text: value}, rng))
    return queries, sentences


def measure(
    index: Index, vectors: NDArray[np.float32], queries: list[Query], clips: list[Combination]
) -> NDArray[np.float64]:
    """The shares of the best hits that fit the text, the video, and both."""
    fits = []
    for vector, (number, in_text, value, in_video) in zip(vectors, queries, strict=True):
        besides = index.window_at(str(number), 0)
        (hit,) = index.find_moments(vector, 1, besides=besides)
        clip = clips[int(hit.path)]
        fits_text = getattr(clip, in_text) == value
        fits_video = getattr(clip, in_video) == getattr(clips[number], in_video)
        fits.append((fits_text, fits_video, fits_text and fits_video))
    return np.mean(fits, axis=0)


if __name__ == "__main__":
    main()

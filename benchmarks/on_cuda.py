"""Measure the speed of the towers on CUDA, beside `towhee.models` 1.1.3 there.

    python benchmarks/on_cuda.py

It compares the fast path, exact and in bfloat16, compiled and not, with `towhee.models` in float32
and under `torch.autocast`. Inputs come from the CPU and embeddings return to it. The time of the
fast path includes the checks of the features, the packing, and sorting by length. The weights are
those of `benchmarks/towers.py`. For each way it prints the largest difference to `towhee.models` in
float32, and the least cosine of an expert's block with it.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # more still take time when measured

import torch
from common import (
    BASE,
    RAGGED,
    Batch,
    Case,
    Way,
    as_dict,
    describe_machine,
    in_batches,
    make_batch,
    make_texts,
    measure,
    show,
    text_case,
    video_case,
)
from oracle import block_cosines
from tiny import Pair, make_pair, write_vocabulary
from towers import run_fast_text

from mdmmt.config import RELEASED
from mdmmt.fast import FastTextTower, FastVideoTower
from mdmmt.features.tokens import read_input
from mdmmt.model import BATCH_SIZE
from mdmmt.towers.tokenizer import Tokenizer

DEVICE = torch.device("cuda")
VIDEO_CASES = [(1, 25), (32, 25), (32, 10), (32, RAGGED), (128, 25), (128, RAGGED)]
TEXTS = (1, 512, 10_000)
WAYS = {
    "exact": ("exact", False),
    "exact, compiled": ("exact", True),
    "bfloat16": ("bfloat16", False),
    "bfloat16, compiled": ("bfloat16", True),
}


def waiting(way: Way) -> Way:
    """The way, until the device is done."""

    def run() -> None:
        way()
        torch.cuda.synchronize()

    return run


@torch.inference_mode()
def run_oracle(oracle: torch.nn.Module, batch: Batch, half: bool) -> torch.Tensor:
    there = [{name: one.to(DEVICE) for name, one in part.items()} for part in batch]
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        return oracle(*there).cpu()


@torch.inference_mode()
def run_text_oracle(oracle: torch.nn.Module, texts: list[str], half: bool) -> list:
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        return in_batches(lambda part: oracle(part).cpu(), texts, BATCH_SIZE)


def run_fast(tower: FastVideoTower, batch: Batch) -> torch.Tensor:
    return tower(read_input(as_dict(batch), RELEASED.video.experts)[0]).cpu()


def run_fast_text_to_cpu(
    tokenizer: Tokenizer, tower: FastTextTower, texts: list[str]
) -> torch.Tensor:
    return run_fast_text(tokenizer, tower, texts).cpu()


def show_error(name: str, vectors: torch.Tensor, wanted: torch.Tensor) -> None:
    most = (vectors - wanted).abs().max()
    least = block_cosines(vectors, wanted, RELEASED.video.same_dim).min()
    print(f"{name:34} differs by at most {most:.1e}, least cosine {least:.6f}", flush=True)


def cases(pair: Pair) -> Iterator[Case]:
    theirs, ours = pair.theirs_video.to(DEVICE), pair.ours_video.to(DEVICE)
    fast = {name: FastVideoTower.consume(copy.deepcopy(ours), *way) for name, way in WAYS.items()}
    for size, valid in VIDEO_CASES:
        batch = make_batch(size, valid)
        ways: dict[str, Way] = {
            BASE: partial(run_oracle, theirs, batch, False),
            "towhee.models, autocast": partial(run_oracle, theirs, batch, True),
        }
        ways |= {name: partial(run_fast, tower, batch) for name, tower in fast.items()}
        yield Case(video_case(size, valid), size, ways)
    wanted = ways.pop(BASE)()  # of the last and most ragged
    for name, way in ways.items():
        show_error(f"video, {name}", way(), wanted)
    theirs, ours = pair.theirs_text.to(DEVICE), pair.ours_text.to(DEVICE)
    fast = {name: FastTextTower.consume(copy.deepcopy(ours), *way) for name, way in WAYS.items()}
    tokenizer = Tokenizer(pair.tokenizer, RELEASED.text)
    for count in TEXTS:
        texts = make_texts(count)
        ways = {
            BASE: partial(run_text_oracle, theirs, texts, False),
            "towhee.models, autocast": partial(run_text_oracle, theirs, texts, True),
        }
        ways |= {
            name: partial(run_fast_text_to_cpu, tokenizer, tower, texts)
            for name, tower in fast.items()
        }
        yield Case(text_case(count), count, ways)
    wanted = torch.cat(run_text_oracle(theirs, texts, False))
    for name, tower in fast.items():
        show_error(f"text, {name}", run_fast_text_to_cpu(tokenizer, tower, texts), wanted)


def main() -> None:
    if not torch.cuda.is_available():
        print("there is no CUDA device here, so nothing was measured")
        return
    print(torch.cuda.get_device_name(), json.dumps(describe_machine(torch.get_num_threads())))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_vocabulary(folder, RELEASED.text.bert.vocab_size)
        for case in cases(make_pair(RELEASED, folder)):
            show(case, measure({n: waiting(w) for n, w in case.ways.items()}, 5.0, 5))


if __name__ == "__main__":
    main()

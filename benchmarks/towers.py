"""Measure the speed of the towers here, beside every other way to run this model.

    python benchmarks/towers.py [--quick] [--threads 2] [--out towers.json]
    python benchmarks/towers.py --corpus 10000 --only captions --ways exact int8 --rounds 1

It compares the fast path in each precision with `towhee.models` 1.1.3, and with its exported graph
in ONNX Runtime and OpenVINO (told to compute in float32), where they are installed. If NNCF is
installed too, OpenVINO also runs the graph in 8 bits. For each case all ways run in turns in one
process. `--errors` prints in place of times how close the blocks of embeddings in 8 bits are to the
exact ones. The limit is the time of the linear layers of the exact encoder alone. The weights are
random and of full size, which changes no time.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from argparse import RawDescriptionHelpFormatter as RawHelp
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import (
    BASE,
    EXPERTS,
    PRECISIONS,
    RAGGED,
    VIDEO_BATCHES,
    VIDEO_TOKENS,
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
from engines import Feed, export, load_engines
from oracle import block_cosines
from tiny import Pair, make_pair, write_vocabulary
from torch import Tensor, nn

from mdmmt.config import RELEASED
from mdmmt.fast import FastTextTower, FastVideoTower
from mdmmt.fast.batching import Batch as Indices
from mdmmt.fast.batching import plan_batches
from mdmmt.fast.packing import count_tokens, packed_shapes
from mdmmt.features.tokens import read_input
from mdmmt.kernels.threads import run_in_threads
from mdmmt.model import BATCH_SIZE
from mdmmt.sample.batches import pad_texts
from mdmmt.towers.tokenizer import Tokenizer

CPU = torch.device("cpu")
INPUTS = [f"{part}_{name}" for part in ("features", "times", "mask") for name in EXPERTS]
VIDEO_CASES = [(size, valid) for size in VIDEO_BATCHES for valid in VIDEO_TOKENS]
VIDEO_CASES += [(32, RAGGED), (128, RAGGED)]
ORACLES_BATCH_SIZE = 32  # of texts; larger ones make it slower

Tower = FastVideoTower | FastTextTower


def products(tower: Tower, lengths: list[int], outputs: int, batch_size: int) -> Way:
    """The matrix products of a tower's encoder alone, in the batches that the tower makes.

    Args:
        lengths: tokens of each sequence.
        outputs: rows of each sequence that the last layer is computed for.
        batch_size: the most sequences that are computed at once.
    """
    encoder = tower.encoder
    last = encoder.last
    key, value = last.attention.key, last.attention.value
    parts = in_batches(list, sorted(lengths), batch_size)
    plans = [plan_batches(part, CPU, tower.min_tokens_per_thread) for part in parts]
    max_tokens = max(map(sum, parts))
    all_x = torch.randn(max_tokens, key.shape[-1])
    all_wide = torch.randn(max_tokens, last.feed_forward.up.bias.numel())

    def compute(part: list[int], batch: Indices) -> None:
        tokens, rows = sum(part[i] for i in batch), outputs * len(batch)
        x, wide = all_x[:tokens], all_wide[:tokens]
        for layer in encoder.layers:
            after = layer.feed_forward
            for linear in (*layer.attention.projections, after.attention_out.dense, after.up):
                linear(x)
            after.down.dense(wide)
        x, wide = x[:rows], wide[:rows]
        after = last.feed_forward
        for linear in (last.attention.query, after.attention_out.dense, after.up):
            linear(x)
        by_head = x.unflatten(1, (len(key), -1)).transpose(0, 1)
        torch.bmm(torch.bmm(by_head, key), value.transpose(1, 2))
        after.down.dense(wide)

    @torch.inference_mode()
    def run() -> None:
        for part, plan in zip(parts, plans, strict=True):
            run_in_threads(partial(compute, part), plan.batches, plan.threads)

    return run


def video_cases(pair: Pair, folder: Path, threads: int) -> Iterator[Case]:
    fast = {one: FastVideoTower.consume(copy.deepcopy(pair.ours_video), one) for one in PRECISIONS}
    samples = [feed_of(make_batch(8, valid)) for valid in VIDEO_TOKENS]
    engines = load_engines(export_video(pair.theirs_video, folder), threads, samples)
    for size, valid in VIDEO_CASES:
        batch = make_batch(size, valid)
        videos = read_input(as_dict(batch), RELEASED.video.experts)[0]
        feed = feed_of(batch)
        shapes = packed_shapes(count_tokens(videos, RELEASED.video.experts))
        ways: dict[str, Way] = {BASE: partial(run_oracle, pair.theirs_video, batch)}
        ways |= {name: partial(tower, videos) for name, tower in fast.items()}
        ways |= {name: partial(engine, feed) for name, engine in engines.items()}
        ways["limit"] = products(fast["exact"], [n for n, _ in shapes], len(EXPERTS), size)
        yield Case(video_case(size, valid), size, ways)


def text_cases(pair: Pair, folder: Path, threads: int, corpora: list[int]) -> Iterator[Case]:
    fast = {one: FastTextTower.consume(copy.deepcopy(pair.ours_text), one) for one in PRECISIONS}
    tokenizer = Tokenizer(pair.tokenizer, RELEASED.text)
    samples = [text_feed(tokenizer(make_texts(count)), tokenizer) for count in (1, 8)]
    engines = load_engines(export_text(pair.theirs_text, folder), threads, samples)
    for count in (1, *corpora):
        texts = make_texts(count)
        ids = tokenizer(texts)
        ways: dict[str, Way] = {BASE: partial(run_text_oracle, pair.theirs_text, texts)}
        ways |= {
            name: partial(run_fast_text, tokenizer, tower, texts) for name, tower in fast.items()
        }
        ways |= {
            name: partial(run_text_engine, tokenizer, engine, texts)
            for name, engine in engines.items()
        }
        ways["limit"] = products(fast["exact"], list(map(len, ids)), 1, BATCH_SIZE)
        if count == 1:
            ways["tokenizer"] = partial(tokenizer, texts)
        yield Case(text_case(count), count, ways)


def show_errors(case: Case) -> None:
    """Print the cosines of the blocks in 8 bits with the exact ones, of videos and of one query."""
    if case.name.startswith("text") and case.items > 1:
        return  # the engines get texts in another order
    exact = vectors(case.ways["exact"]())
    for name, way in case.ways.items():
        if "int8" in name:
            cosines = block_cosines(vectors(way()), exact, RELEASED.video.same_dim)
            least, median = cosines.min(), cosines.median()
            print(f"{case.name:40} {name:15} least {least:.5f}, median {median:.5f}", flush=True)


def vectors(output: Any) -> Tensor:
    """The embeddings [b, d] that a way returns, in whatever form."""
    if isinstance(output, list):
        return torch.cat([vectors(one) for one in output])
    return output if isinstance(output, Tensor) else torch.from_numpy(output[0])


@torch.inference_mode()
def run_oracle(oracle: nn.Module, batch: Batch) -> Tensor:
    features, times, mask = batch
    return oracle(features, {name: one.clone() for name, one in times.items()}, mask)  # it writes


@torch.inference_mode()
def run_text_oracle(oracle: nn.Module, texts: list[str]) -> list[Tensor]:
    return in_batches(oracle, texts, ORACLES_BATCH_SIZE)


def run_fast_text(tokenizer: Tokenizer, tower: FastTextTower, texts: list[str]) -> Tensor:
    return tower(tokenizer(texts), BATCH_SIZE)


def run_text_engine(tokenizer: Tokenizer, engine: Callable, texts: list[str]) -> list:
    """The texts are sorted by length, which helps the engines."""

    def run(ids: list[list[int]]) -> object:
        return engine(text_feed(ids, tokenizer))

    return in_batches(run, sorted(tokenizer(texts), key=len), ORACLES_BATCH_SIZE)


def feed_of(batch: Batch) -> Feed:
    """What the exported graph takes of a batch."""
    return dict(zip(INPUTS, (part[n].numpy() for part in batch for n in EXPERTS), strict=True))


def text_feed(ids: list[list[int]], tokenizer: Tokenizer) -> Feed:
    """The same of texts."""
    padded, mask = pad_texts(ids, tokenizer)
    return {"ids": padded.numpy(), "mask": mask.long().numpy()}


class ExportedVideo(nn.Module):
    """The oracle with its dicts laid out."""

    def __init__(self, oracle: nn.Module) -> None:
        super().__init__()
        self.oracle = oracle

    def forward(self, *inputs: Tensor) -> Tensor:
        n = len(EXPERTS)
        features, times, mask = (
            dict(zip(EXPERTS, inputs[i : i + n], strict=True)) for i in range(0, 3 * n, n)
        )
        return self.oracle(features, {name: one.clone() for name, one in times.items()}, mask)


class ExportedText(nn.Module):
    """The oracle after its tokenizer."""

    def __init__(self, oracle: nn.Module) -> None:
        super().__init__()
        self.oracle = oracle

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        oracle = self.oracle
        x = oracle.txt_bert(input_ids=ids, attention_mask=mask)[0][:, 0]
        vectors = torch.stack([oracle.text_gu[name](x) for name in oracle.modalities], dim=1)
        return (vectors * oracle.compute_weights_from_emb(x)[..., None]).flatten(1)


def export_video(oracle: nn.Module, folder: Path) -> Path:
    """The oracle's graph. Its maximum over tokens is spelt anew, as ONNX cannot have it as is."""
    from towhee.models.mdmmt import mmt

    def maximum(x: Tensor, mask: Tensor) -> Tensor:
        there = mask > 0
        highest = x.masked_fill(~there[..., None], float("-inf")).amax(dim=1)
        return highest.masked_fill(~there.any(dim=1, keepdim=True), 0.0)

    inputs = tuple(part[name] for part in make_batch(2, 25) for name in EXPERTS)
    own, mmt.get_maxp = mmt.get_maxp, maximum
    try:
        axes = {name: {0: "batch"} for name in INPUTS}
        return export(ExportedVideo(oracle), inputs, INPUTS, axes, folder / "video.onnx")
    finally:
        mmt.get_maxp = own


def export_text(oracle: nn.Module, folder: Path) -> Path:
    inputs = torch.randint(200, 1000, (2, 11)), torch.ones(2, 11, dtype=torch.long)
    inputs[1][1, 7:] = 0
    axes = {name: {0: "batch", 1: "tokens"} for name in ("ids", "mask")}
    return export(ExportedText(oracle), inputs, ["ids", "mask"], axes, folder / "text.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawHelp)
    parser.add_argument("--quick", action="store_true", help="few rounds and captions")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--corpus", type=int, help="captions (512; quick: 64)")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--ways", nargs="+", help="these only, beside towhee.models and exact")
    parser.add_argument("--errors", action="store_true", help="print cosines in place of times")
    parser.add_argument("--rounds", type=int, help="at least (5, and 20 seconds; quick: 3, and 2)")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = describe_machine(arguments.threads)
    print(json.dumps(machine))
    seconds, rounds = (2.0, 3) if arguments.quick else (20.0, 5)
    rounds = arguments.rounds or rounds

    def chosen(ways: dict[str, Way]) -> dict[str, Way]:
        wanted = {BASE, "exact", *(arguments.ways or ways)}
        return {name: way for name, way in ways.items() if name in wanted}

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_vocabulary(folder, RELEASED.text.bert.vocab_size)
        pair = make_pair(RELEASED, folder)
        corpus = arguments.corpus or (64 if arguments.quick else 512)
        for cases in (
            video_cases(pair, folder, arguments.threads),
            text_cases(pair, folder, arguments.threads, [corpus]),
        ):
            for case in cases:
                if arguments.only not in case.name:
                    continue
                if arguments.errors:
                    show_errors(case)
                else:
                    rows += show(case, measure(chosen(case.ways), seconds, rounds))
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

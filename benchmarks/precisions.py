"""Compare the low precisions with 'exact', by cosines and by retrieval.

    python benchmarks/precisions.py

For towers of full size, with random weights drawn three times, it prints the least and the median
cosine of an expert's block with the exact one. For the sample model it prints the same, and
text-to-video R@1 with 5 captions a clip: among 200 new clips whose pairs of attributes were seen in
training, and among 200 with an unseen pair. Int8 with AVX512-VNNI and AVX512-BF16 is emulated, so
that it is measured on any processor.
"""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import PRECISIONS, RAGGED, as_dict, describe_machine, make_batch, make_texts
from emulation import emulated_vnni
from oracle import block_cosines
from tiny import make_pair, write_vocabulary
from torch import Tensor

import mdmmt
from mdmmt.config import RELEASED
from mdmmt.evaluation.metrics import ranks, summary
from mdmmt.fast import FastTextTower, FastVideoTower
from mdmmt.features.tokens import read_input
from mdmmt.sample.captions import caption
from mdmmt.sample.train import SEEN_DRAW, UNSEEN_DRAW, draw_clips, split
from mdmmt.towers.tokenizer import Tokenizer

EXACT, *LOW = PRECISIONS
VIDEOS, TEXTS, CAPTIONS_EACH = 128, 512, 5
SEEDS = (0, 1, 2)


def cosines(low: Tensor, exact: Tensor, width: int = RELEASED.video.same_dim) -> str:
    """The least and the median cosine of the blocks of embeddings [b, m * e], in words."""
    each = block_cosines(low, exact, width)
    return f"least {each.min():.5f}, median {each.median():.5f}"


def compare_towers(folder: Path, seed: int) -> None:
    pair = make_pair(RELEASED, folder, seed)
    batch = as_dict(make_batch(VIDEOS, RAGGED))
    videos = read_input(batch, RELEASED.video.experts)[0]
    ids = Tokenizer(pair.tokenizer, RELEASED.text)(make_texts(TEXTS))
    draw = np.random.default_rng(seed)
    drawn = [draw.integers(RELEASED.text.bert.vocab_size, size=len(row)).tolist() for row in ids]
    texts = {"captions": ids, "texts of drawn tokens": drawn, "single tokens": [[7], [8], [9]]}
    for kind, tower, given in (
        (FastVideoTower, pair.ours_video, {"ragged videos": videos}),
        (FastTextTower, pair.ours_text, texts),
    ):
        exact = kind.consume(copy.deepcopy(tower), EXACT)
        low = {precision: kind.consume(copy.deepcopy(tower), precision) for precision in LOW}
        with emulated_vnni():
            low["int8 with VNNI, emulated"] = kind.consume(copy.deepcopy(tower), "int8")
        for what, items in given.items():
            wanted = exact(items)
            for name, fast in low.items():
                near = cosines(fast(items), wanted)
                print(f"weights {seed}, {len(items)} {what}, {name}: cosine {near}", flush=True)


def compare_retrieval(folder: Path) -> None:
    models = {one: mdmmt.load("sample", "cpu", precision=one) for one in PRECISIONS}
    _, seen, unseen = split()
    for what, combinations, draw in (("seen", seen, SEEN_DRAW), ("unseen", unseen, UNSEEN_DRAW)):
        paths = draw_clips(folder / what, combinations, draw)
        items = [models[EXACT].extract(path) for path in paths]
        own = np.repeat(np.arange(len(items)), CAPTIONS_EACH)
        rng = np.random.default_rng(0)
        texts = [caption(combinations[i], rng) for i in own]
        exact = None
        for precision, model in models.items():
            vectors = model.encode_text(texts), model.encode_video(items)
            recalls = summary(ranks(*vectors, np.arange(len(own)), own).t2v)
            print(f"sample, {what} pairs, {precision}: R@1 {recalls['R@1']:.1f} %")
            exact = exact or vectors
            for side, *pair in zip(("text", "video"), vectors, exact, strict=True):
                near = cosines(*map(torch.from_numpy, pair), model.config.video.same_dim)
                print(f"sample, {what} pairs, {precision}, {side}: cosine {near}", flush=True)


def main() -> None:
    print(json.dumps(describe_machine(torch.get_num_threads())))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "vocabulary")
        write_vocabulary(folder, RELEASED.text.bert.vocab_size)
        for seed in SEEDS:
            compare_towers(folder, seed)
        compare_retrieval(Path(name, "clips"))


if __name__ == "__main__":
    main()

"""How near the low precisions come to 'exact', and what that does to retrieval.

    python benchmarks/precisions.py

In int8 also as it is on processors with AVX512-VNNI and AVX512-BF16, emulated where there are none.
Of full-size towers with random weights: the cosine of each expert's block with the exact one, the
least and the median. Of the sample model: text-to-video R@1 among 200 new clips whose pairs of
attributes were seen in training, and among 200 with a pair that was not, 5 captions each.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from towers import PRECISIONS, RAGGED, as_dict, describe_machine, make_batch, make_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from conftest import make_pair, write_vocabulary
from emulation import emulated_vnni

import mdmmt
from mdmmt.config import RELEASED
from mdmmt.fast import FastTextTower, FastVideoTower
from mdmmt.features import read_videos
from mdmmt.metrics import ranks, summary
from mdmmt.sample.captions import caption
from mdmmt.sample.train import SEEN_DRAW, UNSEEN_DRAW, draw_clips, split
from mdmmt.tokenizer import Tokenizer

EXACT, *LOW = PRECISIONS
VIDEOS, TEXTS, CAPTIONS_EACH = 128, 512, 5


def cosines(found: Tensor, exact: Tensor) -> str:
    """What the cosines of all blocks are, of embeddings [b, m * e]."""
    blocks = (x.unflatten(1, (-1, RELEASED.video.same_dim)) for x in (found, exact))
    each = F.cosine_similarity(*blocks, dim=-1)
    return f"least {each.min():.5f}, median {each.median():.5f}"


def compare_towers(folder: Path) -> None:
    write_vocabulary(folder, RELEASED.text.bert.vocab_size)
    pair = make_pair(RELEASED, folder)
    batch = as_dict(make_batch(VIDEOS, RAGGED))
    videos = read_videos(batch, RELEASED.video.experts)[0]
    ids = Tokenizer(pair.tokenizer, RELEASED.text)(make_texts(TEXTS))
    for what, kind, tower, items in (
        (f"video, {VIDEOS} ragged", FastVideoTower, pair.ours_video, videos),
        (f"text, {TEXTS} captions", FastTextTower, pair.ours_text, ids),
    ):
        exact = kind(copy.deepcopy(tower), EXACT)(items)
        for precision in LOW:
            found = kind(copy.deepcopy(tower), precision)(items)
            print(f"{what}, {precision}: cosine {cosines(found, exact)}", flush=True)
        with emulated_vnni():
            found = kind(copy.deepcopy(tower), "int8")(items)
        print(f"{what}, int8 with VNNI, emulated: cosine {cosines(found, exact)}", flush=True)


def compare_retrieval(folder: Path) -> None:
    models = {one: mdmmt.load("sample", "cpu", precision=one) for one in PRECISIONS}
    _, seen, unseen = split()
    for what, combinations, draw in (("seen", seen, SEEN_DRAW), ("unseen", unseen, UNSEEN_DRAW)):
        paths = draw_clips(folder / what, combinations, draw)
        items = [models[EXACT].extract(path) for path in paths]
        own = np.repeat(np.arange(len(items)), CAPTIONS_EACH)
        rng = np.random.default_rng(0)
        texts = [caption(combinations[i], rng) for i in own]
        for precision, model in models.items():
            vectors = model.encode_text(texts), model.encode_video(items)
            found = summary(ranks(*vectors, np.arange(len(own)), own).t2v)
            print(f"sample, {what} pairs, {precision}: R@1 {found['R@1']:.1f} %")


def main() -> None:
    print(json.dumps(describe_machine(torch.get_num_threads())))
    with tempfile.TemporaryDirectory() as name:
        compare_towers(Path(name, "vocabulary"))
        compare_retrieval(Path(name, "clips"))


if __name__ == "__main__":
    main()

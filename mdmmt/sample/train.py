"""Train the sample model: draw clips, run the experts on them, train, evaluate, write.

    python -m mdmmt.sample.train --out mdmmt/sample/model

The loop is that of `mdmmt.training`, with texts and a loss from here. Each batch has full captions,
queries that name a part of a clip, and sentences about other things. The loss is the bidirectional
max-margin ranking loss of MMT (Gabeur et al., 2020) over the inner product, where a text has all
the clips that it describes, terms that hold the scores themselves where they belong, and one that
keeps all experts in use. Training has no combination of HELD_OUT,
none of the combinations of both tests, and none of the wordings of `trials`. The same seed gives
the same weights on the same machine. On another processor the last bits may differ, and with them
the weights.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import platform
import string
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import BertTokenizerFast  # type: ignore[attr-defined] # not in its types

from ..batch.extract import extract_file
from ..config import EncoderConfig, ExpertConfig, ModelConfig, TextConfig, VideoConfig
from ..experts import LIGHT_EXPERTS, expert_classes, load
from ..features.files import SUFFIX, read_features
from ..features.tokens import VideoTokens, tokens_of
from ..model import load as load_model
from ..towers.text import TextTower
from ..towers.tokenizer import Tokenizer
from ..towers.video import VideoTower
from ..training import BatchTexts, DatasetConfig, Sample, TrainingConfig
from ..training import train as train_model
from ..weights.folder import save_model
from . import THRESHOLD
from .batches import pad_texts, pad_videos
from .captions import caption, query, words
from .clips import COMBINATIONS, Combination, draw
from .others import other_sentence
from .trials import OTHER_SENTENCES, trial_queries

HELD_OUT = (  # pairs of attributes that never occur together in training
    {"colour": "red", "shape": "star"},
    {"colour": "green", "shape": "diamond"},
    {"colour": "blue", "shape": "circle"},
    {"colour": "yellow", "shape": "square"},
    {"movement": "left", "change": "blink"},
    {"movement": "up", "change": "shrink"},
    {"movement": "round", "change": "grow"},
)
TRAIN_CLIPS = 3000
TEST_CLIPS = 200
# The first part of the seed of each draw.
TRAIN_DRAW, SEEN_DRAW, UNSEEN_DRAW, _, TEST_CAPTIONS, TRIALS = range(6)
TRIAL_QUERIES = 200
PROCESSES = 2  # that draw and extract
THREADS = 1  # of torch: towers this small gain nothing from more

WIDTH = 128
EPOCHS = 32
BATCH_SIZE = 64  # clips, each with a query
CAPTIONS = 32  # of the clips of a batch
OTHERS = 24  # sentences of a batch about other things
NAMED = (0.35, 0.4, 0.15, 0.1)  # shares of the queries that name one attribute, two, three, four
MARGIN = 0.2
RANKING = 2.0  # weight of the ranking losses
SCORES = 20.0  # weight of the queries' squared errors in `score_loss`
RIGHT, OTHER = 0.7, 0.0  # scores: see `score_loss`
BALANCE = 0.05  # weight of `imbalance` beside the ranking loss
LEARNING_RATE = 2e-3
BETA2 = 0.98  # of Adam, which must follow gradients that shrink a hundredfold
MIN_DEVIATION = 0.02  # added to each feature's, so that a nearly constant one is not blown up
WARM_UP = 0.1  # share of the steps in which the learning rate rises
INIT_STD = 0.06
WEIGHT_DECAY = 0.3
DROPOUT = 0.0  # new captions in every epoch suffice: training and test clips score alike

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Clips(NamedTuple):
    """Clips of distinct combinations, ready for the tower."""

    combinations: Sequence[Combination]
    files: Sequence[Path]  # of their features
    videos: Sequence[VideoTokens]


class Named(NamedTuple):
    """What the loss is told about the texts of a batch of v clips.

    They are captions of the first clips, a query for each clip, and sentences about other things.
    """

    same: Tensor  # [v, v, attributes] bool, whether two clips share a value
    named: Tensor  # [d, attributes] bool, which attributes each caption and query names


def is_held_out(combination: Combination) -> bool:
    """Whether training leaves this combination out for a pair of its attributes."""
    values = combination._asdict()
    return any(pair.items() <= values.items() for pair in HELD_OUT)


def split() -> tuple[list[Combination], list[Combination], list[Combination]]:
    """Disjoint combinations for training, the test on seen pairs and the test on unseen pairs."""
    rng = np.random.default_rng(0)
    shuffled = [COMBINATIONS[i] for i in rng.permutation(len(COMBINATIONS))]
    unseen = [c for c in shuffled if is_held_out(c)][:TEST_CLIPS]
    rest = [c for c in shuffled if not is_held_out(c)]
    return rest[TEST_CLIPS:][:TRAIN_CLIPS], rest[:TEST_CLIPS], unseen


def make_tokenizer() -> Any:
    """A Hugging Face WordPiece tokenizer with the words of captions, and letters for others."""
    characters = string.ascii_lowercase + string.digits
    pieces = sorted(words() | set(characters) | set(string.punctuation))
    vocabulary = (*SPECIAL_TOKENS, *pieces, *(f"##{c}" for c in characters))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        return BertTokenizerFast.from_pretrained(folder, do_lower_case=True)


def make_config(vocab_size: int) -> ModelConfig:
    """The configuration: the released model's shape at a small size, over the light experts."""
    encoder = partial(
        EncoderConfig,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
        initializer_range=INIT_STD,
    )
    experts = tuple(
        ExpertConfig(name, dim=expert.dim, type_id=1 + i)
        for i, (name, expert) in enumerate(expert_classes(LIGHT_EXPERTS).items())
    )
    video = VideoConfig(
        experts=experts,
        encoder=encoder(max_position_embeddings=32, type_vocab_size=1 + len(experts)),
        same_dim=WIDTH,
    )
    text = TextConfig(
        experts=LIGHT_EXPERTS,
        bert=encoder(max_position_embeddings=32, type_vocab_size=2, vocab_size=vocab_size),
        same_dim=WIDTH,
        dropout=DROPOUT,
    )
    return ModelConfig(video, text)


def draw_clips(
    folder: Path,
    combinations: Sequence[Combination],
    seed: int,
    map_: Callable[..., Iterable[Any]] = map,
) -> list[Path]:
    """Write a clip of each combination into `folder`; a clip that exists is left."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:05}.mp4" for i in range(len(combinations))]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    drawn = map_(
        draw,
        [paths[i] for i in missing],
        [combinations[i] for i in missing],
        [(seed, i) for i in missing],
    )
    for _ in tqdm(drawn, total=len(missing), desc=f"draw {folder.name}"):
        pass
    return paths


def read_clips(
    combinations: Sequence[Combination],
    paths: Sequence[Path],
    experts: Sequence[ExpertConfig],
    map_: Callable[..., Iterable[Any]] = map,
) -> Clips:
    """Read drawn clips. Their features are kept in feature files beside them."""
    files = [path.with_name(path.name + SUFFIX) for path in paths]
    running = load([expert.name for expert in experts])
    done = map_(partial(extract_file, running=running), paths, files)
    for _ in tqdm(done, total=len(paths), desc="extract"):
        pass
    videos = [tokens_of(read_features(file).features, experts, str(file)) for file in files]
    return Clips(combinations, files, videos)


def max_margin_loss(scores: Tensor, matches: Tensor) -> Tensor:
    """The max-margin ranking loss: what matches a row must score MARGIN above all that does not.

    scores [r, c], matches [r, c] bool -> [], the mean over the rows
    """
    margins = F.relu(MARGIN + scores[:, None, :] - scores[:, :, None])  # [r, match, other]
    pairs = matches[:, :, None] & ~matches[:, None, :]
    return ((margins * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)).mean()


def score_loss(described: Tensor, shares: Tensor, others: Tensor) -> Tensor:
    """The loss that gives the same scale of scores to all texts.

    A caption or query scores RIGHT times the share of its attributes that a clip has, no more and
    no less, and a sentence about other things scores OTHER or less with its best clip. A bound in
    place of the exact score would let attributes count against those that they never occur with in
    training, and such a pair would not be found.

    described [d, v] scores, shares [d, v], others [o, v] scores -> []
    """
    return SCORES * F.mse_loss(described, RIGHT * shares) + F.relu(others - OTHER).amax(1).mean()


def batch_loss(text: Tensor, video: Tensor, told: Named) -> Tensor:
    """The ranking losses of both directions, the `score_loss` and the `imbalance` of a batch.

    text [t, m*e], video [v, m*e] -> []
    """
    same, named = told
    scores, described, clips = text @ video.T, len(named), len(same)
    same = torch.cat([same[: described - clips], same])  # [d, v, attributes]
    shares = (same & named[:, None]).sum(2) / named.sum(1)[:, None]
    matches = shares == 1
    none = torch.zeros(len(scores) - described, clips, dtype=torch.bool)
    loss = RANKING * max_margin_loss(scores[:described], matches)
    loss = loss + RANKING * max_margin_loss(scores.T, torch.cat([matches, none]).T)
    loss = loss + score_loss(scores[:described], shares, scores[described:])
    return loss + BALANCE * imbalance(text[: described - clips])


def imbalance(text: Tensor) -> Tensor:
    """The imbalance of the expert weights of a batch of texts: 0 if all weigh alike on average.

    Without it, training soon settles on a single expert's block and never uses the others.

    text [b, m*e], whose blocks have the experts' weights for norms -> [], a KL divergence
    """
    experts = len(LIGHT_EXPERTS)
    mean = text.unflatten(1, (experts, -1)).norm(dim=-1).mean(dim=0)
    return (mean * (mean * experts).log()).sum()


@torch.no_grad()
def standardise(tower: VideoTower, videos: Sequence[VideoTokens]) -> None:
    """Fold the mean and deviation of each expert's features into the layer that reads them.

    The tower then starts as if its features were standardised, and learns several times faster.
    """
    for name, reduce in tower.video_dim_reduce.items():
        features = torch.cat([video[name].features for video in videos if name in video])
        mean, deviation = features.mean(dim=0), features.std(dim=0) + MIN_DEVIATION
        assert isinstance(reduce.fc, nn.Linear)
        reduce.fc.weight.div_(deviation)
        reduce.fc.bias.sub_(reduce.fc.weight @ mean)


class MakeTexts:
    """Draws the texts of the batches of the training loop."""

    def __init__(self, clips: Mapping[Path, Combination]) -> None:
        """For the feature files of clips, and what each shows."""
        self.clips = clips

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> BatchTexts:
        clips = [self.clips[sample.segment.file] for sample in samples]
        texts, named = draw_texts(clips, rng)
        codes = np.array([list(clip) for clip in clips])
        same = torch.from_numpy(codes[:, None] == codes)
        return BatchTexts(texts, Named(same, torch.from_numpy(named)))


def draw_texts(
    clips: Sequence[Combination], rng: np.random.Generator
) -> tuple[list[str], NDArray[np.bool_]]:
    """Draw the texts of a batch of clips.

    Returns:
        The captions of the first clips, a query for each clip, and sentences about other things;
        and which attributes each caption and query names, [CAPTIONS + b, attributes].
    """
    captions = [caption(clip, rng) for clip in clips[:CAPTIONS]]
    named = np.zeros((len(clips), len(Combination._fields)), dtype=bool)
    for row in named:
        count = rng.choice(len(NAMED), p=NAMED) + 1
        row[rng.permutation(len(row))[:count]] = True
    queries = []
    for clip, row in zip(clips, named, strict=True):
        chosen = zip(clip._asdict().items(), row, strict=True)
        queries.append(query(dict(pair for pair, is_named in chosen if is_named), rng))
    others = [other_sentence(rng) for _ in range(OTHERS)]
    return [*captions, *queries, *others], np.concatenate([np.ones_like(named[:CAPTIONS]), named])


def train(
    clips: Clips, config: ModelConfig, tokenizer: Any, seed: int, folder: Path, epochs: int = EPOCHS
) -> tuple[VideoTower, TextTower]:
    """Train both towers from random weights. Texts are drawn anew for every batch.

    Args:
        tokenizer: of Hugging Face.
        folder: keeps the run, so that one that was stopped goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    video_tower, text_tower = VideoTower(config.video), TextTower(config.text)
    standardise(video_tower, clips.videos)
    save_model(folder / "init", config, video_tower, text_tower, tokenizer)
    # The loop finds the clips by these captions; the texts of its batches are drawn.
    captions = folder / "clips.jsonl"
    lines = [
        {"video": file.name.removesuffix(SUFFIX), "caption": " ".join(clip)}
        for clip, file in zip(clips.combinations, clips.files, strict=True)
    ]
    captions.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    settings = TrainingConfig(
        out=str(folder / "run"),
        datasets=(DatasetConfig(str(captions), str(clips.files[0].parent)),),
        init=str(folder / "init"),
        seed=seed,
        device="cpu",
        epochs=epochs,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        schedule="one-cycle",
        warm_up=round(WARM_UP * epochs * (len(clips.files) // BATCH_SIZE)),
        beta2=BETA2,
        weight_decay=WEIGHT_DECAY,
    )
    texts = MakeTexts(dict(zip(clips.files, clips.combinations, strict=True)))
    result = train_model(settings, show_progress=True, loss=batch_loss, texts=texts)
    model = load_model(result.folder, "cpu")
    return model.read_video_tower(), model.read_text_tower()


@torch.inference_mode()
def evaluate(
    clips: Clips, video_tower: VideoTower, text_tower: TextTower, tokenizer: Tokenizer, seed: int
) -> dict[str, float]:
    """Evaluate text-to-video retrieval with one caption a clip. Ties count against the model.

    Returns:
        R@1 and R@5 in percent, and the lower median of the ranks.
    """
    rng = np.random.default_rng((TEST_CAPTIONS, seed))
    texts = [caption(combination, rng) for combination in clips.combinations]
    scores = score(texts, clips.videos, video_tower, text_tower, tokenizer)
    ranks = (scores >= scores.diagonal()[:, None]).sum(dim=1)
    return {
        "R@1": round(100 * (ranks <= 1).double().mean().item(), 1),
        "R@5": round(100 * (ranks <= 5).double().mean().item(), 1),
        "MedR": ranks.median().item(),
    }


@torch.inference_mode()
def evaluate_trials(
    clips: Clips,
    video_tower: VideoTower,
    text_tower: TextTower,
    tokenizer: Tokenizer,
    seed: int,
) -> dict[str, float]:
    """Evaluate queries and sentences of `trials`, in percent.

    Returns:
        The first hits that are what a query of one or two attributes names, and the queries and the
        sentences about other things whose first hit scores less than THRESHOLD.
    """
    rng = np.random.default_rng((TRIALS, seed))
    queries = trial_queries(clips.combinations, TRIAL_QUERIES, rng)
    towers = (video_tower, text_tower, tokenizer)
    scores = score([text for text, _ in queries], clips.videos, *towers)
    others = score(OTHER_SENTENCES, clips.videos, *towers)
    right = [
        values.items() <= clips.combinations[first]._asdict().items()
        for (_, values), first in zip(queries, scores.argmax(1).tolist(), strict=True)
    ]
    return {
        "first hits right": round(100 * float(np.mean(right)), 1),
        "queries below": round(100 * (scores.amax(1) < THRESHOLD).double().mean().item(), 1),
        "others below": round(100 * (others.amax(1) < THRESHOLD).double().mean().item(), 1),
    }


def score(
    texts: Sequence[str],
    videos: Sequence[VideoTokens],
    video_tower: VideoTower,
    text_tower: TextTower,
    tokenizer: Tokenizer,
) -> Tensor:
    """The inner products of texts and videos, [texts, videos]."""
    video = video_tower(*pad_videos(videos, video_tower.config.experts))
    return text_tower(*pad_texts(tokenizer(texts), tokenizer)) @ video.T


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="a model is trained and reported with each; the first one's is written",
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="a folder that keeps the clips and their features, so that a stopped run goes on",
    )
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    seconds: dict[str, float] = {}

    hf_tokenizer = make_tokenizer()
    config = make_config(len(hf_tokenizer))
    tokenizer = Tokenizer(hf_tokenizer, config.text)
    names = ("train", "seen pairs", "unseen pairs")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.work or Path(scratch)
        # A fresh interpreter for each process: a fork would copy torch's threads half-way.
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(PROCESSES, mp_context=fresh) as pool:
            map_ = partial(pool.map, chunksize=8)
            started = time.perf_counter()
            draws = list(zip(names, split(), (TRAIN_DRAW, SEEN_DRAW, UNSEEN_DRAW), strict=True))
            paths = [draw_clips(folder / name, some, seed, map_) for name, some, seed in draws]
            seconds["draw"] = time.perf_counter() - started
            started = time.perf_counter()
            clips = {
                name: read_clips(some, files, config.video.experts, map_)
                for (name, some, _), files in zip(draws, paths, strict=True)
            }
            seconds["extract"] = time.perf_counter() - started

        results: list[dict[str, Any]] = []
        for seed in args.seeds:
            started = time.perf_counter()
            run = folder / f"seed {seed}"
            towers = train(clips["train"], config, hf_tokenizer, seed, run)
            seconds[f"train, seed {seed}"] = time.perf_counter() - started
            results.append({"seed": seed})
            for name in names[1:]:
                results[-1][name] = {
                    **evaluate(clips[name], *towers, tokenizer, seed),
                    **evaluate_trials(clips[name], *towers, tokenizer, seed),
                }
            print(json.dumps(results[-1]))
            if seed == args.seeds[0]:
                save_model(args.out, config, *towers, hf_tokenizer)
    report = {
        "task": f"text-to-video among {TEST_CLIPS} clips of as many new combinations",
        "threshold": THRESHOLD,
        "results": results,
        "clips": {name: len(some.videos) for name, some in clips.items()},
        "held-out pairs": [" ".join(pair.values()) for pair in HELD_OUT],
        "seconds": {stage: round(spent, 1) for stage, spent in seconds.items()},
        "machine": {"processor": _processor(), "torch threads": THREADS, "processes": PROCESSES},
        "versions": {"python": platform.python_version(), **_versions(("torch", "numpy", "av"))},
        "date": datetime.date.today().isoformat(),
    }
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def _versions(names: Iterable[str]) -> dict[str, str]:
    return {name: version(name) for name in names}


def _processor() -> str:
    """The processor's model where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()

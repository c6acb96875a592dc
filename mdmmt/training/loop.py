"""The training loop.

A step has four parts. Both towers encode the pairs of this process: the video tower to the end, the
text tower as far as BERT's first token. These vectors are gathered from all processes. Behind them,
the heads of the text tower, whose batch norm must see the whole batch, and the loss are computed
by each process alike. The gradients of the loss at the vectors then go back through the encoders.

    run folder            what `weight_path` takes: the model of the best epoch
      last/               the model of the last epoch
      checkpoints/        what the run needs to go on
      settings.json       the settings, which a run that goes on must have
      log.jsonl           a line for each step and each epoch
      progress.png        loss and recall
"""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets import Caption, read_captions, read_exclusions
from ..errors import InputError
from ..evaluation import Result, evaluate
from ..features import FeatureFolder, VideoTokens
from ..model import Model, load
from ..storage.files import atomic_file, check_folder, sha256_of
from ..storage.folders import atomic_folder
from ..storage.text import parse_json, read_text
from ..towers.text import TextTower
from ..towers.transformer import SelfAttention
from ..towers.video import VideoTower
from ..version import VERSION
from ..weights.folder import CARD_FILE, save_model
from ..weights.layout import weights_file
from . import progress
from .card import model_card
from .checkpoints import RunState, find_checkpoints, load_checkpoint, save_checkpoint
from .config import (
    GEOMETRIC_MEAN,
    NOTHING,
    RANKING,
    TrainingConfig,
    differences,
    from_mapping,
    to_mapping,
)
from .data import (
    VAL_SPLIT,
    Batch,
    Sample,
    SegmentReader,
    TrainingData,
    check_paths,
    read_training_data,
)
from .lora import add_lora, merged
from .losses import info_nce_loss, max_margin_loss, negatives
from .packed import encode_texts, encode_videos
from .processes import Processes

LAST, CHECKPOINTS, SETTINGS_FILE = "last", "checkpoints", "settings.json"
BETAS, EPS = (0.9, 0.999), 1e-8  # of Adam, as in MMT
MAX_NAMED = 5  # pairs of a batch that a message names
# A loss of a batch: the embeddings [b, d] of its texts and of its videos, and its samples -> []
Loss = Callable[[Tensor, Tensor, Sequence[Sample]], Tensor]

HEADS = 0  # the part of the text tower that all processes compute alike, among the random seeds


@dataclass(frozen=True)
class TrainingResult:
    """What a run has made."""

    folder: Path  # the model folder of the best epoch
    best_epoch: int  # from 1
    history: list[dict[str, Any]]  # of each epoch: its loss, and the metrics of each validation
    is_main: bool  # whether this process wrote the folder; of several, one does


@dataclass(frozen=True)
class Validation:
    """The captions and features on which a dataset is validated."""

    name: str
    captions: Sequence[Caption]
    features: FeatureFolder


def train(
    config: TrainingConfig, show_progress: bool = False, loss: Loss | None = None
) -> TrainingResult:
    """Train a model. A run that was stopped goes on where its last checkpoint is.

    Args:
        config: the settings.
        show_progress: draw a progress bar on stderr.
        loss: a loss of your own; None: that of the settings. It takes the embeddings [b, d] of the
            texts and of the videos of the whole batch and its samples, row by row, and returns
            one number. Each of several processes computes it alike. torch's random numbers follow
            from the seed and the step. A run that goes on needs the same loss.

    Raises:
        InputError: captions, features or settings that cannot be used, which is found before the
            first step; or a loss that is not a number.
        WeightsError: the weights to start from cannot be used.
        MissingDependency: the extra `train` is not installed.
    """
    progress.check_plot()
    out = Path(config.out).expanduser()
    check_folder(out)
    processes = Processes(config.device)
    processes.check_batch(config.batch_size)
    device = processes.device
    check_paths(config.datasets)
    model = load(config.init, "cpu")
    names = [expert.name for expert in model.config.video.experts]
    exclusions = None if config.exclude is None else read_exclusions(config.exclude)
    data = read_training_data(
        config.datasets, model.config.video.experts, config.skip_missing, exclusions
    )
    validations = _read_validations(config, model)
    count = config.samples_per_epoch or sum(map(len, data.datasets))
    steps = count // config.batch_size  # of an epoch
    if not steps:
        raise InputError(
            f"the datasets have {count} segments, which fill no batch of {config.batch_size}; "
            "expected a smaller batch_size, or samples_per_epoch"
        )
    towers = make_towers(config, model).to(device)
    optimiser = make_optimiser(config, towers)
    if processes.is_main:
        _open_run(out, config, data, loss)
    processes.wait()
    show_progress = show_progress and processes.is_main
    state = _last_state(out, towers, optimiser, device)
    log = progress.Log(out, state.step, config.tensorboard) if processes.is_main else None
    reader = SegmentReader(model.config.video.experts)
    trainer = Trainer(config, towers, optimiser, model, processes, loss)
    folder = _RunFolder(out, config, model, data, towers, loss)
    with _deterministic(device):
        for epoch in range(state.step // steps, config.epochs):
            if _is_over(config, state):
                break
            samples = data.draw_epoch(config.seed, epoch, count, names, config.expert_dropout)
            done = state.step % steps
            losses = [line["loss"] for line in progress.read_log(out)[-done:] if done]
            size = config.batch_size
            with progress.progress_bar(show_progress, steps * size, done * size, epoch + 1) as bar:
                for batch in reader.batches(samples, size, done, processes.index, processes.count):
                    started = time.perf_counter()
                    line: dict[str, float] = {"step": state.step + 1, "epoch": epoch + 1}
                    line |= trainer.step(batch, state.step, epoch)
                    line["seconds"] = round(time.perf_counter() - started, 4)
                    state.step += 1
                    if log is not None:
                        log.write(line)
                    losses.append(line["loss"])
                    bar.set_postfix(loss=f"{line['loss']:.4f}", recall=f"{line['recall']:.0%}")
                    bar.update(size)
                    is_due = state.step % config.checkpoint_steps == 0 and state.step % steps
                    if is_due and processes.is_main:
                        save_checkpoint(out / CHECKPOINTS, state, towers, optimiser)
            if log is not None:
                folder.finish_epoch(state, epoch + 1, float(np.mean(losses)), validations)
                log.write({"step": state.step, **state.history[-1]})
                save_checkpoint(out / CHECKPOINTS, state, towers, optimiser)
                progress.plot(out, progress.read_log(out), state)
            state = processes.share(state)
    assert state.best_epoch is not None  # there is at least one epoch
    return TrainingResult(out, state.best_epoch, state.history, processes.is_main)


class Chunk(NamedTuple):
    """Pairs that are encoded at once."""

    texts: Sequence[str]
    videos: Sequence[VideoTokens]


class Towers(nn.Module):
    """Both towers, by the names that `freeze` takes."""

    def __init__(self, video: VideoTower, text: TextTower) -> None:
        super().__init__()
        self.video, self.text = video, text


class Trainer:
    """Computes steps."""

    def __init__(
        self,
        config: TrainingConfig,
        towers: Towers,
        optimiser: torch.optim.Optimizer,
        model: Model,
        processes: Processes,
        loss: Loss | None = None,
    ) -> None:
        """For towers and their optimiser; the model gives the tokenizer. See `train` for a loss."""
        self.config, self.towers, self.optimiser = config, towers, optimiser
        self.processes = processes
        self.loss = loss_of(config) if loss is None else loss
        self.tokenizer = model.tokenizer

    def step(self, batch: Batch, step: int, epoch: int) -> dict[str, float]:
        """Compute a step.

        Args:
            step: the steps that are done.
            epoch: its number, from 0.

        Returns:
            The loss, the recall within the batch, and the learning rate.

        Raises:
            InputError: the loss is not a number; the message names the batch's pairs.
        """
        factor = learning_rate_factor(self.config, step, epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * factor
        self.optimiser.zero_grad(set_to_none=True)
        loss, scores = self.backward(batch, step)
        if not math.isfinite(loss):
            raise InputError(
                f"the loss of step {step + 1} is {loss}, so the run has stopped; the weights of "
                f"the last checkpoint are kept. The pairs of this batch are {_describe(batch)}"
            )
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.towers.parameters(), self.config.clip)
        self.optimiser.step()
        recall = (scores.argmax(dim=1).cpu() == torch.arange(len(scores))).double().mean()
        rate = self.optimiser.param_groups[0]["lr"]
        return {"loss": loss, "recall": recall.item(), "learning_rate": rate}

    def backward(self, batch: Batch, step: int) -> tuple[float, Tensor]:
        """Compute the loss of a batch and its gradients, and the scores [b, b].

        If the pairs of this process are encoded in several chunks, the method is that of GradCache
        (Gao et al., 2021): each chunk is encoded without a graph, and a second time once the
        gradients at its outputs are known. The same random numbers are drawn both times.
        """
        chunks = list(self.chunks(batch))
        is_cached = len(chunks) > 1
        with torch.set_grad_enabled(not is_cached):
            outputs = [self.encode(chunk, step, number) for number, chunk in enumerate(chunks)]
        # The loss is computed from copies, whose gradients then go back through the encoders.
        first, video = (
            self.processes.gather(torch.cat(parts).detach()).requires_grad_()
            for parts in zip(*outputs, strict=True)
        )
        seed_torch(self.config.seed, step, HEADS)
        embedded = self.towers.text.heads(first)
        loss = self.loss(embedded, video, batch.samples)
        if loss.ndim or not loss.requires_grad:
            raise InputError(
                f"the loss is of shape {tuple(loss.shape)} and depends on "
                f"{'the embeddings' if loss.requires_grad else 'no embedding'}; expected one "
                "number that is computed from the embeddings of the texts and of the videos"
            )
        loss.backward()
        sizes = [len(chunk.videos) for chunk in chunks]
        of_texts, of_videos = (
            (torch.zeros_like(x) if x.grad is None else x.grad)[batch.own].split(sizes)
            for x in (first, video)
        )
        for number, gradients in enumerate(zip(of_texts, of_videos, strict=True)):
            output = self.encode(chunks[number], step, number) if is_cached else outputs[number]
            for vectors, gradient in zip(output, gradients, strict=True):
                if vectors.requires_grad:  # a frozen tower has no gradients
                    vectors.backward(gradient)
        text = self.towers.text
        alike = [*text.text_gu.parameters(), *text.moe_fc_txt.parameters()]
        self.processes.add_gradients(self.towers.parameters(), alike)
        return loss.item(), (embedded @ video.T).detach()

    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        """The pairs of this process, as many at a time as are encoded at once."""
        samples = batch.samples[batch.own]
        size = self.config.chunk_size or len(samples)
        for at in range(0, len(samples), size):
            texts = [caption_text(sample.caption) for sample in samples[at : at + size]]
            yield Chunk(texts, batch.videos[at : at + size])

    def encode(self, chunk: Chunk, step: int, number: int) -> tuple[Tensor, Tensor]:
        """BERT's first tokens [b, d] and the embeddings of the videos [b, m * same_dim].

        Args:
            number: of the chunk; with the step it decides what dropout leaves out.
        """
        seed_torch(self.config.seed, step, 1 + self.processes.index, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of captions longer than the model takes
            ids = self.tokenizer(chunk.texts)
        low = self.config.precision == "bfloat16"
        with torch.autocast(self.processes.device.type, dtype=torch.bfloat16, enabled=low):
            return encode_texts(self.towers.text, ids), encode_videos(
                self.towers.video, chunk.videos
            )


def loss_of(config: TrainingConfig) -> Loss:
    """The loss that the settings name."""

    def loss(text: Tensor, video: Tensor, samples: Sequence[Sample]) -> Tensor:
        scores = text @ video.T
        captions = numbered([caption_text(sample.caption) for sample in samples])
        videos = numbered([sample.segment.file for sample in samples])
        negative = negatives(captions, videos).to(scores.device)
        if config.loss == RANKING:
            return max_margin_loss(scores, negative, config.margin)
        return info_nce_loss(scores, negative, config.temperature)

    return loss


def name_of_loss(loss: Loss | None) -> str | None:
    """How the run folder names the loss of a caller; None for that of the settings."""
    if loss is None:
        return None
    named = loss if hasattr(loss, "__qualname__") else type(loss)
    return f"{named.__module__}.{named.__qualname__}"


def make_towers(config: TrainingConfig, model: Model) -> Towers:
    """Both towers in training mode, one of them frozen if the settings say so."""
    if config.random_weights:
        with torch.random.fork_rng([]):
            torch.manual_seed(config.seed)
            video, text = VideoTower(model.config.video), TextTower(model.config.text)
    else:
        video, text = model.read_video_tower(), model.read_text_tower()
    towers = Towers(video, text).float().train()
    if config.dropout is not None:
        for part in towers.modules():
            if isinstance(part, nn.Dropout):
                part.p = config.dropout
            elif isinstance(part, SelfAttention):
                part.dropout_p = config.dropout
    if config.lora_rank is not None:
        add_lora(text, config.lora_rank, config.seed)
    if config.freeze != NOTHING:
        towers.get_submodule(config.freeze).eval().requires_grad_(False)
    return towers


def make_optimiser(config: TrainingConfig, towers: Towers) -> torch.optim.Optimizer:
    """Adam with a learning rate of its own for BERT, and decoupled weight decay."""
    bert = set(towers.text.txt_bert.parameters())
    trained = [one for one in towers.parameters() if one.requires_grad]
    groups = [
        {"params": [one for one in trained if one not in bert], "base": config.learning_rate},
        {
            "params": [one for one in trained if one in bert],
            "base": config.bert_learning_rate or config.learning_rate,
        },
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=BETAS,
        eps=EPS,
        weight_decay=config.weight_decay,
    )


def learning_rate_factor(config: TrainingConfig, step: int, epoch: int) -> float:
    """By what the learning rates of a step are multiplied: warm-up, and decay after each epoch."""
    warm_up = min(1.0, (step + 1) / config.warm_up) if config.warm_up else 1.0
    return float(warm_up * config.decay**epoch)


def seed_torch(*numbers: int) -> None:
    """Seed torch's generators of random numbers from several numbers."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(seed) >> 1)


def caption_text(caption: Caption) -> str:
    """The text of a caption, with single spaces."""
    return " ".join(caption.text.split())


def numbered(keys: Sequence[Any]) -> Tensor:
    """A number for each key, the same for equal keys, [b] int64."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([numbers[key] for key in keys])


class _RunFolder:
    """Writes the models of a run."""

    def __init__(
        self,
        out: Path,
        config: TrainingConfig,
        model: Model,
        data: TrainingData,
        towers: Towers,
        loss: Loss | None,
    ) -> None:
        self.out, self.config, self.model, self.towers = out, config, model, towers
        self.loss = name_of_loss(loss)
        self.sizes = [
            (len(segments), sum(len(one.captions) for one in segments))
            for segments in data.datasets
        ]
        origin = model.path.name
        self.origin = (
            f"random weights in the shape of {origin}" if config.random_weights else origin
        )
        self.facts = {
            "origin": f"{self.origin}, trained by mdmmt {VERSION}",
            "origin_sha256": sha256_of(weights_file(model.path)),
        }

    def finish_epoch(
        self, state: RunState, epoch: int, loss: float, validations: Sequence[Validation]
    ) -> None:
        """Write the model of an epoch, validate it, and keep it if it is the best one."""
        last = (self.out / LAST).absolute()
        with atomic_folder(last) as built:
            self._save(built, epoch, {})
        results = {one.name: _validate(last, one, self.config) for one in validations}
        metrics = {name: result.metrics for name, result in results.items()}
        line: dict[str, Any] = {"epoch": epoch, "mean_loss": loss, "validation": metrics}
        if metrics:
            scores = [metric_of(one["t2v"], self.config.metric) for one in metrics.values()]
            line["metric"] = float(np.mean(scores))
        state.history.append(line)
        metric = line.get("metric")
        if metric is None or state.best is None or metric > state.best:
            state.best_epoch, state.best = epoch, metric
            self._save(self.out, epoch, metrics)

    def _save(
        self, folder: Path, epoch: int, metrics: dict[str, dict[str, dict[str, float]]]
    ) -> None:
        tokenizer = self.model.tokenizer.tokenizer
        video, text = self.towers.video, self.towers.text
        if self.config.lora_rank is not None:
            text = merged(text)
        save_model(folder, self.model.config, video, text, tokenizer, self.facts)
        card = model_card(self.config, self.origin, self.sizes, epoch, metrics, self.loss)
        with atomic_file(folder / CARD_FILE) as part:
            part.write_text(card, encoding="utf-8")


def metric_of(metrics: dict[str, float], name: str) -> float:
    """The metric by which epochs are compared; see `mdmmt.training.config.METRICS`."""
    if name != GEOMETRIC_MEAN:
        return metrics[name]
    return float(np.prod([metrics[f"R@{k}"] for k in (1, 5, 10)]) ** (1 / 3))


def _validate(folder: Path, validation: Validation, config: TrainingConfig) -> Result:
    """Evaluate a model folder, so that what is measured is what is written."""
    return evaluate(
        load(folder, config.device),
        validation.captions,
        validation.features,
        skip_missing=config.skip_missing,
    )


def _read_validations(config: TrainingConfig, model: Model) -> list[Validation]:
    """Read the captions of all validations, and check that their features are there."""
    validations = []
    for dataset in config.datasets:
        if dataset.val is None:
            continue
        captions = read_captions(dataset.val, dataset.val_split, VAL_SPLIT)
        features = FeatureFolder(dataset.val_features or dataset.features)
        missing = [caption for caption in captions if caption.video not in features]
        if missing and not config.skip_missing:
            raise InputError(
                f"{missing[0].where}: there are no features of the video {missing[0].video!r}, as "
                f"of {len(missing) - 1} more captions of this validation"
            )
        validations.append(Validation(dataset.val, captions, features))
    return validations


def _open_run(out: Path, config: TrainingConfig, data: TrainingData, loss: Loss | None) -> None:
    """Take a new folder for a run, or the folder of the same run, which then goes on.

    Raises:
        InputError: the folder holds another run, or other things.
    """
    file = out / SETTINGS_FILE
    if file.exists():
        settings = parse_json(read_text(file), str(file))
        changed = differences(from_mapping(settings["settings"], str(file)), config)
        if settings["pairs"] != data.digest:
            changed.append("the captions and segments")
        if settings.get("loss") != name_of_loss(loss):
            changed.append("the loss that is passed in Python")
        if changed:
            raise InputError(
                f"{out} holds a run of other settings ({', '.join(changed)}); expected the same "
                "to go on with it, or another folder to begin a new one"
            )
    elif out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(
            f"{out} exists and holds no run, and was left as it was; expected a new folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(".saving-*"):  # by a process that was killed
        shutil.rmtree(left)
    with atomic_file(file) as part:
        settings = {
            "settings": to_mapping(config),
            "pairs": data.digest,
            "loss": name_of_loss(loss),
        }
        part.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _last_state(
    out: Path, towers: Towers, optimiser: torch.optim.Optimizer, device: torch.device
) -> RunState:
    """How far the run of a folder has come; its last checkpoint is read."""
    found = find_checkpoints(out / CHECKPOINTS)
    return load_checkpoint(found[-1], towers, optimiser, device) if found else RunState()


def _is_over(config: TrainingConfig, state: RunState) -> bool:
    """Whether the last epochs have brought nothing better, as many as the settings wait for."""
    if config.patience is None or state.best is None or state.best_epoch is None:
        return False
    return len(state.history) - state.best_epoch >= config.patience


def _describe(batch: Batch) -> str:
    named = [
        f"{sample.caption.where or sample.caption.video}: {sample.caption.text[:60]!r}"
        for sample in batch.samples[:MAX_NAMED]
    ]
    rest = len(batch.samples) - MAX_NAMED
    return "; ".join(named) + (f"; and {rest} more" if rest > 0 else "")


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Let torch compute the same numbers each time on a processor, and restore its random state."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if device.type == "cpu":
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)

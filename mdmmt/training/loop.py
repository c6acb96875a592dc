"""The training loop.

A step has four parts. Both towers encode the texts and videos of this process: the video tower to
the end, the text tower as far as BERT's first token. These vectors are gathered from all processes.
Behind them, the heads of the text tower, whose batch norm must see the whole batch, and the loss
are computed by each process alike. The gradients of the loss at the vectors then go back through
the encoders.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
from ..storage.text import counted, parse_json, read_text
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
    DECAY,
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

Item = TypeVar("Item")

LAST, CHECKPOINTS, SETTINGS_FILE = "last", "checkpoints", "settings.json"
BETA1, EPS = 0.9, 1e-8  # of Adam, as in MMT
# A one-cycle schedule (Smith, 2018) as in PyTorch: the learning rate at the beginning and at the
# end as a share of the highest, and Adam's first beta where the rate is lowest and highest.
FIRST_SHARE, LAST_SHARE = 1 / 25, 1 / 250_000
BETA1_AT_LOWEST, BETA1_AT_HIGHEST = 0.95, 0.85
MAX_NAMED = 5  # pairs of a batch that a message names

# Random seeds of a step: of the heads, which all processes compute alike, and of a caller's texts.
HEADS, TEXTS = 0, 1


class BatchTexts(NamedTuple):
    """The texts of a batch that its caller makes."""

    texts: Sequence[str]
    told: Any  # what the loss gets with the embeddings, such as which videos each text describes


# A loss of a batch: the embeddings [t, d] of its texts and [b, d] of its videos, and its samples,
# or what `BatchTexts` tells in their place -> []
Loss = Callable[[Tensor, Tensor, Any], Tensor]
# Makes the texts of the samples of a batch, with random numbers.
MakeTexts = Callable[[Sequence[Sample], np.random.Generator], BatchTexts]


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
    config: TrainingConfig,
    show_progress: bool = False,
    loss: Loss | None = None,
    texts: MakeTexts | None = None,
) -> TrainingResult:
    """Train a model. A run that was stopped goes on where its last checkpoint is.

    Args:
        config: the settings.
        show_progress: draw a progress bar on stderr.
        loss: a loss of your own; None: that of the settings. It takes the embeddings [b, d] of the
            texts and of the videos of the whole batch and its samples, row by row, and returns
            one number. Each of several processes computes it alike. torch's random numbers follow
            from the seed and the step. A run that goes on needs the same loss.
        texts: makes the texts of each batch, with a `loss` that knows them; None: the caption of
            each sample. It takes the samples of the whole batch, whose videos are used, and a
            generator of random numbers that follows from the seed and the step. It returns any
            number of texts, and what the loss is told about them in place of the samples.

    Raises:
        InputError: captions, features or settings that cannot be used, which is found before the
            first step; a loss that is not a number; or texts that cannot be used.
        WeightsError: the weights to start from cannot be used.
        MissingDependency: the extra `train` is not installed.
    """
    if texts is not None and loss is None:
        raise InputError("texts are given and no loss, expected a loss that knows such texts")
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
    count, steps = _size_of_epoch(config, data)
    towers = make_towers(config, model).to(device)
    optimiser = make_optimiser(config, towers)
    own = names_of(loss, texts)
    if processes.is_main:
        _open_run(out, config, data, own)
    processes.wait()
    show_progress = show_progress and processes.is_main
    state = _last_state(out, towers, optimiser, device)
    log = progress.Log(out, state.step, config.tensorboard) if processes.is_main else None
    reader = SegmentReader(model.config.video.experts)
    trainer = Trainer(config, towers, optimiser, model, processes, steps, loss, texts)
    folder = _RunFolder(out, config, model, data, towers, own)
    with _deterministic(device):
        for epoch in range(state.step // steps, config.epochs):
            if _is_over(config, state):
                break
            samples = data.draw_epoch(config.seed, epoch, count, names, config.expert_dropout)
            done = state.step % steps  # of this epoch, by a run that was stopped
            losses = [line["loss"] for line in progress.read_log(out)[-done:] if done]
            size = config.batch_size
            with progress.progress_bar(show_progress, steps * size, done * size, epoch + 1) as bar:
                for batch in reader.batches(samples, size, done, processes.index, processes.count):
                    line = _timed_step(trainer, batch, state.step, epoch)
                    state.step += 1
                    if log is not None:
                        log.write(line)
                    losses.append(line["loss"])
                    bar.set_postfix(_bar_values(line))
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


def _size_of_epoch(config: TrainingConfig, data: TrainingData) -> tuple[int, int]:
    """The samples and the steps of an epoch.

    Raises:
        InputError: there are too few samples for a batch.
    """
    samples = config.samples_per_epoch or sum(map(len, data.datasets))
    steps = samples // config.batch_size
    if not steps:
        raise InputError(
            f"the datasets have {counted(samples, 'segment')}, too few for a batch of "
            f"{config.batch_size}; expected a smaller batch_size, or samples_per_epoch"
        )
    return samples, steps


def _timed_step(trainer: Trainer, batch: Batch, step: int, epoch: int) -> dict[str, float]:
    """Compute a step, and make its line of the log.

    Args:
        step: the steps that are done.
        epoch: its number, from 0; the log counts both from 1.
    """
    started = time.perf_counter()
    line: dict[str, float] = {"step": step + 1, "epoch": epoch + 1}
    line |= trainer.step(batch, step, epoch)
    line["seconds"] = round(time.perf_counter() - started, 4)
    return line


def _bar_values(line: Mapping[str, float]) -> dict[str, str]:
    """The values of a line of the log that the progress bar shows."""
    values = {"loss": f"{line['loss']:.4f}"}
    if "recall" in line:
        values["recall"] = f"{line['recall']:.0%}"
    return values


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
        steps: int,
        loss: Loss | None = None,
        texts: MakeTexts | None = None,
    ) -> None:
        """For towers and their optimiser.

        Args:
            model: gives the tokenizer.
            steps: of an epoch.
            loss, texts: see `train`.
        """
        self.config, self.towers, self.optimiser = config, towers, optimiser
        self.processes, self.steps, self.make_texts = processes, steps, texts
        self.loss = loss_of(config) if loss is None else loss
        self.tokenizer = model.tokenizer

    def step(self, batch: Batch, step: int, epoch: int) -> dict[str, float]:
        """Compute a step.

        Args:
            step: the steps that are done.
            epoch: its number, from 0.

        Returns:
            The loss, the recall within the batch if text i belongs to video i, and the learning
            rate.

        Raises:
            InputError: the loss is not a number; the message names the batch's pairs.
        """
        factor, beta1 = schedule(self.config, step, epoch, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"], group["betas"] = group["base"] * factor, (beta1, self.config.beta2)
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
        line = {"loss": loss, "learning_rate": self.optimiser.param_groups[0]["lr"]}
        if self.make_texts is None:
            is_first = scores.argmax(dim=1).cpu() == torch.arange(len(scores))
            line["recall"] = is_first.double().mean().item()
        return line

    def backward(self, batch: Batch, step: int) -> tuple[float, Tensor]:
        """Compute the loss of a batch and its gradients, and the scores [t, b].

        If texts or videos of this process are encoded in several chunks, the method is that of
        GradCache (Gao et al., 2021): each chunk is encoded without a graph, and a second time once
        the gradients at its outputs are known. The same random numbers are drawn both times.
        """
        texts, told = self.texts_of(batch, step)
        own_texts = self.processes.own(len(texts))
        of_texts = [partial(self.encode_texts, chunk) for chunk in self.chunks(texts[own_texts])]
        of_videos = [partial(self.encode_videos, chunk) for chunk in self.chunks(batch.videos)]
        encoders = [*of_texts, *of_videos]
        is_cached = len(encoders) > 2
        with torch.set_grad_enabled(not is_cached):
            outputs = [self.encode(one, step, number) for number, one in enumerate(encoders)]
        # The loss is computed from copies, whose gradients then go back through the encoders.
        first, video = (
            self.processes.gather(torch.cat(parts).detach()).requires_grad_()
            for parts in (outputs[: len(of_texts)], outputs[len(of_texts) :])
        )
        seed_torch(self.config.seed, step, HEADS)
        embedded = self.towers.text.heads(first)
        loss = self.loss(embedded, video, told)
        if loss.ndim or not loss.requires_grad:
            raise InputError(
                f"the loss is of shape {tuple(loss.shape)} and depends on "
                f"{'the embeddings' if loss.requires_grad else 'no embedding'}; expected one "
                "number that is computed from the embeddings of the texts and of the videos"
            )
        loss.backward()
        sizes = [len(output) for output in outputs]
        gradients = [
            *_gradient_of(first)[own_texts].split(sizes[: len(of_texts)]),
            *_gradient_of(video)[batch.own].split(sizes[len(of_texts) :]),
        ]
        for number, gradient in enumerate(gradients):
            output = self.encode(encoders[number], step, number) if is_cached else outputs[number]
            if output.requires_grad:  # a frozen tower has no gradients
                output.backward(gradient)
        text = self.towers.text
        alike = [*text.text_gu.parameters(), *text.moe_fc_txt.parameters()]
        self.processes.add_gradients(self.towers.parameters(), alike)
        return loss.item(), (embedded @ video.T).detach()

    def texts_of(self, batch: Batch, step: int) -> BatchTexts:
        """The texts of a batch: the captions of its samples, or those that the caller makes."""
        if self.make_texts is None:
            return BatchTexts([caption_text(one.caption) for one in batch.samples], batch.samples)
        rng = np.random.default_rng((self.config.seed, step, TEXTS))
        made = self.make_texts(batch.samples, rng)
        wrong = [text for text in made.texts if not isinstance(text, str) or not text.strip()]
        if wrong or not made.texts:
            raise InputError(
                f"the texts made for step {step + 1} "
                f"{f'have {wrong[0]!r} among them' if wrong else 'are none'}; expected one or more "
                "texts that are not empty"
            )
        return made

    def chunks(self, rows: Sequence[Item]) -> list[Sequence[Item]]:
        """The texts or videos of this process, as many at a time as are encoded at once."""
        size = self.config.chunk_size or len(rows)
        return [rows[at : at + size] for at in range(0, len(rows), size)]

    def encode(self, encoder: Callable[[], Tensor], step: int, number: int) -> Tensor:
        """What an encoder gives for its chunk.

        Args:
            number: of the chunk; with the step it decides what dropout leaves out.
        """
        seed_torch(self.config.seed, step, 1 + self.processes.index, number)
        low = self.config.precision == "bfloat16"
        with torch.autocast(self.processes.device.type, dtype=torch.bfloat16, enabled=low):
            return encoder()

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """BERT's first token of each text, [t, d]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of texts longer than the model takes
            ids = self.tokenizer(texts)
        return encode_texts(self.towers.text, ids)

    def encode_videos(self, videos: Sequence[VideoTokens]) -> Tensor:
        """The embeddings of videos, [b, m * same_dim]."""
        return encode_videos(self.towers.video, videos)


def _gradient_of(x: Tensor) -> Tensor:
    """The gradient at a tensor, zeros if nothing depends on it."""
    return torch.zeros_like(x) if x.grad is None else x.grad


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


def names_of(loss: Loss | None, texts: MakeTexts | None) -> dict[str, str]:
    """How the run folder names the functions that the caller has given."""
    names = {}
    for kind, own in (("loss", loss), ("texts", texts)):
        if own is not None:
            named = own if hasattr(own, "__qualname__") else type(own)
            names[kind] = f"{named.__module__}.{named.__qualname__}"
    return names


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
        betas=(BETA1, config.beta2),
        eps=EPS,
        weight_decay=config.weight_decay,
    )


def schedule(config: TrainingConfig, step: int, epoch: int, steps: int) -> tuple[float, float]:
    """By what the learning rates of a step are multiplied, and Adam's first beta.

    With `decay`, the rates rise along a line and fall after each epoch. With `one-cycle`, they rise
    and fall along cosines, and beta goes the other way.

    Args:
        step, epoch: the numbers of both, from 0.
        steps: of an epoch.
    """
    if config.schedule == DECAY:
        warm_up = min(1.0, (step + 1) / config.warm_up) if config.warm_up else 1.0
        return float(warm_up * config.decay**epoch), BETA1
    highest, end = max(0, config.warm_up - 1), config.epochs * steps - 1
    if step < highest:
        share = _along_cosine(step / highest, FIRST_SHARE, 1.0)
        return share, _along_cosine(step / highest, BETA1_AT_LOWEST, BETA1_AT_HIGHEST)
    done = (step - highest) / max(1, end - highest)
    share = _along_cosine(done, 1.0, LAST_SHARE)
    return share, _along_cosine(done, BETA1_AT_HIGHEST, BETA1_AT_LOWEST)


def _along_cosine(done: float, first: float, last: float) -> float:
    """Half a cosine from the first to the last value, of which a share is done."""
    return last + (first - last) / 2 * (1 + math.cos(math.pi * done))


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
        own: Mapping[str, str],
    ) -> None:
        self.out, self.config, self.model, self.towers = out, config, model, towers
        self.own = own  # see `names_of`
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
        card = model_card(self.config, self.origin, self.sizes, epoch, metrics, self.own)
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
            rest = len(missing) - 1
            raise InputError(
                f"{missing[0].where}: there are no features of the video {missing[0].video!r}"
                + (f", nor of the videos of {counted(rest, 'more caption')}" if rest else "")
            )
        validations.append(Validation(dataset.val, captions, features))
    return validations


def _open_run(
    out: Path, config: TrainingConfig, data: TrainingData, own: Mapping[str, str]
) -> None:
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
        for kind in ("loss", "texts"):
            if settings.get(kind) != own.get(kind):
                changed.append(f"the {kind} passed in Python")
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
            **own,
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

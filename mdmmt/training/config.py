"""The settings of a training run, as frozen dataclasses.

The defaults are those of MDMMT (arXiv 2103.10699, section 4.3) and of MMT (Gabeur et al., 2020),
on which it builds: 50 epochs, a learning rate of 5e-5 that each epoch multiplies by 0.95, batches
of 32 pairs, and a margin of 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any, get_args, get_type_hints

from ..config import build_config
from ..errors import InputError, InputTypeError

RANKING, INFO_NCE = "max-margin", "info-nce"
LOSSES = (RANKING, INFO_NCE)
PRECISIONS = ("float32", "bfloat16")
DECAY, ONE_CYCLE = "decay", "one-cycle"
SCHEDULES = (DECAY, ONE_CYCLE)
NOTHING, TEXT, VIDEO = "nothing", "text", "video"
FREEZE = (NOTHING, TEXT, VIDEO)
GEOMETRIC_MEAN = "geometric mean"  # of R@1, R@5 and R@10
METRICS = (GEOMETRIC_MEAN, "R@1", "R@5", "R@10")  # from text to video; the best is the highest
DEVICES = ("cpu",)
# Settings with which a run that exists may go on: they change none of the steps that it has done.
MAY_CHANGE = ("out", "epochs", "patience", "checkpoint_steps", "device", "tensorboard")


@dataclass(frozen=True)
class DatasetConfig:
    """One dataset of a run."""

    data: str  # annotation file, in one of the formats that `mdmmt evaluate` reads
    features: str  # folder of feature files
    val: str | None = None  # annotation file of the validation; None: this dataset has none
    val_features: str | None = None  # folder of their feature files; None: `features`
    weight: float = 1.0  # share of the samples: this weight by the sum of all weights
    split: str | None = None  # of an MSR-VTT file; None: train
    val_split: str | None = None  # of an MSR-VTT file; None: validate

    def __post_init__(self) -> None:
        _check_types(self)
        _check_range(self, "weight", 0, math.inf, above=True)


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of a run."""

    out: str  # run folder
    datasets: tuple[DatasetConfig, ...]
    init: str | None = None  # weights to start from; None: the released model
    random_weights: bool = False  # take the shape and the tokenizer of `init` and draw new weights
    seed: int = 0
    device: str | None = None  # 'cpu'; None: CUDA if there is a GPU
    precision: str = "float32"  # one of `PRECISIONS`, the arithmetic of the encoders

    epochs: int = 50
    samples_per_epoch: int | None = None  # None: as many as there are segments
    batch_size: int = 32  # pairs of a step, over all processes
    chunk_size: int | None = None  # pairs that a process encodes at once; None: all of its own
    loss: str = RANKING  # one of `LOSSES`
    margin: float = 0.05  # of the max-margin ranking loss
    temperature: float = 0.05  # of InfoNCE

    learning_rate: float = 5e-5
    bert_learning_rate: float | None = None  # of `txt_bert`; None: `learning_rate`
    schedule: str = DECAY  # one of `SCHEDULES`, of the learning rates
    decay: float = 0.95  # of the learning rates, after each epoch
    warm_up: int = 0  # steps over which the learning rates rise from 0
    beta2: float = 0.999  # of Adam: how much of the mean squares of the gradients a step keeps
    weight_decay: float = 0.0
    clip: float | None = None  # the largest norm of all gradients; None: they are not clipped
    dropout: float | None = None  # of both towers; None: as the configuration of the model says
    expert_dropout: float = 0.0  # chance of each expert of a video to be left out of a sample
    freeze: str = NOTHING  # one of `FREEZE`, the tower that keeps its weights
    lora_rank: int | None = None  # of LoRA in BERT, which else keeps its weights; None: no LoRA

    metric: str = GEOMETRIC_MEAN  # one of `METRICS`, which chooses the best epoch
    patience: int | None = None  # epochs without a better one after which the run ends; None: all
    checkpoint_steps: int = 500  # steps between two checkpoints; each epoch ends with one
    tensorboard: bool = False  # also write the log for TensorBoard
    skip_missing: bool = False  # leave out captions whose video has no features
    exclude: str | None = None  # list of duplicates, whose training segments are left out

    def __post_init__(self) -> None:
        _check_types(self)
        if not self.datasets:
            raise InputError("datasets is empty, expected at least one")
        for name, known in (
            ("loss", LOSSES),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("freeze", FREEZE),
            ("metric", METRICS),
            ("device", (*DEVICES, None)),
        ):
            if getattr(self, name) not in known:
                expected = ", ".join("nothing at all" if one is None else one for one in known)
                raise InputError(f"{name} is {getattr(self, name)!r}, expected {expected}")
        for name in (
            "epochs",
            "samples_per_epoch",
            "patience",
            "checkpoint_steps",
            "lora_rank",
            "chunk_size",
        ):
            _check_range(self, name, 1, math.inf)
        _check_range(self, "batch_size", 2, math.inf)  # one pair has nothing to be compared with
        for name in ("seed", "warm_up"):
            _check_range(self, name, 0, 2**31)
        for name in ("learning_rate", "bert_learning_rate", "temperature", "clip"):
            _check_range(self, name, 0, math.inf, above=True)
        for name in ("margin", "weight_decay"):
            _check_range(self, name, 0, math.inf)
        for name in ("dropout", "expert_dropout", "beta2"):
            _check_range(self, name, 0, 1, below=True)
        _check_range(self, "decay", 0, 1, above=True)
        if self.lora_rank is not None and self.freeze == TEXT:
            raise InputError("freeze is 'text' and lora_rank is given, expected one of the two")
        if self.samples_per_epoch is not None and self.samples_per_epoch < self.batch_size:
            raise InputError(
                f"samples_per_epoch is {self.samples_per_epoch} and batch_size {self.batch_size}, "
                "expected at least one batch in an epoch"
            )


def from_mapping(
    values: Mapping[str, Any], where: str, place: Callable[[str, int | None], str] | None = None
) -> TrainingConfig:
    """The settings that a mapping holds.

    Args:
        where: the place of the mapping, with which messages begin.
        place: that of a key of the mapping, or of the dataset of this number, for messages about
            them; None: `where`.

    Raises:
        InputError, InputTypeError: a key is unknown or missing, or a value is of another type or
            out of range. The message names the key.
    """
    place = place or (lambda name, dataset: where)
    values = dict(values)
    datasets = values.get("datasets")
    if datasets is not None:
        if not isinstance(datasets, list | tuple):
            raise InputTypeError(
                f"{place('datasets', None)}: datasets is a {type(datasets).__name__}, expected a "
                "list"
            )
        values["datasets"] = tuple(
            one if isinstance(one, DatasetConfig) else _dataset(one, index, place)
            for index, one in enumerate(datasets)
        )
    return build_config(TrainingConfig, values, where, lambda name: place(name, None))


def _dataset(values: Any, index: int, place: Callable[[str, int | None], str]) -> DatasetConfig:
    def of_key(name: str) -> str:
        return f"{place(name, index)}: datasets[{index}]"

    return build_config(DatasetConfig, values, of_key(""), of_key)


def to_mapping(config: TrainingConfig) -> dict[str, Any]:
    """The inverse of `from_mapping`, for JSON."""
    return {**asdict(config), "datasets": [asdict(one) for one in config.datasets]}


def differences(first: TrainingConfig, second: TrainingConfig) -> list[str]:
    """The settings in which two runs differ, without those that may change."""
    one, other = to_mapping(first), to_mapping(second)
    names = [name for name in one if one[name] != other[name]]
    return [
        name
        for name in names
        if name not in MAY_CHANGE or (name == "epochs" and first.schedule == ONE_CYCLE)
    ]


def _check_types(config: DatasetConfig | TrainingConfig) -> None:
    """Refuse values of another type than the field's, such as a text for a number."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        kinds = get_args(hint) if type(None) in get_args(hint) else (hint,)
        if not any(_fits(value, kind) for kind in kinds):
            words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
            expected = words.get(kinds[0], "a tuple of DatasetConfig")
            raise InputTypeError(f"{name} is {value!r}, expected {expected}")


def _fits(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    if kind in (str, bool, type(None)):
        return isinstance(value, kind)
    return isinstance(value, tuple) and all(isinstance(one, DatasetConfig) for one in value)


def _check_range(
    config: DatasetConfig | TrainingConfig,
    name: str,
    least: float,
    most: float,
    above: bool = False,
    below: bool = False,
) -> None:
    """Refuse a number outside a range; `above` and `below` exclude its ends."""
    value = getattr(config, name)
    if value is None:
        return
    is_inside = least <= value <= most and math.isfinite(value)
    if is_inside and not (above and value == least) and not (below and value == most):
        return
    expected = f"{'above' if above else 'from'} {least:g}"
    if math.isfinite(most):
        expected += f" {'to below' if below else 'to'} {most:g}"
    raise InputError(f"{name} is {value!r}, expected a number {expected}")

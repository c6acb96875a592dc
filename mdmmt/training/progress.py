"""What a run shows: a progress bar, lines of JSON, and a plot of loss and recall."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import MissingDependency
from ..storage.files import atomic_file
from ..storage.text import parse_json, read_text
from .checkpoints import RunState

LOG_FILE = "log.jsonl"
PLOT_FILE = "progress.png"
TENSORBOARD = "tensorboard"  # a folder


class Log:
    """A file with a JSON object for each step and each epoch, which grows as the run goes."""

    def __init__(self, folder: Path, step: int, tensorboard: bool = False) -> None:
        """Open the log of a run that has done `step` steps; lines beyond them are removed.

        Args:
            tensorboard: also write the numbers for TensorBoard.

        Raises:
            MissingDependency: TensorBoard is wanted and not installed.
        """
        self.writer = _tensorboard_writer(folder, step) if tensorboard else None
        self.path = folder / LOG_FILE
        lines = read_log(folder)
        with atomic_file(self.path) as part:
            part.write_text(
                "".join(f"{json.dumps(line)}\n" for line in lines if line["step"] <= step),
                encoding="utf-8",
            )

    def write(self, line: dict[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.writer is not None:
            for name, value in _scalars(line):
                self.writer.add_scalar(name, value, line["step"])
            self.writer.flush()


def _tensorboard_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependency("the log for TensorBoard", extra="tensorboard") from error
    return SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)


def _scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a line: the metrics of each validation by their names, and the others."""
    for name, value in line.items():
        if isinstance(value, int | float) and name not in ("step", "epoch"):
            yield name, value
    for dataset, by_direction in line.get("validation", {}).items():
        for direction, metrics in by_direction.items():
            for metric, value in metrics.items():
                yield f"{dataset}/{direction} {metric}", value


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last one that a killed process has cut off is left out."""
    if not (folder / LOG_FILE).exists():
        return []
    *whole, _ = read_text(folder / LOG_FILE).split("\n")
    return [parse_json(line, str(folder / LOG_FILE)) for line in whole]


@contextmanager
def progress_bar(shown: bool, total: int, done: int, epoch: int) -> Iterator[Any]:
    """The bar of an epoch: its videos and how many a second; its caller adds loss and recall.

    Args:
        shown: whether it is drawn.
        total, done: the videos of the epoch, and those of the steps that are done.
        epoch: its number, from 1.
    """
    from tqdm import tqdm

    with tqdm(
        total=total, initial=done, unit=" videos", desc=f"epoch {epoch}", disable=not shown
    ) as bar:
        yield bar


def check_plot() -> None:
    """Raise a MissingDependency before any work if no plot can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependency("the plot of a run", extra="train") from error


def plot(folder: Path, lines: Sequence[dict[str, Any]], state: RunState) -> None:
    """Draw the loss of each step, and the recall on each validation after each epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    loss, recall = figure.subplots(1, 2)
    steps = [line for line in lines if "loss" in line]
    loss.plot([line["step"] for line in steps], [line["loss"] for line in steps], linewidth=0.8)
    loss.set(xlabel="step", ylabel="loss")
    epochs = [line["epoch"] for line in state.history]
    names = list(state.history[-1]["validation"]) if state.history else []
    for number, name in enumerate(names):
        for metric, style in (("R@1", "-"), ("R@5", "--"), ("R@10", ":")):
            values = [line["validation"][name]["t2v"][metric] for line in state.history]
            label = f"{metric}, {name}"
            recall.plot(epochs, values, style, marker=".", color=f"C{number}", label=label)
    recall.set(xlabel="epoch", ylabel="recall from text to video, %", ylim=(0, 102))
    for axes in (loss, recall):
        axes.grid(alpha=0.3)
    if names:
        recall.legend(fontsize="small")
    with atomic_file(folder / PLOT_FILE) as part:
        figure.savefig(part, format="png")

"""What the commands share: options, progress, and how they say what happened."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ..fast import PRECISIONS

if TYPE_CHECKING:
    from ..model import Model

Commands = Any  # of argparse, which gives the type no public name
Item = TypeVar("Item")

WEIGHTS_HELP = "weights file, model folder, owner/name[@revision] on Hugging Face, or 'sample'"
WEIGHTS_DEFAULT = (
    "; default: weights/ beside the operator, else what MDMMT_WEIGHTS names, else the released "
    "model, downloaded once"
)
DEVICE_HELP = "cpu, cuda or cuda:N; default CUDA if there is one"


def add_model_options(command: argparse.ArgumentParser) -> None:
    """The model, and where it runs."""
    command.add_argument("--weights", help=WEIGHTS_HELP + WEIGHTS_DEFAULT)
    command.add_argument("--device", help=DEVICE_HELP)
    command.add_argument(
        "--precision", choices=PRECISIONS, default="exact", help="default: %(default)s"
    )


def load_model(arguments: argparse.Namespace) -> Model:
    """The model that these options mean."""
    from ..model import load

    return load(arguments.weights, arguments.device, precision=arguments.precision)


def say(message: object) -> None:
    """Something that is not the result, to stderr."""
    print(f"mdmmt: {message}", file=sys.stderr)


class LogHandler(logging.Handler):
    """Shows the library's log messages to the person at the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Show what the library logs, progress included, on stderr."""
    logger, handler = logging.getLogger("mdmmt"), LogHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def progress(items: Iterable[Item], total: int | None, unit: str) -> Iterator[Item]:
    """The items, with a bar where somebody is looking."""
    from tqdm import tqdm

    return iter(tqdm(items, total=total, unit=unit, disable=not sys.stderr.isatty()))


def report(failures: Sequence[str], summary: str) -> int:
    """Name what failed and sum up; returns the exit status."""
    for failure in failures:
        say(failure)
    print(summary)
    return 1 if failures else 0

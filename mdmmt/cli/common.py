"""Options, progress and messages that the commands share."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import format_exception
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import EXPERT_PRECISIONS, PRECISIONS
from ..errors import InputError
from ..media.limits import TIME_LIMIT_S
from ..storage.files import check_file
from ..storage.text import counted, escape_controls
from .words import WORDS, in_words_of_commands

if TYPE_CHECKING:
    import torch

    from ..model import Model

Commands = Any  # of argparse, which gives the type no public name
Item = TypeVar("Item")

WEIGHTS_HELP = "weights file, model folder, owner/name[@revision] on Hugging Face, or 'sample'"
WEIGHTS_DEFAULT = (
    "; default: weights/ beside the operator, else what MDMMT_WEIGHTS names, else the released "
    "model, downloaded once"
)
logger = logging.getLogger(__package__)

MAX_USUAL_JOBS = 16  # each takes the memory of a decoder and of some batches of frames
DEVICE_HELP = "cpu, cuda, cuda:N or mps; default CUDA if there is one"


def add_model_options(
    command: argparse.ArgumentParser, weights_default: str = WEIGHTS_DEFAULT
) -> None:
    """Add the options that choose a model and its device."""
    command.add_argument("--weights", help=WEIGHTS_HELP + weights_default)
    command.add_argument("--device", help=DEVICE_HELP)
    command.add_argument(
        "--precision", choices=PRECISIONS, default="exact", help="default: %(default)s"
    )


def add_experts_options(command: argparse.ArgumentParser, default: str) -> None:
    """Add the options of experts to a command that runs them.

    Args:
        default: which experts run without the option, for the help.
    """
    command.add_argument(
        "--experts",
        type=names_of_experts,
        metavar="NAME,NAME",
        help=f"the experts that run; default: {default}",
    )
    command.add_argument(
        "--experts-precision",
        choices=EXPERT_PRECISIONS,
        default="exact",
        help="the arithmetic of the experts; float16 takes less time on CUDA, and int8 on "
        "processors with AVX512-VNNI (extra openvino); default: %(default)s",
    )


def names_of_experts(text: str) -> list[str]:
    """The experts that an option names, for argparse."""
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


def add_tokenizer_option(command: argparse.ArgumentParser) -> None:
    """Add the option that names the tokenizer, to a command that embeds texts."""
    command.add_argument(
        "--tokenizer",
        metavar="FOLDER",
        help="folder with the tokenizer of BERT; default: that of the weights, else Hugging Face's",
    )


def add_time_limit_option(command: argparse.ArgumentParser) -> None:
    """Add the time limit of each file, to a command that reads videos."""
    command.add_argument(
        "--time-limit",
        type=seconds,
        default=TIME_LIMIT_S,
        metavar="S",
        help="seconds that one video may take; it then counts as failed; default: %(default)g",
    )


def add_jobs_option(command: argparse.ArgumentParser) -> None:
    """Add the number of files that are read at once, to a command that reads many videos."""
    command.add_argument(
        "--jobs",
        type=count,
        metavar="N",
        help="videos that are read at once; default: 2, or one for each core, up to "
        f"{MAX_USUAL_JOBS}, if the experts run on a GPU",
    )


def add_window_options(command: argparse.ArgumentParser) -> None:
    """Add the length and the stride of windows, to a command that cuts videos into windows."""
    command.add_argument("--window", type=seconds, metavar="S", help="seconds of each window")
    command.add_argument("--stride", type=seconds, metavar="S", help="seconds between their starts")


def seconds(text: str) -> float:
    """The number of seconds that an option gives, for argparse."""
    return positive_number(text, "a number of seconds")


def positive_number(text: str, what: str = "a number") -> float:
    """The number above 0 that an option gives, for argparse.

    Args:
        what: names the number in the message that refuses it.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r}, expected {what} above 0")
    return number


def count(text: str) -> int:
    """The whole number above 0 that an option gives, for argparse."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number above 0")
    return number


def jobs_of(arguments: argparse.Namespace, device: torch.device) -> int:
    """The number of jobs that the options ask for, or the usual one for this device.

    On a CPU the experts take nearly all of the time, so two jobs keep them busy, and few files are
    under way when a run is stopped. On a GPU the decoding takes most of the time.
    """
    if arguments.jobs is not None:
        return int(arguments.jobs)
    if device.type == "cpu":
        return 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, MAX_USUAL_JOBS)


def check_some_are_there(paths: Sequence[str], what: str) -> None:
    """Check that one of these paths exists, before a command loads or downloads anything.

    If only some paths are missing, the command names them later and does the rest.

    Args:
        what: the kind of files that the message asks for.

    Raises:
        InputError: no path exists. The error names the last path, and messages name the others.
    """
    if any(map(os.path.exists, paths)):
        return
    *others, last = paths
    for path in others:
        try:
            check_file(path, what)
        except InputError as error:
            say(error)
    check_file(last, what)


def load_model(arguments: argparse.Namespace) -> Model:
    """Load the model that these options choose."""
    from ..model import load
    from ..sample import NOTICE, is_sample

    tokenizer = getattr(arguments, "tokenizer", None)
    model = load(
        arguments.weights,
        arguments.device,
        mmttxt_params={"tokenizer": tokenizer} if tokenizer else None,
        experts=getattr(arguments, "experts", None),
        precision=arguments.precision,
        time_limit_s=getattr(arguments, "time_limit", TIME_LIMIT_S),
        experts_precision=getattr(arguments, "experts_precision", "exact"),
    )
    if is_sample(model.path):
        say(NOTICE, logging.INFO)
    return model


def add_message_options(command: argparse.ArgumentParser) -> None:
    """Add the options that choose which messages are shown."""
    how_much = command.add_mutually_exclusive_group()
    how_much.add_argument(
        "-q", "--quiet", action="store_true", help="show results and errors, and nothing else"
    )
    how_much.add_argument(
        "-v", "--verbose", action="store_true", help="also show each step, and where an error arose"
    )


def say(message: object, level: int = logging.ERROR) -> None:
    """Show a message on stderr, which keeps stdout for results.

    Args:
        level: `--quiet` hides what is below `logging.ERROR`.
    """
    logger.log(level, "%s", message)


def is_quiet() -> bool:
    """Whether the person asks for results and errors alone."""
    return not logger.isEnabledFor(logging.WARNING)


def print_result(line: str) -> None:
    """Print one line to stdout, in which control characters are escaped."""
    print(escape_controls(line))


@contextmanager
def any_name_printable() -> Iterator[None]:
    """Escape the characters that stdout or stderr cannot encode, for names in any encoding."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    errors = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, before in zip(streams, errors, strict=True):
            stream.reconfigure(errors=before)


class LogHandler(logging.Handler):
    """Shows messages to the person at the terminal. Control characters are escaped.

    Args:
        words: what to put for words of the package, see `words`.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        super().__init__()
        self.words = words

    def emit(self, record: logging.LogRecord) -> None:
        lines = [in_words_of_commands(record.getMessage(), self.words)]
        if record.exc_info:
            lines += "".join(format_exception(*record.exc_info)).splitlines()
        for line in lines:
            text = f"mdmmt: {escape_controls(line)}"
            if (tqdm := sys.modules.get("tqdm")) is not None:
                tqdm.tqdm.write(text, file=sys.stderr)  # above a progress bar
            else:
                print(text, file=sys.stderr)


@contextmanager
def logging_to_stderr(arguments: argparse.Namespace) -> Iterator[None]:
    """Show what the commands and the library log on stderr, as much of it as the options ask for.

    The `words` of a command are those that its messages have in place of words of the package.
    """
    handler = LogHandler({**WORDS, **getattr(arguments, "words", {})})
    package, level = logging.getLogger("mdmmt"), logging.INFO
    if arguments.quiet:
        level = logging.ERROR
    elif arguments.verbose:
        level = logging.DEBUG
    before = package.level, package.propagate
    package.addHandler(handler)
    package.setLevel(level)
    package.propagate = False  # or a handler of the root, such as Towhee's, would show it again
    try:
        yield
    finally:
        level, package.propagate = before
        package.setLevel(level)
        package.removeHandler(handler)


def progress(items: Iterable[Item], total: int | None, unit: str) -> Iterator[Item]:
    """Yield the items, with a progress bar if stderr is a terminal and no --quiet is given."""
    from tqdm import tqdm

    return iter(tqdm(items, total=total, unit=unit, disable=not shows_bars()))


def shows_bars() -> bool:
    """Whether there is a terminal to show progress bars on, and no --quiet."""
    return sys.stderr.isatty() and not is_quiet()


@contextmanager
def video_progress(
    paths: Iterable[str], at_most_s: float = math.inf
) -> Iterator[Callable[[str], None]]:
    """Show a progress bar for many videos, if stderr is a terminal and no --quiet is given.

    It tells how many videos are finished, how many seconds of video are read in a second, and the
    time left. The seconds of a video are those of its header.

    Args:
        paths: of the videos.
        at_most_s: how much of each video is read.

    Yields:
        A function to be called with the path of each video that is finished.
    """
    unfinished = set(paths)
    if not unfinished or not shows_bars():
        yield lambda path: None
        return
    from tqdm import tqdm

    from ..batch.estimate import seconds_of
    from ..features.extraction import watching

    count = len(unfinished)
    videos = counted(count, "video")
    left_s = seconds_of(unfinished, at_most_s)
    with tqdm(
        total=sum(left_s.values()),
        desc=f"0/{videos}",
        unit=" s of video",
        bar_format="{desc}{percentage:3.0f}%|{bar}| {rate_noinv_fmt}, {remaining} left",
        smoothing=0,  # the speed is the average over the run
    ) as bar:

        def show(seconds: float) -> None:
            bar.set_description(f"{count - len(unfinished)}/{videos}", refresh=False)
            bar.total = bar.n + seconds + sum(left_s.values())
            bar.update(seconds)

        def read(path: str, seconds: float) -> None:
            if path in left_s:
                left_s[path] = max(0.0, left_s[path] - seconds)
            show(seconds)

        def finish(path: str) -> None:
            unfinished.discard(path)
            left_s.pop(path, None)  # it may be shorter than its header says, or be left out
            show(0.0)
            bar.refresh()

        with watching(read):
            yield finish


def report(
    failures: Sequence[str], summary: str, show: Callable[[str], None] = print_result
) -> int:
    """Say the failures, and show a summary unless --quiet is given; return the exit status."""
    for failure in failures:
        say(failure)
    if not is_quiet():
        show(summary)
    return 1 if failures else 0

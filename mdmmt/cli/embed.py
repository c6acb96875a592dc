"""`mdmmt embed`: a file of embeddings from videos or texts."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InputError
from ..storage.text import counted
from .common import (
    Commands,
    add_experts_options,
    add_jobs_option,
    add_model_options,
    add_time_limit_option,
    add_tokenizer_option,
    check_some_are_there,
    jobs_of,
    load_model,
    progress,
    report,
    say,
    seconds,
    video_progress,
)

if TYPE_CHECKING:
    from ..batch.embed import EmbeddingRow
    from ..batch.texts import PlacedText
    from ..model import Model

STDOUT = Path("-")


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    embed = commands.add_parser("embed", help="write the embeddings of videos or texts")
    what = embed.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "videos",
        nargs="*",
        default=[],
        metavar="FILE",
        help="video files, feature files, folders of either",
    )
    what.add_argument("--text", action="append", metavar="TEXT", help="a text; may be repeated")
    what.add_argument(
        "--texts",
        type=Path,
        metavar="FILE",
        help="texts, one a line of a .txt or, with -, of stdin; or a column of a .csv, .tsv, "
        ".jsonl or .parquet",
    )
    embed.add_argument(
        "--column", metavar="NAME", help="that holds the texts of --texts; default: text"
    )
    add_model_options(embed)
    add_experts_options(embed, "all of the model, the others count as absent")
    add_tokenizer_option(embed)
    add_jobs_option(embed)
    add_time_limit_option(embed)
    embed.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write: .npy (with the names of its rows in a .names.jsonl beside it), .npz, "
        ".jsonl, .csv or .parquet; - prints JSON lines",
    )
    embed.add_argument(
        "--segments",
        choices=["windows"],
        help="cut each video into windows; without it, a video that is longer than the model's "
        "limit gives one embedding, of its beginning",
    )
    embed.add_argument(
        "--window", type=seconds, metavar="S", help="seconds of each window; implies --segments"
    )
    embed.add_argument(
        "--stride",
        type=seconds,
        metavar="S",
        help="seconds between their starts; implies --segments",
    )
    embed.set_defaults(run=_embed)


class _Run(NamedTuple):
    """What one call of the command embeds."""

    kind: str  # of the names in the output: 'path' or 'text'
    rows: Iterator[EmbeddingRow]  # computed as they are taken
    videos: Sequence[str]  # none if texts are embedded
    texts: list[PlacedText]  # those of the rows so far, since standard input may have more
    total: int | None  # videos or texts; None: not known before standard input ends
    read_s: float  # of each video at most


def _embed(arguments: argparse.Namespace) -> int:
    """Embed all items that can be embedded; name the others at the end, with the reason."""
    from ..batch.texts import PlacedText, read_texts
    from ..features.listing import find_videos_or_features

    windows = (arguments.segments, arguments.window, arguments.stride) != (None, None, None)
    _check(arguments, windows)
    # What is to be embedded is looked up before the model is loaded, which takes longer.
    videos: list[str] = []
    if arguments.videos:
        check_some_are_there(arguments.videos, "a video file, a feature file or a folder of these")
        videos = find_videos_or_features(arguments.videos)
    portions: Iterable[Sequence[PlacedText]]
    if arguments.texts:
        portions = read_texts(arguments.texts, arguments.column)
    else:
        portions = [[PlacedText(text, "") for text in arguments.text or ()]]
    model = load_model(arguments)
    if arguments.videos:
        run = _run_of_videos(arguments, model, videos, windows)
    else:
        run = _run_of_texts(arguments, model, portions)
    done, interrupted = _write(run, arguments.out, windows)
    status = _report(run, done, arguments.out, windows)
    return 130 if interrupted else status


def _run_of_videos(
    arguments: argparse.Namespace, model: Model, videos: Sequence[str], windows: bool
) -> _Run:
    from ..batch.embed import embed_videos, embed_windows

    jobs = jobs_of(arguments, model.device)
    read_s = math.inf
    if windows:
        rows = embed_windows(model, videos, arguments.window, arguments.stride, jobs)
    else:
        rows = embed_videos(model, videos, jobs)
        # Experts that cannot be run may still have feature files, and tell no length.
        with suppress(InputError):
            read_s, _ = model.window_lengths(None, None)
    return _Run("path", rows, videos, [], len(videos), read_s)


def _run_of_texts(
    arguments: argparse.Namespace, model: Model, portions: Iterable[Sequence[PlacedText]]
) -> _Run:
    from ..batch.embed import embed_texts
    from ..batch.texts import STDIN

    texts: list[PlacedText] = []

    def embed_portions() -> Iterator[EmbeddingRow]:
        for portion in portions:
            texts.extend(portion)
            yield from embed_texts(model, [text.text for text in portion])

    total = None if arguments.texts == STDIN else sum(map(len, portions))
    return _Run("text", progress(embed_portions(), total, "text"), (), texts, total, math.inf)


def _write(run: _Run, out: Path, windows: bool) -> tuple[list[EmbeddingRow], bool]:
    """Write the rows of a run as they come.

    Ctrl-C ends the run, and the rows so far are kept.

    Returns:
        The rows without their vectors, which would fill the memory; and whether there was a Ctrl-C.
    """
    from ..batch.embed import EmbeddingRow
    from ..batch.embedding_files import embeddings_file
    from ..batch.outcome import INTERRUPTED

    done: list[EmbeddingRow] = []
    interrupted = False
    with ExitStack() as stack:
        output = _printed(run.kind) if out == STDOUT else embeddings_file(out, run.kind)
        add = stack.enter_context(output)
        try:
            with video_progress(run.videos, run.read_s) as finish:
                for row in run.rows:
                    with _interruption_waits():
                        add(row)
                        done.append(row._replace(vector=None))
                    finish(row.name)
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted")
        if not windows:
            # Row i of a .npy belongs to item i, so the items that are left get rows of NaN.
            for name in [*run.videos, *(text.text for text in run.texts)][len(done) :]:
                add(EmbeddingRow(name, None, INTERRUPTED))
        is_written = False
        try:
            with _interruption_waits(f"{out} is still written; interrupt again to stop that"):
                stack.close()
                is_written = True
        except KeyboardInterrupt:
            if not is_written:  # this is the second Ctrl-C
                raise
            interrupted = True
    return done, interrupted


def _report(run: _Run, done: Sequence[EmbeddingRow], out: Path, windows: bool) -> int:
    """Name the items that failed, and count the others; return the exit status."""
    if run.videos:
        places = [row.name for row in done]
    else:  # the error quotes the text, which may be a long one
        places = [text.place for text in run.texts[: len(done)]]
    failures = [
        f"{place}: {row.error}" if place else row.error
        for row, place in zip(done, places, strict=True)
        if row.error
    ]
    embedded = len(done) - len(failures)
    if windows:
        of_videos = len({row.name for row in done if not row.error})
        of_all = f"{of_videos} of {counted(len(run.videos), 'video')}"
        summary = f"{counted(embedded, 'window')} of {of_all} embedded"
    else:
        count = len(run.texts) if run.total is None else run.total
        summary = f"{embedded} of {count} embedded"
    if out == STDOUT:
        return report(failures, summary, say)
    if embedded == 0:
        return report(failures, f"nothing was embedded, {out} was not written")
    return report(failures, f"{summary}, written to {out}")


@contextmanager
def _printed(kind: str) -> Iterator[Callable[[EmbeddingRow], None]]:
    """Yield a function that prints a row as a line of JSON, if it has an embedding."""
    from ..batch.embedding_files import json_line

    def add(row: EmbeddingRow) -> None:
        if row.vector is not None:
            sys.stdout.write(json_line(kind, row))
            sys.stdout.flush()

    yield add


@contextmanager
def _interruption_waits(note: str = "") -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, which then raises it. A second one does not wait.

    Args:
        note: what to say when it comes.
    """
    if threading.current_thread() is not threading.main_thread():  # no other gets signals
        yield
        return
    came = False

    def handle(*_: object) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True
        if note:
            say(f"interrupted, {note}")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _check(arguments: argparse.Namespace, windows: bool) -> None:
    """Raise an error for options that exclude each other, or a file, before any work."""
    from ..batch.embedding_files import FORMATS, check_output

    out = arguments.out
    if out != STDOUT and out.suffix not in FORMATS:
        raise InputError(
            f"--out is {str(out)!r}, expected a name that ends in {', '.join(FORMATS)}, or - for "
            "JSON lines on stdout"
        )
    if not arguments.videos and (windows or arguments.experts):
        option = "--experts is" if arguments.experts else "--segments, --window and --stride are"
        raise InputError(f"{option} for videos, not for texts")
    if arguments.column is not None and not arguments.texts:
        raise InputError("--column is for --texts, the file that has the column")
    if out != STDOUT:
        check_output(out)

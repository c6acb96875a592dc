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
from typing import TYPE_CHECKING

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


def _embed(arguments: argparse.Namespace) -> int:
    """Embed all items that can be embedded; name the others at the end, with the reason."""
    from ..batch.embed import EmbeddingRow, embed_texts, embed_videos, embed_windows
    from ..batch.embedding_files import embeddings_file
    from ..batch.outcome import INTERRUPTED
    from ..batch.texts import STDIN, PlacedText, read_texts
    from ..features.listing import find_videos_or_features

    windows = (arguments.segments, arguments.window, arguments.stride) != (None, None, None)
    _check(arguments, windows)
    out = arguments.out
    portions: Iterable[Sequence[PlacedText]]
    if arguments.texts:
        portions = read_texts(arguments.texts, arguments.column)
    else:
        portions = [[PlacedText(text, "") for text in arguments.text or ()]]
    texts: list[PlacedText] = []  # that were read
    videos: list[str] = []
    if arguments.videos:
        check_some_are_there(arguments.videos, "a video file, a feature file or a folder of these")
        videos = find_videos_or_features(arguments.videos)
    model = load_model(arguments)
    rows: Iterator[EmbeddingRow]
    total: int | None
    if arguments.videos:
        kind, total = "path", len(videos)
        jobs = jobs_of(arguments, model.device)
        if windows:
            rows = embed_windows(model, videos, arguments.window, arguments.stride, jobs)
        else:
            rows = embed_videos(model, videos, jobs)
    else:

        def embed_portions() -> Iterator[EmbeddingRow]:
            for portion in portions:
                texts.extend(portion)
                yield from embed_texts(model, [text.text for text in portion])

        kind = "text"
        total = None if arguments.texts == STDIN else sum(map(len, portions))
        rows = progress(embed_portions(), total, kind)
    at_most_s = math.inf
    if not windows:  # a video is read as far as the model takes it
        with suppress(InputError):  # of experts that cannot be run, but have feature files
            at_most_s, _ = model.window_lengths(None, None)
    done: list[EmbeddingRow] = []  # without their vectors, which fill the memory
    interrupted = False
    with ExitStack() as stack:
        add = stack.enter_context(_printed(kind) if out == STDOUT else embeddings_file(out, kind))
        try:
            with video_progress(videos, at_most_s) as finish:
                for row in rows:
                    with _interruption_waits():
                        add(row)
                        done.append(row._replace(vector=None))
                    finish(row.name)
        except KeyboardInterrupt:  # the rows that are done are kept
            interrupted = True
            say("interrupted")
        if not windows:
            # Row i of a .npy belongs to item i, so the items that are left get rows of NaN.
            for name in [*videos, *(text.text for text in texts)][len(done) :]:
                add(EmbeddingRow(name, None, INTERRUPTED))
        is_written = False
        try:
            with _interruption_waits(f"{out} is still written; interrupt again to stop that"):
                stack.close()
                is_written = True
        except KeyboardInterrupt:
            if not is_written:  # this is the second one
                raise
            interrupted = True
    # The message of an error quotes the text itself, which may be a long one.
    places = [row.name for row in done] if videos else [text.place for text in texts[: len(done)]]
    failures = [
        f"{place}: {row.error}" if place else row.error
        for row, place in zip(done, places, strict=True)
        if row.error
    ]
    embedded = len(done) - len(failures)
    if windows:
        of_videos = len({row.name for row in done if not row.error})
        of_all = f"{of_videos} of {counted(len(videos), 'video')}"
        summary = f"{counted(embedded, 'window')} of {of_all} embedded"
    else:
        summary = f"{embedded} of {len(texts) if total is None else total} embedded"
    if out == STDOUT:
        status = report(failures, summary, say)
    elif embedded == 0:
        status = report(failures, f"nothing was embedded, {out} was not written")
    else:
        status = report(failures, f"{summary}, written to {out}")
    return 130 if interrupted else status


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

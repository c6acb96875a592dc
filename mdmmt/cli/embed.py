"""`mdmmt embed`: a file of embeddings from videos or texts."""

from __future__ import annotations

import argparse
import math
from contextlib import suppress
from pathlib import Path

from ..errors import InputError
from .common import (
    Commands,
    add_experts_option,
    add_jobs_option,
    add_model_options,
    add_time_limit_option,
    add_tokenizer_option,
    jobs_of,
    load_model,
    progress,
    report,
    say,
    video_progress,
)


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    embed = commands.add_parser("embed", help="write the embeddings of videos or texts")
    what = embed.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "videos",
        nargs="*",
        default=[],
        metavar="FILE",
        help="video files, feature files, folders of videos",
    )
    what.add_argument("--text", action="append", metavar="TEXT", help="a text; may be repeated")
    add_model_options(embed)
    add_experts_option(embed, "all of the model, the others count as absent")
    add_tokenizer_option(embed)
    add_jobs_option(embed)
    add_time_limit_option(embed)
    embed.add_argument(
        "--out", type=Path, required=True, help="file to write, .npy (N, D) float32 or .jsonl"
    )
    embed.add_argument(
        "--segments",
        choices=["windows"],
        help="cut each video into windows, for a .jsonl; without it, a video that is longer than "
        "the model's limit gives one embedding, of its beginning",
    )
    embed.add_argument(
        "--window", type=float, metavar="S", help="seconds of each window; implies --segments"
    )
    embed.add_argument(
        "--stride", type=float, metavar="S", help="seconds between their starts; implies --segments"
    )
    embed.set_defaults(run=_embed)


def _embed(arguments: argparse.Namespace) -> int:
    """Embed all items that can be embedded; name the others at the end, with the reason."""
    from ..batch.embed import (
        EmbeddingRow,
        embed_texts,
        embed_videos,
        embed_windows,
        write_embeddings,
    )
    from ..batch.extract import find_videos
    from ..batch.outcome import INTERRUPTED
    from ..storage.files import check_writable

    windows = (arguments.segments, arguments.window, arguments.stride) != (None, None, None)
    _check(arguments, windows)
    out = arguments.out
    check_writable(out)
    model = load_model(arguments)
    if arguments.text:
        kind, names = "text", arguments.text
        rows = progress(embed_texts(model, names), len(names), kind)
        videos: list[str] = []
    else:
        videos = [str(path) for path, _ in find_videos(arguments.videos)]
        kind, names = "path", videos
        jobs = jobs_of(arguments, model.device)
        if windows:
            rows = embed_windows(model, names, arguments.window, arguments.stride, jobs)
        else:
            rows = embed_videos(model, names, jobs)
    at_most_s = math.inf
    if not windows:  # a video is read as far as the model takes it
        with suppress(InputError):  # of experts that cannot be run, but have feature files
            at_most_s, _ = model.window_lengths(None, None)
    done: list[EmbeddingRow] = []
    interrupted = False
    try:
        with video_progress(videos, at_most_s) as finish:
            for row in rows:
                done.append(row)
                finish(row.name)
    except KeyboardInterrupt:  # the rows that are done are kept
        interrupted = True
        say("interrupted")
    # The message of an error quotes the text itself, which may be a long one.
    failures = [
        row.error if arguments.text else f"{row.name}: {row.error}" for row in done if row.error
    ]
    embedded = len(done) - len(failures)
    if embedded == 0:
        status = report(failures, f"nothing was embedded, {out} was not written")
        return 130 if interrupted else status
    if windows:
        of_videos = len({row.name for row in done if not row.error})
        summary = f"{embedded} windows of {of_videos} of {len(names)} videos"
    else:
        summary = f"{embedded} of {len(names)}"
        # Row i of a .npy belongs to item i, so the items that are left get rows of NaN.
        done += [EmbeddingRow(name, None, INTERRUPTED) for name in names[len(done) :]]
    write_embeddings(out, kind, done)
    status = report(failures, f"{summary} embedded, written to {out}")
    return 130 if interrupted else status


def _check(arguments: argparse.Namespace, windows: bool) -> None:
    """Raise an InputError for options that exclude each other, before any work."""
    from ..batch.embed import FORMATS

    out = arguments.out
    if out.suffix not in FORMATS or (windows and out.suffix != ".jsonl"):
        expected = ".jsonl, since it gets windows" if windows else " or ".join(FORMATS)
        raise InputError(f"--out is {str(out)!r}, expected a name that ends in {expected}")
    if arguments.text and (windows or arguments.experts):
        option = "--experts is" if arguments.experts else "--segments, --window and --stride are"
        raise InputError(f"{option} for videos, not for --text")

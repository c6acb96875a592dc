"""`mdmmt index` and `mdmmt search`: keep a collection of videos, and search it by a sentence."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import InputError
from ..storage.text import format_table
from .common import (
    Commands,
    add_experts_option,
    add_jobs_option,
    add_model_options,
    add_time_limit_option,
    add_tokenizer_option,
    jobs_of,
    load_model,
    report,
    say,
    video_progress,
)

if TYPE_CHECKING:
    from ..batch.outcome import Outcome
    from ..model import Similarity
    from ..search.index import Hit

DATABASE_HELP = "a local database, usually named NAME.db, or the address of a Milvus server"
WEIGHTS_DEFAULT = "; default: those that the database was built with, else as for `mdmmt embed`"


def add_commands(commands: Commands) -> None:
    """Add these commands to the parser."""
    index = commands.add_parser(
        "index", help="keep a collection of videos to be searched"
    ).add_subparsers(required=True, metavar="build|delete")
    build = index.add_parser(
        "build", help="add videos, window by window; a video that is there already is skipped"
    )
    build.add_argument(
        "videos", nargs="+", metavar="FILE", help="videos, feature files, folders of videos"
    )
    build.add_argument("--db", required=True, help=DATABASE_HELP)
    add_model_options(build, WEIGHTS_DEFAULT)
    add_experts_option(build, "all of the model, the others count as absent")
    add_jobs_option(build)
    add_time_limit_option(build)
    build.add_argument("--window", type=float, metavar="S", help="seconds of each window")
    build.add_argument("--stride", type=float, metavar="S", help="seconds between their starts")
    build.add_argument(
        "--metadata",
        type=Path,
        metavar="FILE",
        help='facts to filter by, as JSON lines: {"path": "videos/a.mp4", "year": 2021}; a video '
        "without a line keeps its metadata in the database",
    )
    build.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="folder of feature files, which are read instead of their videos",
    )
    build.set_defaults(run=_build)
    delete = index.add_parser("delete", help="remove videos")
    delete.add_argument("videos", nargs="+", metavar="FILE", help="files, not folders")
    delete.add_argument("--db", required=True, help=DATABASE_HELP)
    delete.set_defaults(run=_delete)

    search = commands.add_parser("search", help="find the moments that a sentence describes")
    query = search.add_mutually_exclusive_group(required=True)
    query.add_argument("text", nargs="?", help="the scene or sound to find, in words")
    query.add_argument("--video", metavar="FILE", help="find segments that resemble this video")
    search.add_argument("--db", required=True, help=DATABASE_HELP)
    add_model_options(search, WEIGHTS_DEFAULT)
    add_experts_option(search, "all of the model; for --video")
    add_tokenizer_option(search)
    add_time_limit_option(search)
    search.add_argument("-k", type=int, default=10, help="number of results; default: %(default)s")
    search.add_argument(
        "--filter",
        metavar="EXPR",
        help='on path, start_s, end_s and metadata, in Milvus\' language: "year >= 2020", or '
        "'metadata[\"shot-at\"] == 3' for a name that is not a plain word",
    )
    search.add_argument(
        "--expert-weights",
        type=_numbers_by_expert,
        metavar="NAME=X,NAME=X",
        help="what each expert's share of the scores is multiplied by, such as frame=1,motion=2; "
        "default: 1 for each",
    )
    search.add_argument("--json", action="store_true", help="print JSON lines")
    search.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page that plays the results"
    )
    search.set_defaults(run=_search)


def _build(arguments: argparse.Namespace) -> int:
    from ..batch.extract import find_videos
    from ..features.files import find_feature_files
    from ..search import Index, index_files, read_metadata
    from ..search.index import stored_weights
    from ..search.milvus import is_local, remove_local_database

    if arguments.features:
        find_feature_files(arguments.features)  # refuses a wrong folder before a database is made
    paths = [str(path) for path, _ in find_videos(arguments.videos)]
    metadata = read_metadata(arguments.metadata) if arguments.metadata else {}
    if arguments.weights is None:
        arguments.weights = _usable_weights(stored_weights(arguments.db), arguments.db)
    model = load_model(arguments)
    jobs = jobs_of(arguments, model.device)
    window_s, stride_s = model.window_lengths(arguments.window, arguments.stride)
    folder = Path(arguments.db).expanduser()
    is_new = is_local(arguments.db) and not folder.exists()
    outcomes: list[Outcome[int]] = []
    state = "is to be opened again"
    try:
        with Index.open(arguments.db, model) as index:
            run = index_files(
                index, model, paths, window_s, stride_s, metadata, arguments.features, jobs
            )
            with video_progress(paths) as finish:
                for outcome in run:
                    outcomes.append(outcome)
                    finish(outcome.name)
            with suppress(InputError):  # on a full disk, which the outcomes tell
                state = f"holds {index.count()} windows"
    finally:
        if is_new and folder.exists() and not any(outcome.result for outcome in outcomes):
            remove_local_database(folder)
            state = "was not made"
    failures = [f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error]
    known = {os.path.abspath(path) for path in paths}
    failures += [
        f"{arguments.metadata} describes {path}, which is not among these videos"
        for path in metadata
        if path not in known
    ]
    failed = sum(outcome.error is not None for outcome in outcomes)
    skipped = sum(outcome.result == 0 for outcome in outcomes)
    added = sum(outcome.result or 0 for outcome in outcomes)
    return report(
        failures,
        f"{added} windows of {len(outcomes) - skipped - failed} videos added, {skipped} videos "
        f"skipped; {arguments.db} {state}",
    )


def _delete(arguments: argparse.Namespace) -> int:
    from ..search import Index

    with Index.open(arguments.db) as index:
        # Another program may have added a file under its relative path.
        windows_of = {
            path: sum(map(index.delete, {os.path.abspath(path), path})) for path in arguments.videos
        }
    failures = [f"{path}: is not in the index" for path, count in windows_of.items() if not count]
    return report(failures, f"{len(arguments.videos) - len(failures)} videos removed")


def _search(arguments: argparse.Namespace) -> int:
    import numpy as np

    from ..search import Index
    from ..storage.files import check_writable

    if arguments.html is not None:
        check_writable(arguments.html)
    if arguments.experts and arguments.video is None:
        raise InputError("--experts is for --video, since no expert runs for a sentence")
    with Index.open(arguments.db) as index:
        if arguments.weights is None:
            arguments.weights = _usable_weights(index.weights, arguments.db)
        model = load_model(arguments)
        index.check_model(model)
        if arguments.video is None:
            query = model.encode_text(arguments.text)
        else:
            query = model.encode_video(arguments.video)
        if arguments.expert_weights is not None:
            query = index.weigh(query, arguments.expert_weights)
        results = index.search(query, arguments.k, arguments.filter, with_vectors=True)
        hits = cast("list[Hit]", results)  # those of a single query
        names = index.metadata_names() if arguments.filter and not hits else None
    vectors = [hit.vector for hit in hits if hit.vector is not None]
    similarity = model.similarity(query, np.stack(vectors)) if hits else None
    if similarity is None:
        if not arguments.json:
            print("nothing was found")
    elif arguments.json:
        escape = (sys.stdout.encoding or "").lower() != "utf-8"  # JSON has escapes of its own
        for number, hit in enumerate(hits):
            print(json.dumps(_record(hit, similarity, number), ensure_ascii=escape))
    else:
        print(_format_hits(hits, similarity))
    if names is not None:
        say(f"names in the metadata are {', '.join(names)}" if names else "no file has metadata")
    if arguments.html is not None:
        from ..search import write_page

        write_page(arguments.html, arguments.text or arguments.video, hits, similarity)
        say(f"{len(hits)} results; the page is {arguments.html}")
    return 0


def _numbers_by_expert(text: str) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = map(str.strip, part.partition("="))
        try:
            if not name or name in numbers:
                raise ValueError
            numbers[name] = float(number)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{part!r}, expected the name of an expert, = and a number, each expert once"
            ) from None
    return numbers


def _usable_weights(stored: str | None, database: str) -> str | None:
    """The weights that a database names, or None for the default ones if they are not there.

    Raises:
        InputError: neither they nor the default ones are on this machine.
    """
    from ..weights.locate import default_is_there, is_there

    if stored is None or is_there(stored):
        return stored
    gone = f"{database} was built with the weights {stored!r}, which are not there"
    if not default_is_there():
        raise InputError(f"{gone}; name the place where they are now with --weights")
    say(f"{gone}; the default weights are used if they are the same")
    return None


def _record(hit: Hit, similarity: Similarity, number: int) -> dict[str, Any]:
    shares = similarity.by_expert[0, number].tolist()
    return {
        "path": hit.path,
        "start_s": hit.start_s,
        "end_s": hit.end_s,
        "score": hit.score,
        "by_expert": dict(zip(similarity.experts, shares, strict=True)),
        "metadata": hit.metadata,
    }


def _format_hits(hits: Sequence[Hit], similarity: Similarity) -> str:
    rows = [["rank", "score", *similarity.experts, "from", "to", "file"]]
    for rank, hit in enumerate(hits, start=1):
        numbers = [hit.score, *similarity.by_expert[0, rank - 1]]
        times = [f"{time_s:.1f}" for time_s in (hit.start_s, hit.end_s)]
        rows.append([str(rank), *(f"{x:.3f}" for x in numbers), *times, hit.path])
    return format_table(rows)

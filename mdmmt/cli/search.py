"""`mdmmt index` and `mdmmt search`: keep a collection of videos, and search it by a sentence."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError
from ..storage.text import counted, format_table, numbered_lines, read_text
from .common import (
    Commands,
    add_experts_options,
    add_jobs_option,
    add_model_options,
    add_time_limit_option,
    add_tokenizer_option,
    add_window_options,
    check_some_are_there,
    jobs_of,
    load_model,
    print_result,
    report,
    say,
    shows_bars,
    video_progress,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..batch.outcome import Outcome
    from ..model import Model, Similarity
    from ..search.index import Hit, Index

DATABASE_HELP = "a local database, usually named NAME.db, or the address of a Milvus server"
STDIN = "-"  # as the file of --queries
WEIGHTS_DEFAULT = "; default: those that the database was built with, else as for `mdmmt embed`"


def add_commands(commands: Commands) -> None:
    """Add these commands to the parser."""
    index = commands.add_parser(
        "index", help="keep a collection of videos to be searched"
    ).add_subparsers(required=True, metavar="build|list|info|prune|delete|export|import")
    _add_build(index)
    _add_list_info_prune_delete(index)
    _add_export_and_import(index)
    _add_search(commands)


def _add_build(index: Commands) -> None:
    build = index.add_parser(
        "build", help="add videos, window by window; a video that is there already is skipped"
    )
    build.add_argument(
        "videos", nargs="+", metavar="FILE", help="videos, feature files, folders of either"
    )
    build.add_argument("--db", required=True, help=DATABASE_HELP)
    add_model_options(build, WEIGHTS_DEFAULT)
    add_experts_options(build, "all of the model, the others count as absent")
    add_jobs_option(build)
    add_time_limit_option(build)
    add_window_options(build)
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
        metavar="FOLDER",
        help="folder of feature files, which are read instead of their videos",
    )
    build.add_argument(
        "--restore",
        action="store_true",
        help="also add videos again that `mdmmt index delete` has removed",
    )
    build.set_defaults(run=_build)


def _add_list_info_prune_delete(index: Commands) -> None:
    list_ = index.add_parser("list", help="list the videos")
    list_.add_argument("--db", required=True, help=DATABASE_HELP)
    list_.add_argument("--json", action="store_true", help="print JSON lines")
    list_.set_defaults(run=_list)
    info = index.add_parser("info", help="tell the model, and how many videos there are")
    info.add_argument("--db", required=True, help=DATABASE_HELP)
    info.set_defaults(run=_info)
    prune = index.add_parser("prune", help="remove videos whose files are gone from disk")
    prune.add_argument("--db", required=True, help=DATABASE_HELP)
    prune.add_argument("--dry-run", action="store_true", help="name them, and remove nothing")
    prune.set_defaults(run=_prune)
    delete = index.add_parser(
        "delete", help="remove videos, which later builds leave out unless they --restore them"
    )
    delete.add_argument("videos", nargs="+", metavar="FILE", help="videos, folders of videos")
    delete.add_argument("--db", required=True, help=DATABASE_HELP)
    delete.set_defaults(run=_delete)


def _add_export_and_import(index: Commands) -> None:
    export = index.add_parser(
        "export", help="write all of a database into one file, to be imported into another"
    )
    export.add_argument("--db", required=True, help=DATABASE_HELP)
    export.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="a name in .parquet or .jsonl"
    )
    export.set_defaults(run=_export)
    import_ = index.add_parser(
        "import", help="add all that `mdmmt index export` has written to a database"
    )
    import_.add_argument("file", type=Path, metavar="FILE", help="what the export has written")
    import_.add_argument("--db", required=True, help=DATABASE_HELP)
    import_.set_defaults(run=_import)


def _add_search(commands: Commands) -> None:
    search = commands.add_parser("search", help="find the moments that a sentence describes")
    texts = search.add_mutually_exclusive_group()
    texts.add_argument(
        "text",
        nargs="?",
        help="the scene or sound to find, in words; on a terminal, a search without a query asks "
        "for one after the other",
    )
    texts.add_argument(
        "--queries",
        metavar="FILE",
        help=f"a text on each line, or {STDIN} for standard input, whose lines are answered as "
        "they come",
    )
    example = search.add_mutually_exclusive_group()
    example.add_argument(
        "--video",
        metavar="FILE",
        help="find what resembles this video, and with a text what fits both",
    )
    example.add_argument(
        "--like",
        metavar="HIT",
        help="find more like a result, by its `id` from --json, or by FILE#t=SECOND",
    )
    search.add_argument("--db", required=True, help=DATABASE_HELP)
    add_model_options(search, WEIGHTS_DEFAULT)
    add_experts_options(search, "all of the model; for --video")
    add_tokenizer_option(search)
    add_time_limit_option(search)
    search.add_argument("-k", type=int, default=10, help="number of results; default: %(default)s")
    search.add_argument(
        "--per-video", type=int, metavar="N", help="number of results of one video at most"
    )
    search.add_argument(
        "--windows",
        action="store_true",
        help="show each window by itself; default: windows that overlap or touch are one result",
    )
    search.add_argument(
        "--refine",
        action="store_true",
        help="narrow the times of each result, by the features that are kept",
    )
    search.add_argument(
        "--features",
        type=Path,
        metavar="FOLDER",
        help="folder of feature files, which --refine reads",
    )
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
    search.add_argument(
        "--json",
        action="store_true",
        help="print JSON lines: one for each result, or with --queries one for each query",
    )
    search.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page that plays the results"
    )
    search.set_defaults(run=_search)


def _build(arguments: argparse.Namespace) -> int:
    from ..features.files import find_feature_files
    from ..features.listing import find_videos_or_features
    from ..search import Index, index_files, read_metadata
    from ..search.build import was_deleted
    from ..search.index import stored_weights
    from ..search.milvus import is_local, remove_local_database

    if arguments.features:
        find_feature_files(arguments.features)  # refuses a wrong folder before a database is made
    check_some_are_there(arguments.videos, "a video file, a feature file or a folder of these")
    paths = find_videos_or_features(arguments.videos)
    metadata = read_metadata(arguments.metadata) if arguments.metadata else {}
    if arguments.weights is None:
        arguments.weights = usable_weights(stored_weights(arguments.db), arguments.db)
    model = load_model(arguments)
    jobs = jobs_of(arguments, model.device)
    window_s, stride_s = model.window_lengths(arguments.window, arguments.stride)
    folder = Path(arguments.db).expanduser()
    is_new = is_local(arguments.db) and not folder.exists()
    outcomes: list[Outcome[int]] = []
    state = "is to be opened again"
    try:
        with Index.open(arguments.db, model) as index:
            left_out: set[str] = set()
            if not arguments.restore:
                left_out = {path for path in paths if was_deleted(index, path)}
            if left_out:
                deleted = counted(
                    len(left_out),
                    "video was deleted and is left out",
                    "videos were deleted and are left out",
                )
                say(f"{deleted}; --restore adds what was deleted")
            run = index_files(
                index,
                model,
                paths,
                window_s,
                stride_s,
                metadata,
                arguments.features,
                jobs,
                restore=arguments.restore,
            )
            with video_progress(set(paths) - left_out) as finish:
                for outcome in run:
                    outcomes.append(outcome)
                    finish(outcome.name)
            with suppress(InputError):  # on a full disk, which the outcomes tell
                state = f"holds {counted(index.count(), 'window')}"
    finally:
        if is_new and folder.exists() and not any(outcome.result for outcome in outcomes):
            remove_local_database(folder)
            state = "was not made"
    known = {os.path.abspath(path) for path in paths}
    unknown = [path for path in metadata if path not in known]
    return _report_build(arguments, outcomes, unknown, state)


def _report_build(
    arguments: argparse.Namespace,
    outcomes: Sequence[Outcome[int]],
    unknown: Iterable[str],
    state: str,
) -> int:
    """Name what could not be added, and count the rest; return the exit status.

    Args:
        unknown: the paths that have metadata, and are not among the videos.
        state: of the database, as the end of a sentence about it.
    """
    failures = [f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error]
    failures += [
        f"{arguments.metadata} describes {path}, which is not among these videos"
        for path in unknown
    ]
    failed = sum(outcome.error is not None for outcome in outcomes)
    skipped = sum(outcome.result == 0 for outcome in outcomes)
    added = sum(outcome.result or 0 for outcome in outcomes)
    return report(
        failures,
        f"{_windows_of_videos(len(outcomes) - skipped - failed, added)} added, "
        f"{counted(skipped, 'video')} skipped; {arguments.db} {state}",
    )


def _list(arguments: argparse.Namespace) -> int:
    from ..search import Index

    with Index.open(arguments.db, read_only=True) as index:
        files = index.files()
    if arguments.json:
        for file in files:
            _print_json(file._asdict() | {"on_disk": _is_on_disk(file.path)})
        return 0
    words = {True: "yes", False: "no", None: "unknown"}
    rows = [[str(file.segments), words[_is_on_disk(file.path)], file.path] for file in files]
    print(format_table([["windows", "on disk", "file"], *rows]))
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from ..search import Index

    with Index.open(arguments.db, read_only=True) as index:
        files = index.files()
        lines = {
            "model": str(index.model),
            "weights": index.weights or "unknown",
            "experts": ", ".join(index.experts or ["unknown"]),
            "files": str(len(files)),
            "windows": str(sum(file.segments for file in files)),
            "not on disk": str(sum(_is_on_disk(file.path) is False for file in files)),
            "metadata": ", ".join(index.metadata_names()) or "none",
        }
    print(format_table([[name, value] for name, value in lines.items()], flush_left=(0, 1)))
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    from ..search import Index

    with Index.open(arguments.db, read_only=arguments.dry_run) as index:
        paths = [file.path for file in index.files()]
        gone = [path for path in paths if _is_on_disk(path) is False]
        if gone and len(gone) == len(paths):
            raise InputError(
                f"none of {counted(len(paths), 'file')} of {arguments.db} is on disk; expected "
                "some to be there, so look whether their disk is mounted; `mdmmt index delete` "
                "removes files in any case"
            )
        if not arguments.dry_run:
            index.delete(*gone)
    for path in gone:
        print_result(path)
    print_result(
        f"{counted(len(gone), 'video')} {'to be removed' if arguments.dry_run else 'removed'}"
    )
    return 0


def _is_on_disk(path: str) -> bool | None:
    """Whether a file is there. None: another program has added it under its relative path."""
    return os.path.exists(path) if os.path.isabs(path) else None


def _delete(arguments: argparse.Namespace) -> int:
    from ..search import Index

    with Index.open(arguments.db) as index:
        indexed = {file.path for file in index.files()}
        found: dict[str, set[str]] = {}
        for path in arguments.videos:
            # Another program may have added a file under its relative path.
            names = {os.path.abspath(path), path}
            folders = tuple(os.path.join(name, "") for name in names)
            found[path] = names & indexed or {file for file in indexed if file.startswith(folders)}
        removed = set().union(*found.values())
        index.delete(*removed, keep_out=True)
    failures = [f"{path}: is not in the index" for path, files in found.items() if not files]
    return report(failures, f"{counted(len(removed), 'video')} removed")


def _export(arguments: argparse.Namespace) -> int:
    from ..search import Index, export_index
    from ..search.transfer import check_output

    check_output(arguments.out)
    with Index.open(arguments.db, read_only=True) as index:
        files, segments = export_index(index, arguments.out)
    print_result(f"{_windows_of_videos(files, segments)} exported to {arguments.out}")
    return 0


def _windows_of_videos(files: int, segments: int) -> str:
    return f"{counted(segments, 'window')} of {counted(files, 'video')}"


def _import(arguments: argparse.Namespace) -> int:
    from ..search import import_index

    files, segments = import_index(arguments.file, arguments.db)
    print_result(f"{_windows_of_videos(files, segments)} imported into {arguments.db}")
    return 0


def _search(arguments: argparse.Namespace) -> int:
    from ..search import Index
    from ..storage.files import check_file, check_writable

    query = (arguments.text, arguments.video, arguments.like)
    one_query = arguments.queries is None and query != (None, None, None)
    if not one_query and arguments.queries is None:
        if not sys.stdin.isatty():
            raise InputError("there is no query; expected a text, --video, --like or --queries")
        arguments.queries = STDIN
    if arguments.html is not None:
        if not one_query:
            raise InputError(
                "--html shows the results of one query, expected a text, --video or --like"
            )
        check_writable(arguments.html)
    if arguments.video is not None:
        check_file(arguments.video, "a video file or a feature file")
    if arguments.experts and arguments.video is None:
        raise InputError("--experts is for --video, since no expert runs for a sentence")
    if arguments.features and not arguments.refine:
        raise InputError("--features is for --refine, since a search reads no features")
    if arguments.features:
        from ..features import FeatureFolder

        arguments.features = FeatureFolder(arguments.features)
    lines = None if one_query else _read_queries(arguments.queries)
    with Index.open(arguments.db, read_only=True) as index:
        if arguments.weights is None:
            arguments.weights = usable_weights(index.weights, arguments.db)
        model = load_model(arguments)
        index.check_model(model)
        example = _read_example(arguments, index, model)
        if lines is not None:
            return _answer_lines(arguments, index, model, example, lines)
        return _answer_one(arguments, index, model, example)


class _Example(NamedTuple):
    """What the results are to resemble; with a text, they are to fit both."""

    vector: NDArray[np.float32]
    window: Hit | None = None  # of the index, which is no result itself


def _read_example(arguments: argparse.Namespace, index: Index, model: Model) -> _Example | None:
    if arguments.video is not None:
        return _Example(model.encode_video(arguments.video))
    if arguments.like is None:
        return None
    path, is_place, time = arguments.like.rpartition("#t=")
    if not is_place:
        window = index.window(arguments.like)
    else:
        try:
            time_s = float(time)
        except ValueError:
            raise InputError(
                f"--like is {arguments.like!r}, expected a number of seconds after #t="
            ) from None
        # Another program may have added a file under its relative path.
        stored = os.path.abspath(path) if index.source(path) is None else path
        window = index.window_at(stored, time_s)
    assert window.vector is not None
    return _Example(window.vector, window)


def _answer_one(
    arguments: argparse.Namespace, index: Index, model: Model, example: _Example | None
) -> int:
    text = None if arguments.text is None else model.encode_text(arguments.text)
    hits, similarity = _find(arguments, index, model, text, example)
    note = "" if example is not None else _note(arguments, model, hits)
    if arguments.json:
        for record in _records(hits, similarity):
            _print_json(record)
    else:
        print(_format_answer(hits, similarity, note))
    if arguments.filter and not hits:
        names = index.metadata_names()
        known = f"names in the metadata are {', '.join(names)}" if names else "no file has metadata"
        say(known, logging.INFO)
    if arguments.html is not None:
        from ..search import write_page

        query = " ".join(filter(None, (arguments.text, arguments.video, arguments.like)))
        write_page(arguments.html, query, hits, similarity, shows_bars(), note)
        say(f"{counted(len(hits), 'result')}; the page is {arguments.html}", logging.INFO)
    return 0


def _read_queries(source: str) -> Iterator[tuple[str, str]]:
    """Yield each query and its place. A file is read at once, and standard input line by line.

    Raises:
        InputError: the file cannot be read, or is not UTF-8.
    """
    if source != STDIN:
        path = Path(source)
        return numbered_lines(path, read_text(path))
    return _read_stdin()


def _read_stdin() -> Iterator[tuple[str, str]]:
    if hasattr(sys.stdin, "reconfigure"):  # what is not text is refused by its line
        sys.stdin.reconfigure(errors="surrogateescape")
    ask = sys.stdin.isatty()
    if ask:
        say("type a sentence; Ctrl-D ends", logging.INFO)
    for number in itertools.count(1):
        if ask:
            print("> ", end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            return
        if line.strip():
            yield line, f"standard input, line {number}"


def _answer_lines(
    arguments: argparse.Namespace,
    index: Index,
    model: Model,
    example: _Example | None,
    lines: Iterable[tuple[str, str]],
) -> int:
    """Answer one query after the other; one that is no text is named, and the others go on."""
    model.encode_text("ready")  # reads the tower and the tokenizer before the first query comes
    status = 0
    for line, where in lines:
        text = line.strip()
        try:
            query = model.encode_text(text)
        except InputError as error:
            say(f"{where}: {error}")
            status = 1
            continue
        hits, similarity = _find(arguments, index, model, query, example)
        note = "" if example is not None else _note(arguments, model, hits)
        if arguments.json:
            _print_json({"query": text, "hits": _records(hits, similarity)})
        else:
            print_result(text)
            print(_format_answer(hits, similarity, note), end="\n\n", flush=True)
    return status


def _find(
    arguments: argparse.Namespace,
    index: Index,
    model: Model,
    text: NDArray[np.float32] | None,
    example: _Example | None,
) -> tuple[list[Hit], Similarity | None]:
    from ..search.answer import answer

    vectors = [vector for vector in (text, example and example.vector) if vector is not None]
    query = vectors[0] if len(vectors) == 1 else index.combine(*vectors)
    hits, similarity = answer(
        index,
        model,
        query,
        arguments.k,
        arguments.filter,
        arguments.expert_weights,
        arguments.per_video,
        merge=not arguments.windows,
        besides=example.window if example else None,
    )
    if arguments.refine and hits:
        from ..search import refine_hits

        if arguments.expert_weights is not None:
            query = index.weigh(query, arguments.expert_weights)
        hits, without_features = refine_hits(index, model, query, hits, arguments.features)
        if without_features:
            videos = counted(len(without_features), "video")
            say(
                f"the features of {videos}, such as {without_features[0]!r}, are not kept, so the "
                "times of their results are those of the windows; `mdmmt extract` writes "
                "features into a folder, which --features names",
                logging.WARNING,
            )
    return hits, similarity


def _note(arguments: argparse.Namespace, model: Model, hits: Sequence[Hit]) -> str:
    """What stands above the hits of a text."""
    from ..sample import note_on

    if not hits or arguments.expert_weights is not None:
        return ""
    return note_on(model.path, hits[0].score)


def _print_json(record: dict[str, Any]) -> None:
    escape = (sys.stdout.encoding or "").lower() != "utf-8"  # JSON has escapes of its own
    print(json.dumps(record, ensure_ascii=escape), flush=True)


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


def usable_weights(stored: str | None, database: str) -> str | None:
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
    say(f"{gone}; the default weights are used if they are the same", logging.WARNING)
    return None


def _records(hits: Sequence[Hit], similarity: Similarity | None) -> list[dict[str, Any]]:
    if similarity is None:
        return []
    return [
        {
            "id": hit.id,
            "path": hit.path,
            "start_s": hit.start_s,
            "end_s": hit.end_s,
            "best_start_s": hit.best_window_s[0],
            "best_end_s": hit.best_window_s[1],
            "score": hit.score,
            "by_expert": dict(zip(similarity.experts, shares, strict=True)),
            "metadata": hit.metadata,
        }
        for hit, shares in zip(hits, similarity.by_expert[0].tolist(), strict=True)
    ]


def _format_answer(hits: Sequence[Hit], similarity: Similarity | None, note: str) -> str:
    if similarity is None:
        return "nothing was found"
    rows = [["rank", "score", *similarity.experts, "from (s)", "to (s)", "best (s)", "file"]]
    for rank, hit in enumerate(hits, start=1):
        numbers = [hit.score, *similarity.by_expert[0, rank - 1]]
        times = [f"{time_s:.1f}" for time_s in (hit.start_s, hit.end_s, hit.best_window_s[0])]
        rows.append([str(rank), *(f"{x:.3f}" for x in numbers), *times, hit.path])
    table = format_table(rows)
    return f"{note}\n{table}" if note else table

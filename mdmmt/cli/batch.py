"""`mdmmt batch`: embed more than one machine can, on a Ray cluster."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..storage.text import counted
from .common import (
    Commands,
    add_experts_options,
    add_model_options,
    add_time_limit_option,
    add_tokenizer_option,
    add_window_options,
    count,
    load_model,
    positive_number,
    report,
    shows_bars,
)

if TYPE_CHECKING:
    from ..batch.sources import Items
    from ..batch.worker import Work
    from ..model import Model


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    batch = commands.add_parser(
        "batch",
        help="embed a library on a Ray cluster, or with all cores of this machine",
    )
    items = batch.add_mutually_exclusive_group(required=True)
    items.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="a folder; a prefix of an object store, such as s3://BUCKET/PREFIX; or a list of "
        "videos, one a line of a .txt or in a column of a .csv, .tsv, .jsonl or .parquet",
    )
    items.add_argument(
        "--texts",
        metavar="FILE",
        help="embed texts instead, one a line of a .txt or in a column of a table",
    )
    batch.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="folder, or prefix of an object store, for Parquet files of the embeddings; what is "
        "there already is not done again",
    )
    batch.add_argument(
        "--column",
        metavar="NAME",
        help="of a table, which holds the items; default: path, with --texts text",
    )
    batch.add_argument(
        "--cluster",
        metavar="HOST:PORT",
        help="head of the Ray cluster, of which this machine is a node; default: Ray is started on "
        "this machine for this run",
    )
    batch.add_argument(
        "--db",
        help="database to be filled from --out at the end: a local one, or the address of a "
        "Milvus server",
    )
    add_model_options(batch)
    add_experts_options(batch, "all of the model, the others count as absent")
    add_tokenizer_option(batch)
    add_time_limit_option(batch)
    add_window_options(batch)
    batch.add_argument(
        "--features",
        metavar="FOLDER",
        help="keep the features of videos in this folder, which all nodes share; those that are "
        "there already are used",
    )
    batch.add_argument(
        "--retry", action="store_true", help="do items again that failed in an earlier run"
    )
    batch.add_argument(
        "--actors",
        type=count,
        metavar="N",
        help="processes that work; default: as many as the cluster has room for",
    )
    batch.add_argument(
        "--cpus-per-actor",
        type=positive_number,
        default=1.0,
        metavar="N",
        help="CPUs that an actor asks Ray for, its threads, and the videos that it reads at once; "
        "default: 1",
    )
    batch.add_argument(
        "--gpus-per-actor",
        type=positive_number,
        default=0.0,
        metavar="X",
        help="GPUs that an actor asks Ray for, such as 0.25; default: none",
    )
    batch.add_argument(
        "--memory-per-actor",
        type=positive_number,
        metavar="GB",
        help="memory that an actor asks Ray for; default: none is asked for",
    )
    batch.set_defaults(run=_batch)


def _batch(arguments: argparse.Namespace) -> int:
    from ..batch.on_ray import Actors, Job, check_address, import_ray, run_on_ray
    from ..batch.parts import Parts
    from ..batch.sources import encode, find_items, find_texts, item_id

    import_ray()
    _check(arguments)
    if arguments.cluster is not None:
        check_address(arguments.cluster)
    if arguments.texts is not None:
        items = find_texts(arguments.texts, arguments.column)
    else:
        items = find_items(arguments.source, arguments.column)
    parts = Parts(arguments.out)
    device, arguments.device = arguments.device, "cpu"  # that of the actors is another matter
    model = load_model(arguments)
    arguments.device = device
    settings = _settings(arguments, items, model)
    if arguments.db is not None:
        from ..search.fill import check_index

        check_index(arguments.db, model, items.names)
    mark = parts.begin(settings)  # it stops an earlier command, so it comes after all checks
    if arguments.retry:
        parts.forget_errors()
    done = parts.done()
    names = [name for name in items.names if item_id(name) not in done]
    before = [done[id_] for id_ in map(item_id, items.names) if id_ in done]
    rows, failures = 0, list[str]()
    if names:
        memory = arguments.memory_per_actor
        job = Job(
            arguments.cluster,
            Actors(
                arguments.actors,
                arguments.cpus_per_actor,
                arguments.gpus_per_actor,
                None if memory is None else int(memory * 1e9),
            ),
            _work(arguments, items, settings, model),
            [encode(name) for name in names],
            items.kind == "text" or all(name.endswith(".safetensors") for name in names),
            mark,
            settings,
            bool(arguments.verbose),
        )
        with _bar(len(names), items.kind) as update:
            for part in run_on_ray(job):
                update(part.items)
                rows += part.rows
                for name, error in part.failures:  # that of a text quotes the text itself
                    failures.append(error if items.kind == "text" else f"{name}: {error}")
    unit = "text" if items.kind == "text" else "window"
    earlier = counted(len(before), "item was", "items were")
    summary = (
        f"{counted(rows, unit)} of {len(names) - len(failures)} of {counted(len(names), 'item')} "
        f"embedded, written to {arguments.out}; {earlier} done before, {sum(before)} of them failed"
    )
    if arguments.db is not None:
        from ..search import Index
        from ..search.fill import fill_index

        with Index.open(arguments.db, model) as index:
            added = fill_index(index, parts)
        summary += f"; {counted(added, 'window')} added to {arguments.db}"
    return report(failures, summary)


def _check(arguments: argparse.Namespace) -> None:
    """Raise an error for options that exclude each other, before any work."""
    if arguments.texts is not None:
        video_options = {
            "--window": arguments.window,
            "--stride": arguments.stride,
            "--experts": arguments.experts,
            "--features": arguments.features,
            "--db": arguments.db,
        }
        for option, value in video_options.items():
            if value is not None:
                raise InputError(f"{option} is for videos, not for texts")


def _settings(arguments: argparse.Namespace, items: Items, model: Model) -> dict[str, Any]:
    """What must be the same for all parts."""
    from ..weights.identity import identity_of

    settings: dict[str, Any] = {
        "kind": items.kind,
        "model": identity_of(model.path, model.config)._asdict(),
        "precision": arguments.precision,
    }
    if items.kind == "path":
        window_s, stride_s = model.window_lengths(arguments.window, arguments.stride)
        settings |= {
            "experts": list(model.expert_names),
            "experts_precision": arguments.experts_precision,
            "window_s": window_s,
            "stride_s": stride_s,
        }
    return settings


def _work(
    arguments: argparse.Namespace, items: Items, settings: dict[str, Any], model: Model
) -> Work:
    """The work of the actors. They know paths by their absolute names."""
    from ..batch.worker import Work
    from ..storage.object_store import is_address
    from ..weights.identity import Identity

    device = arguments.device
    if device is None and not arguments.gpus_per_actor:
        device = "cpu"  # an actor must not take a GPU that it has not asked for
    out = arguments.out if is_address(arguments.out) else os.path.abspath(arguments.out)
    return Work(
        kind=items.kind,
        load={
            "weight_path": _absolute(arguments.weights),
            "device": device,
            "mmttxt_params": {"tokenizer": _absolute(arguments.tokenizer)}
            if arguments.tokenizer
            else None,
            "experts": arguments.experts,
            "precision": arguments.precision,
            "time_limit_s": arguments.time_limit,
            "experts_precision": arguments.experts_precision,
        },
        identity=Identity(**settings["model"]),
        out=out,
        root=items.root,
        options=items.options,
        window_s=settings.get("window_s"),
        stride_s=settings.get("stride_s"),
        features=None if arguments.features is None else os.path.abspath(arguments.features),
        threads=max(1, int(arguments.cpus_per_actor)),
    )


def _absolute(path: str | None) -> str | None:
    """A path that another process understands; names on Hugging Face stay as they are."""
    return os.path.abspath(path) if path is not None and os.path.exists(path) else path


@contextmanager
def _bar(total: int, kind: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar; yield the function that takes the number of items that are done."""
    from tqdm import tqdm

    unit = " texts" if kind == "text" else " videos"
    with tqdm(total=total, unit=unit, disable=not shows_bars()) as bar:
        yield bar.update

"""Fill an index with the output of `mdmmt batch`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..batch.parts import Parts, item_of
from ..errors import InputError
from ..features.files import SUFFIX
from ..model import Model, Segments
from .index import FileEntry, Index
from .milvus import is_local, remove_local_database
from .sources import MixtureCheck, Source


def check_index(uri: str, model: Model, names: Sequence[str]) -> None:
    """Refuse a database that `fill_index` could not fill, before the work on many items.

    A local database that is made for that is removed again.

    Args:
        uri: see `Index.open`.
        names: of the items. The versions of feature files are not looked at.

    Raises:
        InputError, MissingDependency: see `Index.open`; or the database holds features of other
            versions of the experts, or of another clock.
        WeightsError: the weights of the model, or of an expert, cannot be read.
    """
    folder = Path(uri).expanduser()
    is_new = is_local(uri) and not folder.exists()
    try:
        with Index.open(uri, model) as index:
            video = next((name for name in names if not name.endswith(SUFFIX)), None)
            if video is not None and index.count():
                source = Source([], *model.reader.versions_of(video))
                _check_mixture(MixtureCheck(index), video, source)
    finally:
        if is_new and folder.exists():
            remove_local_database(folder)


def fill_index(index: Index, parts: Parts) -> int:
    """Add the windows of each file that the parts hold, unless the index has them.

    A file is left out if it failed, or if `Index.delete` has removed it with `keep_out`.

    Returns:
        The number of windows that were added.

    Raises:
        InputError: the parts are of another model or of texts, or cannot be read; or the index
            holds features of other versions of the experts, or cannot be written.
    """
    settings = parts.settings()
    if settings["kind"] != "path":
        raise InputError(f"{parts.out!r} holds texts, expected videos for an index")
    if settings["model"]["sha256"] != index.model.sha256:
        raise InputError(
            f"{parts.out!r} holds vectors of the model {settings['model']['name']}, and the index "
            f"those of {index.model}; expected one model"
        )
    known = {path: hash(source) for path, source in index.sources()}
    mixture = MixtureCheck(index)
    added = 0
    for table in parts.tables():
        files = [
            (file, source)
            for file, source in _files(table, settings)
            if known.get(file.path) != hash(file.source) and not index.is_deleted(file.path)
        ]
        for _, alike in groupby(files, lambda one: (one[1].versions, one[1].clock)):
            entries = []
            for file, source in alike:
                _check_mixture(mixture, file.path, source)
                entries.append(file._replace(metadata=index.metadata(file.path)))
            index.add_files(entries)
            mixture.note_added(source)
            added += sum(len(entry.segments.vectors) for entry in entries)
    return added


def _check_mixture(mixture: MixtureCheck, path: str, source: Source) -> None:
    try:
        mixture.check(path, source)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _files(table: Any, settings: Mapping[str, Any]) -> Iterator[tuple[FileEntry, Source]]:
    """The files of a part, without those that failed."""
    from pyarrow import compute

    table = table.filter(compute.is_null(table["error"]))
    dim = settings["model"]["dim"]
    vectors = np.asarray(table["vector"].combine_chunks().flatten(), dtype=np.float32)
    vectors = vectors.reshape(-1, dim)
    rows = enumerate(table.drop_columns(["vector"]).to_pylist())
    for _, of_file in groupby(rows, lambda row: item_of(row[1]["id"])):
        numbers, windows = zip(*of_file, strict=True)
        first = windows[0]
        facts = [
            first["sha256"],
            settings["window_s"],
            settings["stride_s"],
            settings["experts"],
        ]
        source = Source(facts, json.loads(first["versions"]), first["clock"])
        spans_s = np.array([[window["start_s"], window["end_s"]] for window in windows])
        segments = Segments(vectors[numbers[0] : numbers[-1] + 1], spans_s)
        yield FileEntry(first["path"], segments, str(source), {}), source

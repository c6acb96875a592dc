"""Many texts or videos -> a file of embeddings; what cannot be embedded stops nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, describe_error
from ..model import BATCH_SIZE, Model
from ..storage.files import atomic_file

FORMATS = (".npy", ".jsonl")
VIDEOS_AT_ONCE = 128  # so many are read before the first comes out


class Embedded(NamedTuple):
    """A text, a video or a window of one; either a vector or an error."""

    name: str  # the text, or the path as it was given
    vector: NDArray[np.float32] | None
    error: str | None = None
    span_s: tuple[float, float] | None = None  # of a window


def embed_texts(model: Model, texts: Iterable[str]) -> Iterator[Embedded]:
    """Embed texts, in batches."""
    for batch in _batches(texts, BATCH_SIZE):
        yield from _encode(model.encode_text, batch, batch)


def embed_videos(model: Model, paths: Iterable[str]) -> Iterator[Embedded]:
    """Embed videos and feature files, one embedding each.

    Features go through the tower in batches; only the features of a batch are in memory.
    """
    for batch in _batches(paths, VIDEOS_AT_ONCE):
        names, features, failed = [], [], {}
        for name in batch:
            try:
                features.append(model.extract(name))
            except Exception as error:  # what a file makes a decoder raise must not end the run
                failed[name] = Embedded(name, None, describe_error(error))
            else:
                names.append(name)
        done = iter(_encode(model.encode_video, names, features))
        yield from (failed[name] if name in failed else next(done) for name in batch)


def embed_windows(
    model: Model, paths: Iterable[str], window_s: float | None, stride_s: float | None
) -> Iterator[Embedded]:
    """Embed the windows of videos and feature files, see `Model.encode_segments`."""
    for name in paths:
        try:
            found = model.encode_segments(name, window_s=window_s, stride_s=stride_s)
        except Exception as error:  # see above
            yield Embedded(name, None, describe_error(error))
            continue
        for (start_s, end_s), vector in zip(found.spans_s.tolist(), found.vectors, strict=True):
            yield Embedded(name, vector, span_s=(start_s, end_s))


def write_embeddings(out: Path, kind: str, rows: Sequence[Embedded]) -> None:
    """Write the file whole or not at all.

    Row i of a .npy is that of `rows`, and is NaN where there is no embedding; a .jsonl says which
    is which, and leaves those out.

    Args:
        kind: what a .jsonl calls the name, 'text' or 'path'.
    """
    with atomic_file(out) as part, part.open("wb") as file:
        if out.suffix == ".npy":
            width = next(len(row.vector) for row in rows if row.vector is not None)
            nothing = np.full(width, np.nan, dtype=np.float32)
            np.save(file, np.stack([nothing if r.vector is None else r.vector for r in rows]))
        else:
            for row in rows:
                if row.vector is not None:
                    line = json.dumps(_record(kind, row)) + "\n"
                    file.write(line.encode())


def _record(kind: str, row: Embedded) -> dict[str, Any]:
    span = {} if row.span_s is None else {"start_s": row.span_s[0], "end_s": row.span_s[1]}
    return {kind: row.name, **span, "embedding": row.vector.tolist()}


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    items = list(items)
    return (items[i : i + size] for i in range(0, len(items), size))


def _encode(
    encode: Callable[[list[Any]], NDArray[np.float32]], names: list[str], items: list[Any]
) -> list[Embedded]:
    """Embed a batch; where one item is refused, its halves, and so on."""
    if len(items) < 2:
        return [_encode_one(encode, name, item) for name, item in zip(names, items, strict=True)]
    try:
        return [Embedded(*pair) for pair in zip(names, encode(items), strict=True)]
    except InputError:
        half = len(items) // 2
        parts = slice(half), slice(half, None)
        return [one for part in parts for one in _encode(encode, names[part], items[part])]


def _encode_one(encode: Callable[[Any], NDArray[np.float32]], name: str, item: Any) -> Embedded:
    try:
        return Embedded(name, encode(item))
    except InputError as error:
        return Embedded(name, None, str(error))

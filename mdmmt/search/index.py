"""A collection of embeddings that is searched: Milvus, in a local database or on a server.

A row is a segment of a file. Its id is made of the file's path and the segment's number, so to add
a file again overwrites its rows, and what is known of a file is found without a search.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError, InputTypeError, WeightsError
from ..model import Model, Segments
from ..storage.paths import SAMPLE, SAMPLE_FOLDER
from ..weights.layout import TEXT_PREFIXES, VIDEO_PREFIXES, read_tower
from . import milvus
from .milvus import COLLECTION, LOCAL_SEARCH, METRIC, MOST_BYTES, Identity

if TYPE_CHECKING:
    from pymilvus import MilvusClient

FIELDS = ("id", "path", "start_s", "end_s", "source", "segments", "metadata", "vector")
FOUND_FIELDS = ["path", "start_s", "end_s", "segments", "metadata"]
MOST_HITS = 16_384  # of one search, by Milvus
ROWS_AT_ONCE = 4_096  # written together, whole or not at all; 25 MB of the released model's
UNCLEAN = "UNCLEAN"  # a file in a local database that is open, or whose process was killed
# Milvus Lite keeps new rows in a log, from which nothing is lost, and searches them slowly.
SLOW_ROWS = 100
LOG_BYTES = 64 << 20  # of vectors, at most so many before the log becomes part of the database


class Hit(NamedTuple):
    """A segment that was found."""

    id: str
    path: str
    start_s: float
    end_s: float
    score: float  # inner product with what was searched for
    metadata: dict[str, Any]
    vector: NDArray[np.float32] | None = None  # (D,), if it was asked for


def identity(model: Model) -> Identity:
    """Whose embeddings `model` makes.

    The hash is that of the tensors under today's names and of the order of the experts, so
    converted weights are the same model as those they were made of. All weights are read.

    Raises:
        WeightsError: they cannot be read; one of the towers may be missing.
    """
    video = model.config.video
    experts = [expert.name for expert in video.experts]
    digest = hashlib.sha256(json.dumps([experts, video.same_dim]).encode())
    towers: dict[str, Tensor] = {}
    for prefixes in (VIDEO_PREFIXES, TEXT_PREFIXES):
        try:
            towers |= read_tower(model.path, prefixes)
        except WeightsError:
            if prefixes == TEXT_PREFIXES and not towers:
                raise
    for name, tensor in sorted(towers.items()):
        tensor = tensor.float()  # as it is computed with, whatever the file holds
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    name = SAMPLE if model.path == SAMPLE_FOLDER else model.path.name
    return Identity(name, digest.hexdigest(), len(experts) * video.same_dim)


class Index:
    """Embeddings with the files and seconds they are of. Made by `open`; threads may share it."""

    def __init__(self, client: MilvusClient, uri: str, dim: int) -> None:
        self.dim = dim
        self._client = client
        self._uri = uri
        self._local = milvus.is_local(uri)
        self._closing = ExitStack()
        self._closed = False
        self._writing = threading.Lock()  # Milvus Lite takes one writer, and no reader meanwhile
        self._unflushed = 0  # rows
        self._whole = True  # no rows that are to be deleted

    @classmethod
    def open(
        cls,
        uri: str | os.PathLike[str],
        model: Model | Identity | None = None,
        *,
        create: bool = True,
    ) -> Index:
        """Open a database, or make a new one.

        Args:
            uri: the folder of a local database, by custom `NAME.db`; or the address of a Milvus
                server or cloud: `https://USER:PASSWORD@HOST:PORT/DATABASE`, or a token in the
                place of user and password.
            model: whose embeddings are added and searched. None: that is not checked, and no
                database is made.
            create: whether to make a database where there is none.

        Raises:
            InputError, InputTypeError: there is none and none is to be made, it is open already,
                holds embeddings of another model or something else, or the server does not answer.
        """
        uri = _checked_path(uri, "uri")
        if not isinstance(model, Model | Identity | None):
            raise InputTypeError(
                f"model is a {type(model).__name__}, expected what `mdmmt.load` gives, or None"
            )
        pymilvus = milvus.import_pymilvus()
        local = milvus.is_local(uri)
        if local:  # before all weights are read
            milvus.check_database(Path(uri), model is not None and create)
        wanted = model if isinstance(model, Identity | None) else identity(model)
        if local and not Path(uri).exists():
            milvus.make_local(Path(uri), wanted)
        with ExitStack() as stack:
            address = stack.enter_context(milvus.lite(Path(uri))) if local else uri
            with milvus.errors(uri):
                client = pymilvus.MilvusClient(
                    address, grpc_options=milvus.LOCAL_GRPC if local else {}
                )
                stack.callback(client.close)
                if not client.has_collection(COLLECTION):
                    if wanted is None or not create:
                        raise InputError(f"{milvus.shown(uri)} holds no index, expected one")
                    milvus.make_collection(client, wanted)
                held = milvus.held(client, uri)
                if wanted is not None and held[1:] != wanted[1:]:
                    raise InputError(
                        f"{milvus.shown(uri)} holds embeddings of the model {held}, which those of "
                        f"{wanted} cannot be compared with; expected the same model, or another "
                        "database"
                    )
                milvus.load(client, local)
            index = cls(client, uri, held.dim)
            if local:
                if (Path(uri) / UNCLEAN).exists():
                    index._mend()
                (Path(uri) / UNCLEAN).touch()
                stack.callback(index._settle)
            index._closing = stack.pop_all()
        return index

    def add(
        self,
        path: str | os.PathLike[str],
        segments: Segments,
        source: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Put a file's segments in the place of all that the index holds of this file.

        Once this has returned, the rows are there even if the process is killed. If it is killed
        before, all of the old rows are there or all of the new ones, up to ROWS_AT_ONCE of them.

        Args:
            path: of the file, kept as it is given.
            segments: (n, D) vectors and (n, 2) seconds, as `Model.encode_segments` gives them.
            source: what tells whether the file is to be added anew, such as its SHA-256.
            metadata: of the file, what JSON can hold by names of its own; `search` can filter by
                them.

        Raises:
            InputError, InputTypeError: what cannot be stored, said by argument.
        """
        path = _checked_path(path)
        if not isinstance(segments, Segments):
            raise InputTypeError(
                f"segments is a {type(segments).__name__}, expected mdmmt.model.Segments, as "
                "`encode_segments` gives them"
            )
        vectors = _checked_vectors(segments.vectors, self.dim, "segments.vectors")
        spans_s = _checked_spans(segments.spans_s, len(vectors))
        metadata = checked_metadata(metadata or {})
        # Filters see the metadata as fields of their own, which Milvus Lite filters by far faster.
        same = {
            "path": path,
            "source": _checked_text(source, "source"),
            "segments": len(vectors),
            "metadata": metadata,
        }
        same |= metadata
        rows = [
            same | {"id": _id(path, i), "start_s": start_s, "end_s": end_s, "vector": vector}
            for i, ((start_s, end_s), vector) in enumerate(zip(spans_s, vectors, strict=True))
        ]
        with self._writing:
            # In one write with the new rows, what is left of the old ones becomes no segment of
            # anything; so no kill leaves rows of both.
            left = [_id(path, i) for i in range(len(rows), self._segments(path))]
            rows += [rows[0] | {"id": id_, "segments": 0} for id_ in left]
            rows.reverse()  # the first segment, which stands for the file, comes last
            self._put(rows)
            if left:
                self._whole = False
                self._ask("delete", ids=left)
                self._whole = True
            if self._unflushed * vectors[0].nbytes >= LOG_BYTES:
                self._flush()

    def source(self, path: str | os.PathLike[str]) -> str | None:
        """The `source` that a file was added with; None if it is not there."""
        return self._of_file(_checked_path(path), "source")

    def metadata(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """What a file was added with; nothing if it is not there."""
        return self._of_file(_checked_path(path), "metadata") or {}

    def segments(self, path: str | os.PathLike[str]) -> Segments:
        """What a file was added as.

        Raises:
            InputError: it is not there.
        """
        path = _checked_path(path)
        ids = [_id(path, i) for i in range(self._segments(path))]
        if not ids:
            raise InputError(f"the index has nothing of {path!r}")
        fields = ["start_s", "end_s", "vector"]
        rows = {}
        for i in range(0, len(ids), ROWS_AT_ONCE):
            found = self._ask("get", ids=ids[i : i + ROWS_AT_ONCE], output_fields=fields)
            rows |= {row["id"]: row for row in found}
        in_order = [rows[id_] for id_ in ids]
        return Segments(
            np.array([row["vector"] for row in in_order], dtype=np.float32),
            np.array([[row["start_s"], row["end_s"]] for row in in_order]),
        )

    def metadata_names(self) -> list[str]:
        """Names in the metadata, by which `search` can filter; those of up to MOST_HITS segments.

        A name that is in none of them is no error to Milvus, which then finds nothing.
        """
        rows = self._ask("query", filter='id != ""', output_fields=["metadata"], limit=MOST_HITS)
        return sorted({name for row in rows for name in row["metadata"]})

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int = 10,
        filter: str | None = None,
        with_vectors: bool = False,
    ) -> list[Hit] | list[list[Hit]]:
        """The segments with the largest inner products, best first.

        Args:
            vectors: (D,), or (n, D) for n searches.
            k: how many segments at most.
            filter: an expression of Milvus over `path`, `start_s`, `end_s`, `source` and the names
                in the metadata, as `year >= 2020 and path like "%.mp4"`.
            with_vectors: whether the hits bring their vectors.

        Returns:
            a list of hits for (D,), a list of n such lists for (n, D).

        Raises:
            InputError, InputTypeError: the vectors are not of this index, k is out of range, or
                Milvus does not understand the filter.
        """
        single = np.ndim(vectors) == 1
        queries = _checked_vectors(vectors, self.dim, "vectors")
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST_HITS:
            raise InputError(f"k is {k!r}, expected a whole number from 1 to {MOST_HITS}")
        if not isinstance(filter, str | None):
            raise InputTypeError(f"filter is a {type(filter).__name__}, expected a str or None")
        with self._writing if self._local else nullcontext():
            if self._unflushed > SLOW_ROWS:
                self._flush()
            found = self._ask(
                "search",
                data=list(queries),
                limit=k,
                filter=filter or "",
                output_fields=FOUND_FIELDS + ["vector"] * with_vectors,
                search_params={
                    "metric_type": METRIC,
                    "params": LOCAL_SEARCH if self._local else {},
                },
                said=f"the filter {filter!r}" if filter else None,
            )
        hits = [[_hit(row) for row in rows if row["entity"]["segments"]] for rows in found]
        return hits[0] if single else hits

    def delete(self, path: str | os.PathLike[str]) -> int:
        """Take a file out; returns how many segments it had, 0 if it was not there."""
        path = _checked_path(path)
        with self._writing:
            ids = [_id(path, i) for i in range(self._segments(path))]
            # The first one says how many there are, so it is kept until the others are gone.
            for i in reversed(range(0, len(ids), ROWS_AT_ONCE)):
                self._ask("delete", ids=ids[i : i + ROWS_AT_ONCE])
        return len(ids)

    def count(self) -> int:
        """How many segments there are."""
        # Milvus Lite counts slowly with a filter, and needs none since it is mended.
        live = "" if self._local else "segments > 0"
        return self._ask("query", filter=live, output_fields=["count(*)"])[0]["count(*)"]

    def close(self) -> None:
        """Let others open the database; nothing is lost without it."""
        try:
            self._closing.close()
        finally:
            self._closed = True

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _segments(self, path: str) -> int:
        """How many rows the index holds of a file."""
        return self._of_file(path, "segments") or 0

    def _of_file(self, path: str, field: str) -> Any:
        """What all rows of a file have in this field; None if there are none."""
        first = self._ask("get", ids=[_id(path, 0)], output_fields=[field])
        return first[0][field] if first else None

    def _put(self, rows: list[dict[str, Any]]) -> None:
        """Write rows, each in the place of the one of its id."""
        # Milvus Lite's upsert would keep the old row's metadata, and its insert does replace.
        method = "insert" if self._local else "upsert"
        for i in range(0, len(rows), ROWS_AT_ONCE):
            self._ask(method, rows[i : i + ROWS_AT_ONCE])
        self._unflushed += len(rows)

    def _flush(self) -> None:
        """Let new rows be searched as fast as the others."""
        if self._local:
            self._ask("flush")
            with milvus.errors(self._uri):
                milvus.index_if_large(self._client)
        self._unflushed = 0

    def _settle(self) -> None:
        """The end of a local database that was not killed."""
        self._flush()
        if self._whole:
            (Path(self._uri) / UNCLEAN).unlink(missing_ok=True)

    def _mend(self) -> None:
        """Repair what a process left in a local database that was killed."""
        self._ask("delete", filter="segments == 0")
        # Killed while its log becomes part of the database, Milvus Lite 3.2 has the rows in both,
        # finds them twice, and would write the same file again, over the one that is in use.
        # Written anew, a row takes the place of both.
        ids = Counter(row["id"] for row in self._ask("query", filter='id != ""'))
        double = [id_ for id_, times in ids.items() if times > 1]
        for i in range(0, len(double), ROWS_AT_ONCE):
            rows = self._ask("get", ids=double[i : i + ROWS_AT_ONCE], output_fields=list(FIELDS))
            self._put([row["metadata"] | dict(row) for row in rows])
        self._flush()

    def _ask(self, method: str, *args: Any, said: str | None = None, **kwargs: Any) -> Any:
        if self._closed:
            raise InputError(
                f"the index {milvus.shown(self._uri)} was closed, expected an open one"
            )
        with milvus.errors(self._uri, said):
            return getattr(self._client, method)(COLLECTION, *args, **kwargs)


def _id(path: str, segment: int) -> str:
    return f"{hashlib.sha256(path.encode()).hexdigest()[:40]}-{segment}"


def _hit(row: Mapping[str, Any]) -> Hit:
    entity = row["entity"]
    vector = entity.get("vector")
    return Hit(
        row["id"],
        *(entity[field] for field in ("path", "start_s", "end_s")),
        row["distance"],
        entity["metadata"],
        None if vector is None else np.asarray(vector, dtype=np.float32),
    )


def _checked_path(path: str | os.PathLike[str], what: str = "path") -> str:
    text = _checked_text(os.fspath(path) if isinstance(path, os.PathLike) else path, what)
    if not text or "\0" in text:
        raise InputError(f"{what} is {text!r}, expected a path")
    return text


def _checked_text(text: Any, what: str) -> str:
    if not isinstance(text, str):
        raise InputTypeError(f"{what} is {text!r}, expected a str")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"{what} is {text!r}, expected Unicode (it has a surrogate)") from error
    if size > MOST_BYTES:
        raise InputError(f"{what} is {size} bytes long, expected up to {MOST_BYTES}")
    return text


def _checked_vectors(vectors: Any, dim: int, what: str) -> NDArray[np.float32]:
    """(n, dim) float32, of one vector too."""
    try:
        rows = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{what} is {type(vectors).__name__}, expected numbers") from error
    if rows.ndim != 2 or rows.shape[1] != dim or len(rows) == 0:
        raise InputError(f"{what} is {np.shape(vectors)}, expected (n, {dim}) with n at least 1")
    if not np.isfinite(rows).all():
        raise InputError(f"{what} holds NaN or infinity, expected finite numbers")
    return rows


def _checked_spans(spans_s: Any, n: int) -> list[list[float]]:
    rows = np.asarray(spans_s, dtype=np.float64)
    if rows.shape != (n, 2) or not (
        np.isfinite(rows).all() and (rows[:, 0] >= 0).all() and (rows[:, 0] <= rows[:, 1]).all()
    ):
        raise InputError(
            f"segments.spans_s is {rows.shape}, expected ({n}, 2) with 0 <= start_s <= end_s"
        )
    return rows.tolist()


def checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What can be stored with a file.

    Raises:
        InputError, InputTypeError: what cannot.
    """
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InputTypeError(f"metadata is {metadata!r}, expected a dict with names as keys")
    taken = [key for key in metadata if key in FIELDS or key.startswith("$")]
    if taken:
        raise InputError(
            f"metadata has the name {taken[0]!r}, expected none with a $ in front and none of "
            f"{', '.join(FIELDS)}"
        )
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
        json.loads(text, parse_int=_int64)
        size = len(text.encode())
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata cannot be stored as JSON ({error})") from error
    if size > MOST_BYTES:
        raise InputError(f"metadata is {size} bytes of JSON, expected up to {MOST_BYTES}")
    return dict(metadata)


def _int64(digits: str) -> int:
    number = int(digits)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{digits} has more than 64 bits")
    return number


__all__: Sequence[str] = ("Hit", "Identity", "Index", "identity")

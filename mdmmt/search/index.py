"""An index of embeddings in Milvus, as a local database or on a server.

A row is a segment of a file. Its id is made from the path of the file and the number of the
segment. So a file that is added again overwrites its rows, and the facts about a file are looked up
without a search.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, InputTypeError, describe_error
from ..model import Model, Segments
from ..weights.identity import Identity, identity_of
from ..weights.locate import weight_path_of
from . import milvus
from .checks import (
    checked_expert_weights,
    checked_metadata,
    checked_path,
    checked_spans,
    checked_storable_text,
    checked_vectors,
)
from .filters import fields_of, spell_name
from .local_server import DatabaseInUse
from .milvus import COLLECTION, FIELDS, LOCAL_SEARCH, METRIC, UNCLEAN, Origin, redact_password
from .moments import Moments
from .snapshot import CannotCopy, Moment, private_copy

if TYPE_CHECKING:
    from pymilvus import MilvusClient

HIT_FIELDS = ["path", "start_s", "end_s", "segments", "metadata"]
MAX_HITS = 16_384  # of one search, a limit of Milvus
FIRST_WINDOWS = 64  # that `find_moments` asks for at least, and then STEP times as many each time
STEP = 4
ENOUGH_WINDOWS = 4_096  # in which `find_moments` looks for those that lengthen the k moments
ROUNDING_S = 0.05  # of a time that was printed with one digit
ROWS_AT_ONCE = 4_096  # written together, whole or not at all; 25 MB for the released model
ROWS_READ_AT_ONCE = 1_024  # with their vectors, which take ten times the memory as Python's numbers
VECTOR_BYTES = 4  # of each number
# The first segment stands for its file.
FIRST_ROWS = 'id like "%-0" and segments > 0'
# Milvus Lite puts new rows into a log, which survives a kill but is searched slowly.
MAX_LOG_ROWS = 100  # rows in the log that a search may meet
MAX_LOG_BYTES = 64 << 20  # of vectors; a larger log becomes part of the database
SEGMENT_ID = re.compile(r"[0-9a-f]{40}-[0-9]+")
SYSTEM_ERROR = re.compile(r"\[errno \d+\]", re.IGNORECASE)  # in a message of Milvus Lite


class Hit(NamedTuple):
    """A segment that a search has found, or a moment: windows of one file that touch.

    Id, score and vector of a moment are those of its best window.
    """

    id: str
    path: str
    start_s: float
    end_s: float
    score: float  # inner product with the query
    metadata: dict[str, Any]
    vector: NDArray[np.float32] | None = None  # (D,), if the search asked for vectors
    best_s: tuple[float, float] | None = None  # start and end of the best window of a moment

    @property
    def best_window_s(self) -> tuple[float, float]:
        """Start and end of the window that has the score."""
        return self.best_s or (self.start_s, self.end_s)

    def __repr__(self) -> str:
        metadata = f", metadata={self.metadata!r:.200}" if self.metadata else ""
        vector = "" if self.vector is None else f", vector {self.vector.shape}"
        return (
            f"Hit({self.score:.3f}: {self.path!r}, {self.start_s:g} to {self.end_s:g} s"
            f"{metadata}{vector})"
        )


class IndexedFile(NamedTuple):
    """A file in the index."""

    path: str
    segments: int  # how many the index has of it
    metadata: dict[str, Any]


class FileEntry(NamedTuple):
    """All that an index keeps of a file, as `Index.add` takes it."""

    path: str
    segments: Segments
    source: str
    metadata: Mapping[str, Any]


class Index:
    """Embeddings of segments, with their files and times.

    `Index.open` makes it, and threads may share it. `copy.deepcopy` gives the index itself.

    Attributes:
        model: which model made the embeddings.
        weights: where that model is, for `mdmmt.load`. None: an older version of this package has
            made the database.
        experts: the experts in the order of their blocks in an embedding, or None as above.
        dim: the numbers in an embedding.
    """

    def __init__(
        self,
        client: MilvusClient,
        uri: str,
        model: Identity,
        weights: str | None = None,
        experts: tuple[str, ...] | None = None,
    ) -> None:
        self.model = model
        self.weights = weights
        self.experts = experts
        self.dim = model.dim
        self._client = client
        self._uri = uri
        self._local = milvus.is_local(uri)
        self._closing = ExitStack()
        self._closed = False
        self._read_only = False
        self._moment: Moment | None = None  # of the database, if this is a copy
        self._deleted = milvus.read_deleted(client)
        self._lock = threading.Lock()  # Milvus Lite takes one writer, and no reader beside it
        self._log_rows = 0
        self._has_pending_deletes = False  # rows that were replaced still wait for their deletion
        self._failure: str | None = None  # of the system, such as a full disk

    def __deepcopy__(self, memo: Any) -> Index:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise InputTypeError(
            "an open index cannot be pickled; expected that each process opens the database itself"
        )

    @classmethod
    def open(
        cls,
        uri: str | os.PathLike[str],
        model: Model | Identity | None = None,
        *,
        create: bool = True,
        read_only: bool = False,
    ) -> Index:
        """Open a database, or make a new one.

        Args:
            uri: the folder of a local database, by convention `NAME.db`, where a leading `~` is
                the home folder; or the address of a Milvus server or cloud:
                `https://USER:PASSWORD@HOST:PORT/DATABASE`, or a token instead of user and
                password.
            model: the model whose embeddings are added and searched for. None: the model is not
                checked, and no database is made; `weights` then names the model, and `check_model`
                checks it.
            create: whether to make a database if there is none.
            read_only: refuse `add` and `delete`, and make no database. Of a local database, a
                private copy of its present state is opened, so others can open the database
                meanwhile, as a build does. The copy takes time and disk space as the database does.
                If there can be no copy, as for want of room, the database itself is opened.

        Raises:
            InputError, InputTypeError: there is no database and none is to be made; it is open
                already, lacks some of its files, or holds something other than embeddings of this
                model; or the server does not answer.
            MissingDependency: Milvus is not installed.
            WeightsError: the weights of the model cannot be read.
        """
        uri = checked_path(uri, "uri")
        if not isinstance(model, Model | Identity | None):
            raise InputTypeError(
                f"model is a {type(model).__name__}, expected what `mdmmt.load` gives, or None"
            )
        milvus.import_pymilvus()
        create = create and model is not None and not read_only
        if milvus.is_local(uri):  # before the weights are hashed, which may take seconds
            uri = os.path.expanduser(uri)
            milvus.check_database(Path(uri), create)
        origin = Origin()
        if isinstance(model, Model):
            origin = _origin_of(model)
            model = identity_of(model.path, model.config)
        if create and milvus.is_local(uri) and not Path(uri).exists():
            assert model is not None
            milvus.make_local_database(Path(uri), model)
        with ExitStack() as stack:
            if read_only and milvus.is_local(uri):
                client, folder, moment = _connect_to_read(uri, stack)
            else:
                client, folder, moment = stack.enter_context(milvus.connect(uri)), Path(uri), None
            with milvus.translate_errors(uri):
                identity = _open_collection(client, uri, model, create)
                stored = milvus.read_origin(client)
                if create and origin not in (Origin(), stored):
                    milvus.write_origin(client, origin)
            index = cls(client, uri, identity, *(stored if origin == Origin() else origin))
            if index._local:
                index._mark_unclean(folder)
                stack.callback(index._close_cleanly, folder)
            elif not read_only:
                index._delete_leftovers()
            index._read_only = read_only
            index._moment = moment
            index._closing = stack.pop_all()
        return index

    def is_outdated(self) -> bool:
        """Whether this is a private copy, see `open`, and the database has changed since."""
        if self._moment is None:
            return False
        try:
            return Moment.of(Path(self._uri)) != self._moment
        except FileNotFoundError:  # the database changes right now, or is gone
            return True

    def check_model(self, model: Model) -> None:
        """Refuse a model whose embeddings cannot be compared with those of the index.

        Raises:
            InputError: says which model made the embeddings of the index.
            WeightsError: the weights of the model cannot be read.
        """
        _check_identity(self._uri, self.model, identity_of(model.path, model.config))
        self.experts = _origin_of(model).experts

    def add(
        self,
        path: str | os.PathLike[str],
        segments: Segments,
        source: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Add the segments of a file. They replace those that the index has of this file.

        Once this has returned, the rows survive a kill of the process. If the process is killed
        before, the index has either all of the old rows or all of the new ones; this holds for up
        to ROWS_AT_ONCE rows.

        Args:
            path: of the file, stored as it is given.
            segments: (n, D) vectors and (n, 2) seconds, as `Model.encode_segments` gives them.
            source: a text by which a caller tells whether the file must be added again, such as
                its SHA-256.
            metadata: facts about the file that JSON can hold, by name; `search` can filter by
                them, see `search` for names that are no plain words.

        Raises:
            InputError, InputTypeError: an argument, which the message names, cannot be stored; or
                the disk is full. After that, only a new `open` lets the index be used again; the
                files that were added before are in it.
        """
        self.add_files([FileEntry(checked_path(path), segments, source, metadata or {})])

    def add_files(self, files: Iterable[FileEntry]) -> None:
        """Add several files as `add` does, in one write.

        A server takes many small files in one write much faster than one after the other. They are
        added whole or not at all, all of them, up to ROWS_AT_ONCE rows.

        Raises:
            InputError, InputTypeError: as `add`; then none of the files is added.
        """
        self._check_not_read_only()
        rows_by_path = dict(map(self._rows_of, files))  # of two with the same path, the last
        with self._lock:
            # The old rows that have no successor become rows to be deleted in the same write that
            # brings the new ones, so that a kill cannot leave segments of both.
            leftover: list[str] = []
            written: list[dict[str, Any]] = []
            for path, stored in zip(rows_by_path, self._segment_counts(rows_by_path), strict=True):
                rows = rows_by_path[path]
                gone = [segment_id(path, i) for i in range(len(rows), stored)]
                written += rows + [rows[0] | {"id": id_, "segments": 0} for id_ in gone]
                leftover += gone
            written.reverse()  # the first segment, which stands for its file, is its last to come
            self._put(written)
            if leftover:
                self._has_pending_deletes = True
                self._delete_ids(leftover)
                self._has_pending_deletes = False
            self._mark_deleted(set(), set(map(_deletion_mark, rows_by_path)))
            if self._log_rows * self.dim * VECTOR_BYTES >= MAX_LOG_BYTES:
                self._flush()

    def _rows_of(self, file: FileEntry) -> tuple[str, list[dict[str, Any]]]:
        """The path of a file, and its rows as Milvus stores them.

        Raises:
            InputError, InputTypeError: a value cannot be stored.
        """
        path, segments = checked_path(file.path), file.segments
        if not isinstance(segments, Segments):
            raise InputTypeError(
                f"segments is a {type(segments).__name__}, expected mdmmt.model.Segments, as "
                "`encode_segments` gives them"
            )
        vectors = checked_vectors(segments.vectors, self.dim, "segments.vectors")
        spans_s = checked_spans(segments.spans_s, len(vectors))
        metadata = checked_metadata(file.metadata)
        shared = {
            "path": path,
            "source": checked_storable_text(file.source, "source"),
            "segments": len(vectors),
            "metadata": metadata,
        }
        shared |= fields_of(metadata)
        return path, [
            shared
            | {"id": segment_id(path, i), "start_s": start_s, "end_s": end_s, "vector": vector}
            for i, ((start_s, end_s), vector) in enumerate(zip(spans_s, vectors, strict=True))
        ]

    def source(self, path: str | os.PathLike[str]) -> str | None:
        """The `source` that a file was added with; None if the index does not have the file."""
        return self._field(checked_path(path), "source")

    def metadata(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """The metadata that a file was added with; empty if the index does not have the file."""
        return self._field(checked_path(path), "metadata") or {}

    def files(self) -> list[IndexedFile]:
        """All files, in the order of their paths."""
        rows = self._first_rows(["path", "segments", "metadata"])
        return sorted(
            IndexedFile(row["path"], row["segments"], dict(row["metadata"])) for row in rows
        )

    def sources(self) -> Iterator[tuple[str, str]]:
        """The path and the `source` of each file, in any order."""
        for row in self._first_rows(["path", "source"]):
            yield row["path"], row["source"]

    def entries(self, files: Iterable[IndexedFile]) -> Iterator[FileEntry]:
        """All that the index keeps of these files, in their order; some are read at once.

        Raises:
            InputError: another process has changed one of them since `files` gave it.
        """
        waiting: list[IndexedFile] = []
        count = 0
        for file in files:
            if waiting and count + file.segments > ROWS_READ_AT_ONCE:
                yield from self._read_entries(waiting)
                waiting, count = [], 0
            waiting.append(file)
            count += file.segments
        yield from self._read_entries(waiting)

    def _read_entries(self, files: Iterable[IndexedFile]) -> Iterator[FileEntry]:
        ids = {
            file.path: [segment_id(file.path, i) for i in range(file.segments)] for file in files
        }
        rows = self._get([id_ for of_file in ids.values() for id_ in of_file], list(FIELDS))
        for path, of_file in ids.items():
            file_rows = [rows[id_] for id_ in of_file if id_ in rows]
            facts = {(row["source"], json.dumps(row["metadata"])) for row in file_rows}
            if [row["segments"] for row in file_rows] != [len(of_file)] * len(of_file) or len(
                facts
            ) > 1:
                raise InputError(
                    f"{redact_password(self._uri)}: {path!r} was changed while it was read, "
                    "expected an index that nobody writes to meanwhile; try again"
                )
            yield FileEntry(
                path, _segments(file_rows), file_rows[0]["source"], dict(file_rows[0]["metadata"])
            )

    def _first_rows(self, fields: list[str]) -> Iterator[Mapping[str, Any]]:
        """The row of the first segment of each file, which stands for the file."""
        if self._local:
            with self._lock:
                rows = self._call("query", filter=FIRST_ROWS, output_fields=fields)
            yield from rows
            return
        # A server of Milvus 2.3 cannot filter by how an id ends.
        pages = self._call(
            "query_iterator", batch_size=MAX_HITS, filter="segments > 0", output_fields=["id"]
        )
        with self._translated_errors():
            ids = []
            while page := pages.next():
                ids += [row["id"] for row in page if row["id"].endswith("-0")]
            pages.close()
        for i in range(0, len(ids), ROWS_AT_ONCE):
            yield from self._get(ids[i : i + ROWS_AT_ONCE], fields).values()

    def _get(self, ids: Sequence[str], fields: list[str]) -> dict[str, Mapping[str, Any]]:
        """The rows with these ids, by id."""
        rows: dict[str, Mapping[str, Any]] = {}
        for i in range(0, len(ids), ROWS_READ_AT_ONCE):
            some = list(ids[i : i + ROWS_READ_AT_ONCE])
            portion = self._call("get", ids=some, output_fields=["id", *fields])
            rows |= {row["id"]: row for row in portion}
        return rows

    def is_deleted(self, path: str | os.PathLike[str]) -> bool:
        """Whether `delete` has removed a file to be kept out, and it was not added again."""
        path = checked_path(path)
        return _deletion_mark(path) in self._deleted and not self._segment_count(path)

    @property
    def deleted(self) -> frozenset[str]:
        """Marks of the files that `is_deleted` knows."""
        return frozenset(self._deleted)

    def keep_out(self, marks: Iterable[str]) -> None:
        """Take over what `deleted` gives of another index."""
        self._check_not_read_only()
        with self._lock:
            self._mark_deleted(set(marks), set())

    def keep_origin(self, weights: str | None, experts: Sequence[str] | None) -> None:
        """Keep where the model is and what its experts are, unless the index knows that."""
        self._check_not_read_only()
        if self.weights is None and weights is not None and experts is not None:
            origin = Origin(weights, tuple(experts))
            with self._lock, self._translated_errors():
                milvus.write_origin(self._client, origin)
            self.weights, self.experts = origin

    def segments(self, path: str | os.PathLike[str]) -> Segments:
        """The segments that a file was added with.

        Raises:
            InputError: the index does not have the file.
        """
        path = checked_path(path)
        ids = [segment_id(path, i) for i in range(self._segment_count(path))]
        if not ids:
            raise InputError(f"the index has nothing of {path!r}")
        by_id = self._get(ids, ["start_s", "end_s", "vector"])
        return _segments([by_id[id_] for id_ in ids])

    def window(self, id: str) -> Hit:
        """A window by its id, with its vector, to search for more like it.

        Its score is the inner product with itself.

        Raises:
            InputError: the index has no window with this id.
        """
        rows = []
        if isinstance(id, str) and SEGMENT_ID.fullmatch(id):
            rows = self._call("get", ids=[id], output_fields=[*HIT_FIELDS, "vector"])
        if not rows or not rows[0]["segments"]:
            raise InputError(
                f"the index has no window {id!r}, expected the `id` of a hit or of a line that "
                "`mdmmt search --json` prints"
            )
        vector = np.asarray(rows[0]["vector"], dtype=np.float32)
        return _hit({"id": id, "entity": rows[0], "distance": float(vector @ vector)})

    def window_at(self, path: str | os.PathLike[str], time_s: float) -> Hit:
        """The window of a file that holds a second, with its vector, as `window` gives it.

        If several windows hold it, the one counts that starts nearest.

        Raises:
            InputError: the index does not have the file, or none of its windows holds the second.
        """
        path = checked_path(path)
        ids = [segment_id(path, i) for i in range(self._segment_count(path))]
        if not ids:
            raise InputError(f"the index has nothing of {path!r}")
        times: list[tuple[float, float, str]] = []
        for i in range(0, len(ids), ROWS_AT_ONCE):
            fields = ["start_s", "end_s"]
            rows = self._call("get", ids=ids[i : i + ROWS_AT_ONCE], output_fields=fields)
            times += [(row["start_s"], row["end_s"], row["id"]) for row in rows]
        holding = [
            (abs(start_s - time_s), id_)
            for start_s, end_s, id_ in times
            if start_s - ROUNDING_S <= time_s <= end_s + ROUNDING_S
        ]
        if not holding:
            raise InputError(
                f"no window of {path!r} holds the second {time_s:g}; expected one from "
                f"{min(times)[0]:g} to {max(end_s for _, end_s, _ in times):g}"
            )
        return self.window(min(holding)[1])

    def metadata_names(self) -> list[str]:
        """The names in the metadata of up to MAX_HITS segments, as a filter of `search` has them.

        A filter by another name is no error to Milvus, which then finds nothing.
        """
        rows = self._call("query", filter='id != ""', output_fields=["metadata"], limit=MAX_HITS)
        return sorted(
            {spell_name(name, value) for row in rows for name, value in row["metadata"].items()}
        )

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int = 10,
        filter: str | None = None,
        with_vectors: bool = False,
        expert_weights: Mapping[str, float] | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The segments with the largest inner products, best first.

        Args:
            vectors: (D,), or (n, D) for n searches.
            k: the largest number of segments to return.
            filter: an expression of Milvus over `path`, `start_s`, `end_s`, `source` and the names
                in the metadata, as `year >= 2020 and path like "%.mp4"`. A name that is no plain
                word, or that Milvus' language knows, is written `metadata["my-name"]`, and so is
                the name of a list or an object; `metadata_names` gives them so.
            with_vectors: whether to return the vectors of the hits as well.
            expert_weights: what each expert's share of the scores is multiplied by, see `weigh`.

        Returns:
            A list of hits for (D,), a list of n such lists for (n, D).

        Raises:
            InputError, InputTypeError: the vectors do not fit this index, k is out of range,
                Milvus does not understand the filter, or see `weigh`.
        """
        single = np.ndim(vectors) == 1
        if expert_weights is not None:
            vectors = self.weigh(vectors, expert_weights)
        queries = checked_vectors(vectors, self.dim, "vectors")
        _check_search(k, filter)
        rows_by_query = self._rows(queries, k, filter, HIT_FIELDS + ["vector"] * with_vectors)
        hits = [[_hit(row) for row in rows if row["entity"]["segments"]] for rows in rows_by_query]
        return hits[0] if single else hits

    def find_moments(
        self,
        vector: NDArray[np.float32],
        k: int = 10,
        filter: str | None = None,
        *,
        per_video: int | None = None,
        merge: bool = True,
        besides: Hit | None = None,
        expert_weights: Mapping[str, float] | None = None,
    ) -> list[Hit]:
        """The best moments: windows of one file that overlap or touch are one hit, best first.

        A window joins the moment of a better one if its score is at least 0.8 of that one's. So a
        moment has one score throughout: a long scene is one hit, and weak neighbours do not
        lengthen it. A window that shares time with a moment and scores less is left out. One that
        only touches it is a hit of its own.

        The database is asked for more windows until there are k moments that no window can lengthen
        any more, or ENOUGH_WINDOWS were looked at; or until there are no more windows.

        Args:
            vector: (D,).
            k: the largest number of moments to return.
            per_video: the largest number of moments of one file. None: any number.
            merge: False gives the windows themselves.
            besides: leave out the moments that share time with this hit, see `window`.
            filter, expert_weights: see `search`; windows that the filter leaves out join nothing.

        Returns:
            Hits with vectors and with `best_s`.

        Raises:
            InputError, InputTypeError: see `search`; or `per_video` is no number above 0.
        """
        if expert_weights is not None:
            vector = self.weigh(vector, expert_weights)
        queries = checked_vectors(vector, self.dim, "vector")
        if np.ndim(vector) != 1:
            raise InputError(f"vector is {np.shape(vector)}, expected ({self.dim},)")
        _check_search(k, filter)
        if per_video is not None:
            _check_count(per_video, "per_video", MAX_HITS)
        plain = not merge and per_video is None
        limit = k if plain else min(max(STEP * k, FIRST_WINDOWS), MAX_HITS)
        expression = filter
        while True:
            (rows,) = self._rows(queries, limit, expression, HIT_FIELDS)
            if (
                expression == filter
            ):  # anew: an index that is not exact may find better ones as well
                moments, seen = Moments(merge), set[str]()
            new = [row for row in rows if row["id"] not in seen]
            seen.update(row["id"] for row in new)
            for row in new:
                if row["entity"]["segments"]:
                    moments.add(_hit(row))
            hits = moments.best(k, per_video, besides)
            if len(rows) < limit or not new:
                break
            lowest = rows[-1]["distance"]
            if len(hits) == k and (moments.are_final(hits, lowest) or len(seen) >= ENOUGH_WINDOWS):
                break
            if limit == MAX_HITS:  # Milvus gives no more at once, so what is known is left out
                known = moments.filter_of_known(hits, per_video, lowest)
                expression = f"({filter}) and not ({known})" if filter else f"not ({known})"
            limit = min(STEP * limit, MAX_HITS)
        return self._with_vectors(hits)

    def _rows(
        self,
        queries: NDArray[np.float32],
        limit: int,
        filter: str | None,
        fields: list[str],
    ) -> list[list[Any]]:
        """The rows with the largest inner products for each query, best first."""
        with self._lock if self._local else nullcontext():
            if self._log_rows > MAX_LOG_ROWS:
                self._flush()
            return list(
                self._call(
                    "search",
                    data=list(queries),
                    limit=limit,
                    filter=filter or "",
                    output_fields=fields,
                    search_params={
                        "metric_type": METRIC,
                        "params": LOCAL_SEARCH if self._local else {},
                    },
                    subject=f"the filter {filter!r}" if filter else None,
                )
            )

    def _with_vectors(self, hits: list[Hit]) -> list[Hit]:
        """These hits with their vectors, without those that were deleted in the meantime."""
        vectors: dict[str, NDArray[np.float32]] = {}
        for i in range(0, len(hits), ROWS_READ_AT_ONCE):
            ids = [hit.id for hit in hits[i : i + ROWS_READ_AT_ONCE]]
            rows = self._call("get", ids=ids, output_fields=["vector"])
            vectors |= {row["id"]: np.asarray(row["vector"], np.float32) for row in rows}
        return [hit._replace(vector=vectors[hit.id]) for hit in hits if hit.id in vectors]

    def weigh(
        self, vectors: NDArray[np.float32], expert_weights: Mapping[str, float]
    ) -> NDArray[np.float32]:
        """Multiply the blocks of queries, so that the experts' shares of the scores change.

        Args:
            vectors: (D,) or (n, D), of texts or videos.
            expert_weights: numbers from 0 by expert, such as `{'motion': 2}`; those that are not
                named keep their share.

        Raises:
            InputError, InputTypeError: the vectors do not fit this index, it has no such expert,
                or a number is negative.
        """
        weights = checked_expert_weights(expert_weights, self.experts)
        rows = checked_vectors(vectors, self.dim, "vectors")
        return (rows * np.repeat(weights, self.dim // len(weights))).reshape(np.shape(vectors))

    def combine(self, *vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """One query of several, such as a text and a video, each of which counts as much.

        Each is divided by the sum of the norms of its experts' blocks, which is 1 for a text and
        the number of experts for a video. The query is their mean.

        Args:
            vectors: (D,) each.

        Raises:
            InputError, InputTypeError: the vectors do not fit this index, or it does not name its
                experts.
        """
        count = len(checked_expert_weights({}, self.experts))
        rows = np.concatenate([checked_vectors(vector, self.dim, "vectors") for vector in vectors])
        norms = np.linalg.norm(rows.reshape(len(rows), count, -1), axis=2).sum(axis=1)
        return np.mean(rows / np.where(norms, norms, 1)[:, None], axis=0, dtype=np.float32)

    def delete(self, *paths: str | os.PathLike[str], keep_out: bool = False) -> int:
        """Remove files, and all files below folders.

        Args:
            paths: of files as they were added; one that the index does not have is a folder.
            keep_out: whether `index_files` leaves these files out from now on, unless it is told
                to `restore` them. `add` ends that.

        Returns:
            The number of segments that were removed; 0 if the index has none of these files.
        """
        self._check_not_read_only()
        checked = list(dict.fromkeys(map(checked_path, paths)))
        counts = zip(checked, self._segment_counts(checked), strict=True)
        folders = [os.path.join(path, "") for path, count in counts if not count]
        if folders:
            checked += [file.path for file in self.files() if file.path.startswith(tuple(folders))]
        removed = 0
        with self._lock:
            found = {
                path: n for path, n in zip(checked, self._segment_counts(checked), strict=True) if n
            }
            if keep_out:
                self._mark_deleted(set(map(_deletion_mark, found)), set())
            for path, count in found.items():
                # The first row holds the number of rows, so it goes last.
                self._delete_ids([segment_id(path, i) for i in reversed(range(count))])
                removed += count
        return removed

    def count(self) -> int:
        """The number of segments in the index."""
        # Milvus Lite counts slowly with a filter, and needs none: `_repair` deletes such rows.
        live = "" if self._local else "segments > 0"
        return self._call("query", filter=live, output_fields=["count(*)"])[0]["count(*)"]

    def close(self) -> None:
        """Let others open the database; nothing is lost if this is not called."""
        try:
            self._closing.close()
        finally:
            self._closed = True

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _segment_count(self, path: str) -> int:
        """The number of segments of a file in the index."""
        return self._field(path, "segments") or 0

    def _segment_counts(self, paths: Iterable[str]) -> list[int]:
        """The numbers of segments of several files in the index."""
        ids = [segment_id(path, 0) for path in paths]
        rows = self._get(ids, ["segments"])
        return [rows[id_]["segments"] if id_ in rows else 0 for id_ in ids]

    def _field(self, path: str, field: str) -> Any:
        """The value that all rows of a file have in a field; None if there are no rows."""
        first = self._call("get", ids=[segment_id(path, 0)], output_fields=[field])
        return first[0][field] if first else None

    def _delete_ids(self, ids: Sequence[str]) -> None:
        for i in range(0, len(ids), ROWS_AT_ONCE):
            self._call("delete", ids=list(ids[i : i + ROWS_AT_ONCE]))

    def _put(self, rows: list[dict[str, Any]]) -> None:
        """Write rows. Each replaces the row with the same id."""
        # In Milvus Lite, upsert keeps the metadata of the old row, and insert replaces the row.
        method = "insert" if self._local else "upsert"
        for i in range(0, len(rows), ROWS_AT_ONCE):
            self._call(method, rows[i : i + ROWS_AT_ONCE])
        self._log_rows += len(rows)

    def _mark_deleted(self, deleted: set[str], added: set[str]) -> None:
        """Keep the marks of the files that are deleted, if they change."""
        if deleted - self._deleted or added & self._deleted:
            with self._translated_errors():
                # Another process may have changed those of a server in the meantime.
                marks = (milvus.read_deleted(self._client) | deleted) - added
                milvus.write_deleted(self._client, marks)
            self._deleted = marks

    def _flush(self) -> None:
        """Move new rows out of the log, so that they are searched as fast as the others."""
        if self._local:
            self._call("flush")
            with self._translated_errors():
                milvus.index_if_large(self._client)
        self._log_rows = 0

    def _check_not_read_only(self) -> None:
        if self._read_only:
            raise InputError(
                f"the index {redact_password(self._uri)} was opened with read_only, expected one "
                "that can be changed"
            )

    def _mark_unclean(self, folder: Path) -> None:
        """Mark a local database as open, and repair it if a process left the mark behind."""
        mark = folder / UNCLEAN
        if mark.exists():
            self._repair()
        mark.touch()

    def _close_cleanly(self, folder: Path) -> None:
        """Flush, and remove the mark, which a killed process leaves behind."""
        if self._failure:
            return  # the log holds the rows; a second flush would delete it unread
        self._flush()
        if not self._has_pending_deletes:
            (folder / UNCLEAN).unlink(missing_ok=True)

    def _delete_leftovers(self) -> None:
        """Delete the rows that were replaced, if a process was killed before it did so."""
        leftover: dict[str, Any] = {
            "filter": "segments == 0",
            "output_fields": ["id"],
            "limit": MAX_HITS,
        }
        while rows := self._call("query", **leftover):
            self._delete_ids([row["id"] for row in rows])

    def _repair(self) -> None:
        """Repair a local database whose process was killed."""
        self._delete_leftovers()
        # Milvus Lite 3.2, killed while its log becomes part of the database, has the rows in both.
        # It would find them twice, and write the same file again, over the one that is in use.
        # A row that is written anew takes the place of both.
        rows = self._call("query", filter='id != ""', output_fields=["id"])
        counts = Counter(row["id"] for row in rows)
        doubled = [id_ for id_, count in counts.items() if count > 1]
        for i in range(0, len(doubled), ROWS_AT_ONCE):
            ids = doubled[i : i + ROWS_AT_ONCE]
            rows = self._call("get", ids=ids, output_fields=list(FIELDS))
            self._put([fields_of(row["metadata"]) | dict(row) for row in rows])
        self._flush()

    def _call(self, method: str, *args: Any, subject: str | None = None, **kwargs: Any) -> Any:
        """Call a method of the client for the collection, with errors in our words."""
        if self._closed:
            raise InputError(
                f"the index {redact_password(self._uri)} was closed, expected an open one"
            )
        if self._failure:
            raise InputError(
                f"the index {self._uri!r} has failed before ({self._failure}); expected it to be "
                "opened again, with all files that were added before"
            )
        if not self._local:
            kwargs["timeout"] = milvus.ANSWER_S
        deadline = time.monotonic() + milvus.ANSWER_S
        while True:
            try:
                with self._translated_errors(subject):
                    return getattr(self._client, method)(COLLECTION, *args, **kwargs)
            except milvus.NoAnswer:
                # Once a server runs again, the same call may be made twice, as all are by ids.
                if self._local or time.monotonic() > deadline:
                    raise
                time.sleep(milvus.PAUSE_S)

    @contextmanager
    def _translated_errors(self, subject: str | None = None) -> Iterator[None]:
        """Raise the errors of Milvus in our words, and remember a failure of the system.

        After a write that failed, such as one on a full disk, Milvus Lite goes on as if nothing had
        happened. It writes behind the broken end of its log, where nothing is read again, and its
        next flush deletes the log of the flush that failed. Rows that were acknowledged would be
        lost. So nothing more is written; when the database is opened again, the log is read.
        """
        try:
            with milvus.translate_errors(self._uri, subject):
                yield
        except InputError as error:
            if self._local and SYSTEM_ERROR.search(str(error)):
                self._failure = describe_error(error.__cause__ or error)
            raise


def _connect_to_read(uri: str, stack: ExitStack) -> tuple[MilvusClient, Path, Moment | None]:
    """Connect to a private copy of a local database, or to the database if there is no copy."""
    try:
        folder, moment = stack.enter_context(private_copy(Path(uri)))
    except CannotCopy as reason:
        try:
            return stack.enter_context(milvus.connect(uri)), Path(uri), None
        except DatabaseInUse:
            raise reason from None
    return stack.enter_context(milvus.connect(uri, folder)), folder, moment


def _open_collection(
    client: MilvusClient, uri: str, model: Identity | None, create: bool
) -> Identity:
    """Load the collection, or make it, and return the model whose embeddings it holds.

    Raises:
        InputError: there is no collection, or it holds embeddings of another model.
    """
    if not client.has_collection(COLLECTION):
        if model is None or not create:
            raise InputError(f"{redact_password(uri)} holds no index, expected one")
        milvus.make_collection(client, model)
    identity = milvus.read_identity(client, uri)
    if model is not None:
        _check_identity(uri, identity, model)
    milvus.load_collection(client, milvus.is_local(uri))
    return identity


def _check_identity(uri: str, stored: Identity, model: Identity) -> None:
    # The name may differ: the same weights can lie in several places.
    if stored[1:] != model[1:]:
        raise InputError(
            f"{redact_password(uri)} holds embeddings of the model {stored}, which those of "
            f"{model} cannot be compared with; expected the same model, or another database"
        )


def _origin_of(model: Model) -> Origin:
    experts = tuple(expert.name for expert in model.config.video.experts)
    return Origin(weight_path_of(model.path), experts)


def stored_weights(uri: str) -> str | None:
    """The `weights` of a database; None if there is no database or index, or it does not tell.

    Raises:
        InputError, MissingDependency: see `Index.open`.
    """
    milvus.import_pymilvus()
    if milvus.is_local(uri):
        uri = os.path.expanduser(uri)
        if not Path(uri).exists():
            return None
        milvus.check_database(Path(uri), create=False)
    with milvus.connect(uri) as client, milvus.translate_errors(uri):
        if not client.has_collection(COLLECTION):
            return None
        return milvus.read_origin(client).weights


def segment_id(path: str, segment: int) -> str:
    """The id of the row of a segment, the first of which is 0."""
    return f"{hashlib.sha256(path.encode()).hexdigest()[:40]}-{segment}"


def _segments(rows: Sequence[Mapping[str, Any]]) -> Segments:
    return Segments(
        np.array([row["vector"] for row in rows], dtype=np.float32),
        np.array([[row["start_s"], row["end_s"]] for row in rows]),
    )


def _check_search(k: object, filter: object) -> None:
    _check_count(k, "k", MAX_HITS)
    if not isinstance(filter, str | None):
        raise InputTypeError(f"filter is a {type(filter).__name__}, expected a str or None")


def _check_count(count: object, name: str, most: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most:
        raise InputError(f"{name} is {count!r}, expected a whole number from 1 to {most}")


def _deletion_mark(path: str) -> str:
    """A short mark, as a server bounds the size of all marks together."""
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def _hit(row: Mapping[str, Any]) -> Hit:
    entity = row["entity"]
    vector = entity.get("vector")
    return Hit(
        id=row["id"],
        path=entity["path"],
        start_s=entity["start_s"],
        end_s=entity["end_s"],
        score=row["distance"],
        metadata=entity["metadata"],
        vector=None if vector is None else np.asarray(vector, dtype=np.float32),
    )

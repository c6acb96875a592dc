"""A collection of embeddings that is searched: Milvus, in a local database or on a server.

A row is a segment of a file. Its id is made of the file's path and the segment's number, so to add
a file again overwrites its rows, and what is known of a file is found without a search.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import InputError, InputTypeError, WeightsError
from .files import check_place
from .model import Model, Segments
from .weights import SAMPLE, SAMPLE_FOLDER, TEXT_PREFIXES, VIDEO_PREFIXES, read_tower

if TYPE_CHECKING:
    from pymilvus import MilvusClient

COLLECTION = "mdmmt"
MODEL = "mdmmt.model"  # the property of a collection that says whose embeddings it holds
METRIC = "IP"
# Of Milvus Lite: one cell that holds everything, all of which is compared, so what is found is
# exact. It takes what configures an index from a dict of its own.
LOCAL_INDEX = {"index_type": "IVF_FLAT", "params": {"params": {"nlist": 1}}}
LOCAL_SEARCH = {"nprobe": 1}
# Loggers of errors that are raised besides, and of one that is none.
TALKATIVE = ("pymilvus.decorators", "milvus_lite.adapter", "grpc._server")
# Else gRPC complains on stderr, after half a minute without a call, that it is asked too often.
LOCAL_GRPC = {"grpc.keepalive_time_ms": 2**31 - 1}
INDEXED_ROWS = 500  # from which on it pays; few rows make the index complain on stderr
SERVER_INDEX = {"index_type": "AUTOINDEX"}

FIELDS = ("id", "path", "start_s", "end_s", "source", "segments", "metadata", "vector")
FOUND_FIELDS = ["path", "start_s", "end_s", "segments", "metadata"]
MOST_BYTES = 65_535  # of a text or of JSON, by Milvus
MOST_HITS = 16_384  # of one search, by Milvus
ROWS_AT_ONCE = 4_096  # written together, whole or not at all; 25 MB of the released model's
UNCLEAN = "UNCLEAN"  # a file in a local database that is open, or whose process was killed
# Milvus Lite keeps new rows in a log, from which nothing is lost, and searches them slowly.
SLOW_ROWS = 100
LOG_BYTES = 64 << 20  # of vectors, at most so many before the log becomes part of the database


class Identity(NamedTuple):
    """Whose embeddings: those of another model lie in another space."""

    name: str
    sha256: str  # of the weights
    dim: int

    def __str__(self) -> str:
        return f"{self.name} (weights {self.sha256[:12]}, {self.dim} wide)"


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
        self._local = _is_local(uri)
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
        pymilvus = _import_pymilvus()
        local = _is_local(uri)
        if local:  # before all weights are read
            _check_place(Path(uri), model is not None and create)
        wanted = model if isinstance(model, Identity | None) else identity(model)
        if local and not Path(uri).exists():
            _make_local(Path(uri), wanted)
        with ExitStack() as stack:
            address = stack.enter_context(_lite(Path(uri))) if local else uri
            with _errors(uri):
                client = pymilvus.MilvusClient(address, grpc_options=LOCAL_GRPC if local else {})
                stack.callback(client.close)
                if not client.has_collection(COLLECTION):
                    if wanted is None or not create:
                        raise InputError(f"{_shown(uri)} holds no index, expected one")
                    _make_collection(client, wanted)
                held = _held(client, uri)
                if wanted is not None and held[1:] != wanted[1:]:
                    raise InputError(
                        f"{_shown(uri)} holds embeddings of the model {held}, which those of "
                        f"{wanted} cannot be compared with; expected the same model, or another "
                        "database"
                    )
                _load(client, local)
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
            source: what `holds` compares, such as the SHA-256 of the file.
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
        metadata = _checked_metadata(metadata or {})
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

    def holds(self, path: str | os.PathLike[str], source: str = "") -> bool:
        """Whether a file was added with this `source`, and to add it again changes nothing."""
        return self._of_file(_checked_path(path), "source") == source

    def metadata(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """What a file was added with; nothing if it is not there."""
        return self._of_file(_checked_path(path), "metadata") or {}

    def metadata_names(self) -> list[str]:
        """By what `search` can filter: the names in the metadata of up to MOST_HITS segments.

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
        self._closing.close()
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
            with _errors(self._uri):
                _index_if_large(self._client)
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
            raise InputError(f"the index {_shown(self._uri)} was closed, expected an open one")
        with _errors(self._uri, said):
            return getattr(self._client, method)(COLLECTION, *args, **kwargs)


def _import_pymilvus() -> Any:
    try:
        import pymilvus
    except ImportError as error:
        raise InputError("an index needs Milvus: pip install pymilvus milvus-lite") from error
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


def _is_local(uri: str) -> bool:
    return "://" not in uri


def _shown(uri: str) -> str:
    """An address as it may be shown, without the password."""
    if _is_local(uri):
        return repr(uri)
    parts = urlsplit(uri)
    return repr(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())


@contextmanager
def _errors(uri: str, said: str | None = None) -> Iterator[None]:
    """Milvus' errors as this package's.

    Args:
        said: what is to blame, if not the database.
    """
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        reason = " ".join(str(error.message).split())
        raise InputError(f"{said or _shown(uri)} was refused by Milvus: {reason}") from error


def _check_place(path: Path, create: bool) -> None:
    """Refuse to open, or to make, a local database where there is something else, or nothing."""
    if path.exists():
        if not (path / "collections").is_dir():
            raise InputError(f"{str(path)!r} is no database of Milvus Lite, expected one")
    elif not create:
        raise InputError(
            f"there is no database {str(path)!r}, expected one that `mdmmt index build` has made"
        )
    else:
        check_place(path)


def _make_local(path: Path, wanted: Identity) -> None:
    """Make a local database, whole or not at all."""
    from pymilvus import MilvusClient

    path = path.absolute()
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
        built = Path(scratch) / "built"
        with _errors(str(path)), _lite(built) as address:
            client = MilvusClient(address)
            _make_collection(client, wanted)
            client.close()
        try:
            built.rename(path)
        except OSError:
            if not path.exists():  # else another process was faster
                raise


@contextmanager
def _lite(path: Path) -> Iterator[str]:
    """Milvus Lite in this process, over a folder; gives its address."""
    try:
        from milvus_lite.adapter.grpc.server import start_server_in_thread
        from milvus_lite.exceptions import DataDirLockedError
    except ImportError as error:
        raise InputError(
            "a local database needs Milvus Lite: pip install pymilvus milvus-lite"
        ) from error
    try:
        server, database, port = start_server_in_thread(str(path))
    except DataDirLockedError as error:
        raise InputError(
            f"the database {str(path)!r} is open elsewhere, in this process or another; expected "
            "one at a time, or a Milvus server, which takes many"
        ) from error
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(grace=1).wait()
        database.close()


def _make_collection(client: MilvusClient, wanted: Identity) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, max_length=64, is_primary=True)
    schema.add_field("path", DataType.VARCHAR, max_length=MOST_BYTES)
    schema.add_field("start_s", DataType.DOUBLE)
    schema.add_field("end_s", DataType.DOUBLE)
    schema.add_field("source", DataType.VARCHAR, max_length=MOST_BYTES)
    schema.add_field("segments", DataType.INT64)  # of the file; 0: a row that is to be deleted
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=wanted.dim)
    client.create_collection(
        COLLECTION,
        schema=schema,
        properties={MODEL: json.dumps(wanted._asdict())},
        consistency_level="Strong",
    )


def _make_index(client: MilvusClient, settings: Mapping[str, Any]) -> None:
    params = client.prepare_index_params()
    params.add_index("vector", metric_type=METRIC, **settings)
    client.create_index(COLLECTION, params)


def _held(client: MilvusClient, uri: str) -> Identity:
    """Whose embeddings a collection holds."""
    properties = client.describe_collection(COLLECTION).get("properties", {})
    try:
        return Identity(**json.loads(properties[MODEL]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{_shown(uri)} has a collection {COLLECTION!r} that this package has not made"
        ) from error


def _load(client: MilvusClient, local: bool) -> None:
    """Make a collection ready to be searched."""
    from pymilvus.exceptions import MilvusException

    if not local and not client.list_indexes(COLLECTION):
        _make_index(client, SERVER_INDEX)
    try:
        client.load_collection(COLLECTION)
    except MilvusException:
        if not local:
            raise
        # Killed while it writes an index, Milvus Lite leaves a part of one, and trips over it.
        client.drop_index(COLLECTION, client.list_indexes(COLLECTION)[0])
        client.load_collection(COLLECTION)
    if local:
        _index_if_large(client)


def _index_if_large(client: MilvusClient) -> None:
    """Let Milvus Lite have an index of vectors as soon as there are enough of them."""
    if client.list_indexes(COLLECTION):
        return
    if client.get_collection_stats(COLLECTION)["row_count"] >= INDEXED_ROWS:
        client.release_collection(COLLECTION)
        _make_index(client, LOCAL_INDEX)
        client.load_collection(COLLECTION)


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
    if not text:
        raise InputError(f"{what} is empty, expected a path")
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


def _checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InputTypeError(f"metadata is {metadata!r}, expected a dict with names as keys")
    taken = [key for key in metadata if key in FIELDS or key.startswith("$")]
    if taken:
        raise InputError(
            f"metadata has the name {taken[0]!r}, expected none with a $ in front and none of "
            f"{', '.join(FIELDS)}"
        )
    try:
        size = len(json.dumps(dict(metadata), allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata cannot be stored as JSON ({error})") from error
    if size > MOST_BYTES:
        raise InputError(f"metadata is {size} bytes of JSON, expected up to {MOST_BYTES}")
    return dict(metadata)


__all__: Sequence[str] = ("Hit", "Identity", "Index", "identity")

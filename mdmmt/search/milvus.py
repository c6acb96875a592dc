"""Milvus, as a local database in this process (Milvus Lite) or as a server.

The differences between the two, and the ways around the faults of Milvus Lite, are here and in
`Index._put`, `_flush` and `_repair`.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import InputError, MissingDependency
from ..storage.files import OF_FULL_DISKS, check_writable
from ..weights.identity import Identity
from .local_server import serve

if TYPE_CHECKING:
    from pymilvus import MilvusClient

COLLECTION = "mdmmt"
MANIFEST = "manifest.json"  # of Milvus Lite, in the folder of the collection
UNCLEAN = "UNCLEAN"  # a file in a local database: it is open, or its process was killed
FIELDS = ("id", "path", "start_s", "end_s", "source", "segments", "metadata", "vector")
# Properties of the collection.
MODEL_PROPERTY = "mdmmt.model"  # the model that made its embeddings
ORIGIN_PROPERTY = "mdmmt.origin"  # where that model is
DELETED_PROPERTY = "mdmmt.deleted"  # marks of the files that were deleted
METRIC = "IP"  # inner product
# For Milvus Lite, a single cell that holds all vectors: a search compares all of them, so it is
# exact. Milvus Lite reads the settings of an index from a dict inside the parameters.
LOCAL_INDEX: dict[str, Any] = {"index_type": "IVF_FLAT", "params": {"params": {"nlist": 1}}}
LOCAL_SEARCH = {"nprobe": 1}
# These loggers repeat errors that are raised, or report something that is not an error.
NOISY_LOGGERS = (
    "pymilvus.client.grpc_handler",
    "pymilvus.client.iterator.query_iterator",
    "pymilvus.decorators",
    "milvus_lite.adapter",
    "milvus_lite.server_manager",
    "grpc._server",
)
# Without this, gRPC complains on stderr after a while without a call.
LOCAL_GRPC_OPTIONS = {"grpc.keepalive_time_ms": 2**31 - 1}
MIN_INDEXED_ROWS = 500  # an index of fewer rows gains nothing and complains on stderr
SERVER_INDEX: dict[str, Any] = {"index_type": "AUTOINDEX"}
CONNECT_S = 20  # in which a server has to answer for the first time
ANSWER_S = 60  # in which it has to answer a call; long enough to be started again
# What a server says that was started again, until it has read its data.
STARTING = re.compile("not loaded|not ready|not available|no available|unavailable|offline")
FULL_DISK = re.compile(rf"\[errno ({'|'.join(map(str, OF_FULL_DISKS))})\]", re.IGNORECASE)
PAUSE_S = 0.5  # after a call without an answer
MAX_BYTES = 65_535  # of a text or of JSON, a limit of Milvus


class NoAnswer(InputError):
    """A server does not answer."""


class Origin(NamedTuple):
    """What a database tells about its model, beside the identity."""

    weights: str | None = None  # a `weight_path` that `mdmmt.load` takes
    experts: tuple[str, ...] | None = None  # in the order of their blocks in an embedding


def import_pymilvus() -> Any:
    """Import pymilvus, and silence the loggers that repeat its errors.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import pymilvus
    except ImportError as error:
        raise MissingDependency("an index", extra="index") from error
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


def is_local(uri: str) -> bool:
    """Whether this is the folder of a local database, not the address of a server."""
    return "://" not in uri


def redact_password(uri: str) -> str:
    """A folder, or an address without user and password, quoted for a message."""
    if is_local(uri):
        return repr(uri)
    parts = urlsplit(uri)
    return repr(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())


@contextmanager
def translate_errors(uri: str, subject: str | None = None) -> Iterator[None]:
    """Raise the errors of Milvus as `InputError`.

    Args:
        subject: what Milvus refused, for the message; None: the database.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        name = redact_password(uri)
        call = error if isinstance(error, grpc.RpcError) else error.__cause__
        code = call.code() if isinstance(call, grpc.RpcError) else None
        if code == grpc.StatusCode.UNAUTHENTICATED:
            raise InputError(
                f"{name} refused the user and the password, or the lack of them; expected "
                "http://USER:PASSWORD@HOST:PORT with those of a user of this server"
            ) from None  # the cause may tell the password
        silent = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        if code in silent or "Fail connecting" in str(error):
            raise NoAnswer(
                f"{name} does not answer, expected a Milvus server that runs; what was added "
                "before is kept"
            ) from error
        message = error.details() if isinstance(error, grpc.RpcError) else error.message
        reason = " ".join(str(message).split())
        if subject is None and STARTING.search(reason):  # or the words may be those of a filter
            raise NoAnswer(f"{name} is not ready to answer ({reason}); try again later") from error
        if FULL_DISK.search(reason):
            raise InputError(
                f"{name} has no room left on its disk ([Errno {errno.ENOSPC}]); what was added "
                "before is kept, so make room and try again"
            ) from error
        raise InputError(f"{subject or name} was refused by Milvus: {reason}") from error


def check_database(folder: Path, create: bool) -> None:
    """Refuse a folder without a local database, and a missing folder that shall not be made.

    Raises:
        InputError: naming the folder.
    """
    if folder.exists():
        if not (folder / "collections").is_dir():
            raise InputError(f"{str(folder)!r} is not a Milvus Lite database, expected one")
    elif not create:
        raise InputError(
            f"there is no database {str(folder)!r}, expected one that `mdmmt index build` has made"
        )
    else:
        check_writable(folder)


def check_files(folder: Path) -> None:
    """Refuse a local database that lacks files; Milvus Lite would open it as an emptier one.

    Raises:
        InputError: naming a missing file.
    """
    collection = folder / "collections" / COLLECTION
    if not collection.is_dir():
        return
    manifest = collection / MANIFEST  # comes with the first flush
    needed = [collection / "schema.json"]
    if any(collection.glob("manifest.json.*")) or any(collection.glob("partitions/*/*/*")):
        needed.append(manifest)
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        needed += [collection / name for name in files_in_manifest(content)]
    except (OSError, LookupError, TypeError, ValueError, AttributeError):
        pass  # missing, or of another version: Milvus Lite knows
    missing = [str(file.relative_to(folder)) for file in needed if not file.exists()]
    if missing:
        raise InputError(
            f"the database {str(folder)!r} lacks {len(missing)} of its files, such as "
            f"{missing[0]!r}; expected all, so restore them, or delete the folder and build it anew"
        )


def files_in_manifest(manifest: Any) -> list[str]:
    """The files that a manifest of Milvus Lite names, relative to the collection's folder.

    Raises:
        LookupError, TypeError, AttributeError: it is of an unknown version.
    """
    return [
        f"partitions/{name}/{file}"
        for name, partition in manifest["partitions"].items()
        for file in (*partition["data_files"], *partition["delta_files"])
    ]


def remove_local_database(folder: Path) -> None:
    """Delete a local database, unless another process has opened it."""
    import filelock  # torch requires it; late, since a search does without

    try:
        with filelock.FileLock(folder / "LOCK", timeout=0):  # the lock of Milvus Lite
            shutil.rmtree(folder)
    except filelock.Timeout:
        return


def make_local_database(folder: Path, identity: Identity) -> None:
    """Make a local database with an empty collection, whole or not at all."""
    from pymilvus import MilvusClient

    folder = folder.absolute()
    # The name is short: that of the database may be as long as the disk allows.
    with tempfile.TemporaryDirectory(prefix=".mdmmt-", dir=folder.parent) as scratch:
        built = Path(scratch) / "built"
        with translate_errors(str(folder)), serve(built) as address:
            client = MilvusClient(address)
            make_collection(client, identity)
            client.close()
        try:
            built.rename(folder)
        except OSError:
            if not folder.exists():  # else another process has made it in the meantime
                raise


@contextmanager
def connect(uri: str, copy: Path | None = None) -> Iterator[MilvusClient]:
    """Connect to a database, which for a local one includes serving it.

    Args:
        copy: a copy of a local database, which is opened in its place.

    Raises:
        InputError: the local database is open elsewhere or lacks files, or the server does not
            answer.
    """
    from pymilvus import MilvusClient

    local = is_local(uri)
    folder = copy or Path(uri)
    with ExitStack() as stack:
        address = stack.enter_context(serve(folder)) if local else uri
        if local:
            check_files(folder)  # while nobody else may write
        with translate_errors(uri):
            client = MilvusClient(
                address, timeout=CONNECT_S, grpc_options=LOCAL_GRPC_OPTIONS if local else {}
            )
        stack.callback(client.close)
        yield client


def make_collection(client: MilvusClient, identity: Identity) -> None:
    """Make the collection that an index fills, without an index over the vectors."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, max_length=64, is_primary=True)
    schema.add_field("path", DataType.VARCHAR, max_length=MAX_BYTES)
    schema.add_field("start_s", DataType.DOUBLE)
    schema.add_field("end_s", DataType.DOUBLE)
    schema.add_field("source", DataType.VARCHAR, max_length=MAX_BYTES)
    schema.add_field("segments", DataType.INT64)  # of the file; 0 marks a row to be deleted
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=identity.dim)
    client.create_collection(
        COLLECTION,
        schema=schema,
        properties={MODEL_PROPERTY: json.dumps(identity._asdict())},
        consistency_level="Strong",
    )


def read_identity(client: MilvusClient, uri: str) -> Identity:
    """The model that made the embeddings of the collection.

    Raises:
        InputError: another program has made the collection.
    """
    properties = client.describe_collection(COLLECTION).get("properties", {})
    try:
        return Identity(**json.loads(properties[MODEL_PROPERTY]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{redact_password(uri)} has a collection {COLLECTION!r} that this package has not made"
        ) from error


def read_origin(client: MilvusClient) -> Origin:
    """What the collection tells about its model; an older version of this package kept nothing."""
    properties = client.describe_collection(COLLECTION).get("properties", {})
    try:
        stored = json.loads(properties[ORIGIN_PROPERTY])
        weights, experts = stored["weights"], stored["experts"]
    except (KeyError, TypeError, ValueError):
        return Origin()
    return Origin(str(weights), tuple(map(str, experts)))


def write_origin(client: MilvusClient, origin: Origin) -> None:
    """Keep what `read_origin` reads."""
    properties = {ORIGIN_PROPERTY: json.dumps(origin._asdict())}
    client.alter_collection_properties(COLLECTION, properties=properties)


def read_deleted(client: MilvusClient) -> set[str]:
    """The marks that `write_deleted` has kept."""
    properties = client.describe_collection(COLLECTION).get("properties", {})
    return set(json.loads(properties.get(DELETED_PROPERTY, "[]")))


def write_deleted(client: MilvusClient, marks: set[str]) -> None:
    """Keep the marks of the files that were deleted."""
    properties = {DELETED_PROPERTY: json.dumps(sorted(marks))}
    client.alter_collection_properties(COLLECTION, properties=properties)


def load_collection(client: MilvusClient, local: bool) -> None:
    """Make the collection ready to be searched."""
    from pymilvus.exceptions import MilvusException

    if not local and not client.list_indexes(COLLECTION):
        make_vector_index(client, SERVER_INDEX)
    try:
        client.load_collection(COLLECTION)
    except MilvusException:
        if not local:
            raise
        # Milvus Lite, killed while it writes an index file, leaves one that it cannot load.
        client.drop_index(COLLECTION, client.list_indexes(COLLECTION)[0])
        client.load_collection(COLLECTION)
    if local:
        index_if_large(client)


def index_if_large(client: MilvusClient) -> None:
    """Give the collection of Milvus Lite a vector index, once it has rows enough for one."""
    if client.list_indexes(COLLECTION):
        return
    if client.get_collection_stats(COLLECTION)["row_count"] >= MIN_INDEXED_ROWS:
        client.release_collection(COLLECTION)
        make_vector_index(client, LOCAL_INDEX)
        client.load_collection(COLLECTION)


def make_vector_index(client: MilvusClient, settings: Mapping[str, Any]) -> None:
    """Make the index over the vectors of the collection."""
    params = client.prepare_index_params()
    params.add_index("vector", metric_type=METRIC, **settings)
    client.create_index(COLLECTION, params)

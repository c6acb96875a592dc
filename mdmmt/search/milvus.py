"""Milvus, as a local database in this process (Milvus Lite) or a server: opened, made, made ready.

What differs between the two, and what Milvus Lite does otherwise than it should, is here and in
`Index._put`, `_flush` and `_mend`.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import InputError
from ..storage.files import check_writable

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
MOST_BYTES = 65_535  # of a text or of JSON, by Milvus


class Identity(NamedTuple):
    """Whose embeddings: those of another model lie in another space."""

    name: str
    sha256: str  # of the weights
    dim: int

    def __str__(self) -> str:
        return f"{self.name} (weights {self.sha256[:12]}, {self.dim} wide)"


def import_pymilvus() -> Any:
    """The package pymilvus, which says on stderr only what it does not raise.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pymilvus
    except ImportError as error:
        raise InputError("an index needs Milvus: pip install pymilvus milvus-lite") from error
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


def is_local(uri: str) -> bool:
    """Whether this is a folder, and no address."""
    return "://" not in uri


def shown(uri: str) -> str:
    """An address as it may be shown, without the password."""
    if is_local(uri):
        return repr(uri)
    parts = urlsplit(uri)
    return repr(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())


@contextmanager
def errors(uri: str, said: str | None = None) -> Iterator[None]:
    """Milvus' errors as this package's.

    Args:
        said: what is to blame, if not the database.
    """
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        reason = " ".join(str(error.message).split())
        raise InputError(f"{said or shown(uri)} was refused by Milvus: {reason}") from error


def check_database(path: Path, create: bool) -> None:
    """Refuse to open, or to make, a local database where there is something else, or nothing."""
    if path.exists():
        if not (path / "collections").is_dir():
            raise InputError(f"{str(path)!r} is no database of Milvus Lite, expected one")
    elif not create:
        raise InputError(
            f"there is no database {str(path)!r}, expected one that `mdmmt index build` has made"
        )
    else:
        check_writable(path)


def make_local(path: Path, wanted: Identity) -> None:
    """Make a local database, whole or not at all."""
    from pymilvus import MilvusClient

    path = path.absolute()
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
        built = Path(scratch) / "built"
        with errors(str(path)), lite(built) as address:
            client = MilvusClient(address)
            make_collection(client, wanted)
            client.close()
        try:
            built.rename(path)
        except OSError:
            if not path.exists():  # else another process was faster
                raise


@contextmanager
def lite(path: Path) -> Iterator[str]:
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


def make_collection(client: MilvusClient, wanted: Identity) -> None:
    """Make the collection that `mdmmt.search.index` fills, without an index of vectors."""
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


def make_index(client: MilvusClient, settings: Mapping[str, Any]) -> None:
    """Make the collection's index of vectors."""
    params = client.prepare_index_params()
    params.add_index("vector", metric_type=METRIC, **settings)
    client.create_index(COLLECTION, params)


def held(client: MilvusClient, uri: str) -> Identity:
    """Whose embeddings a collection holds."""
    properties = client.describe_collection(COLLECTION).get("properties", {})
    try:
        return Identity(**json.loads(properties[MODEL]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{shown(uri)} has a collection {COLLECTION!r} that this package has not made"
        ) from error


def load(client: MilvusClient, local: bool) -> None:
    """Make a collection ready to be searched."""
    from pymilvus.exceptions import MilvusException

    if not local and not client.list_indexes(COLLECTION):
        make_index(client, SERVER_INDEX)
    try:
        client.load_collection(COLLECTION)
    except MilvusException:
        if not local:
            raise
        # Killed while it writes an index, Milvus Lite leaves a part of one, and trips over it.
        client.drop_index(COLLECTION, client.list_indexes(COLLECTION)[0])
        client.load_collection(COLLECTION)
    if local:
        index_if_large(client)


def index_if_large(client: MilvusClient) -> None:
    """Let Milvus Lite have an index of vectors as soon as there are enough of them."""
    if client.list_indexes(COLLECTION):
        return
    if client.get_collection_stats(COLLECTION)["row_count"] >= INDEXED_ROWS:
        client.release_collection(COLLECTION)
        make_index(client, LOCAL_INDEX)
        client.load_collection(COLLECTION)

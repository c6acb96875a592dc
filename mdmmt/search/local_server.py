"""A local database, served by Milvus Lite in this process.

This is the only file that calls an internal function of Milvus Lite. pymilvus can open a
local database itself, but then keeps it open until the process ends, and gives no reason for a
failure. So this package starts the server with the function that pymilvus calls. A probe tries that
function once in each process. If another version of Milvus Lite lacks it or has changed it,
pymilvus opens the database, with a warning.

Milvus Lite asks nobody for a password. The server therefore listens on a Unix socket in a folder
that only this user may enter. A server of pymilvus listens on a port of 127.0.0.1, where every user
of the machine can read and delete the rows; the warning says so.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import InputError, MissingDependency, describe_error, warn

TESTED_VERSION = "3.2.2"  # of Milvus Lite
SOCKET_FOLDER = "mdmmt-index-"  # the start of the folder's name
SOCKET = "milvus:0"  # Milvus Lite joins host and port by a colon
LEFTOVER_S = 60.0  # the age of a socket whose server must have started, if it lives
MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes, a limit of the system

logger = logging.getLogger(__name__)
_open_folders: set[str] = set()  # those that `_serve_as_pymilvus` serves in this process


class DatabaseInUse(InputError):
    """The database is open elsewhere."""


def serve(folder: Path) -> AbstractContextManager[str]:
    """Serve a local database while the context is entered, which gives the server's address.

    Raises:
        DatabaseInUse: the database is open already.
        InputError: the installed Milvus Lite cannot serve it.
        MissingDependency: Milvus Lite is not installed.
    """
    way = _tested_way()
    if way is _serve_as_pymilvus:
        warn(
            f"while {str(folder)!r} is open, every user of this machine can read and delete its "
            f"rows, as Milvus Lite {_installed_version()} can only serve it on a port; expected a "
            f"version like {TESTED_VERSION}: pip install 'milvus-lite=={TESTED_VERSION}'"
        )
    return way(folder)


@cache
def _tested_way() -> Callable[[Path], AbstractContextManager[str]]:
    """The first way that works with the installed Milvus Lite."""
    try:
        import milvus_lite  # noqa: F401
    except ImportError as error:
        raise MissingDependency("a local database", extra="index") from error
    try:
        _probe(_serve_directly)
        return _serve_directly
    except Exception as error:  # the function may be missing or do anything
        reason = describe_error(error)
    try:
        _probe(_serve_as_pymilvus)
    except Exception as error:
        raise InputError(
            f"Milvus Lite {_installed_version()} cannot serve a local database to this package "
            f"({reason}; {describe_error(error)}); expected a version like {TESTED_VERSION}: "
            f"pip install 'milvus-lite=={TESTED_VERSION}'"
        ) from error
    logger.warning(
        "Milvus Lite %s cannot be started directly (%s); local databases are opened as pymilvus "
        "opens them. Version %s is known to work.",
        _installed_version(),
        reason,
        TESTED_VERSION,
    )
    return _serve_as_pymilvus


def _probe(way: Callable[[Path], AbstractContextManager[str]]) -> None:
    """Serve an empty database; raise unless it answers and refuses to be opened twice."""
    with tempfile.TemporaryDirectory(prefix="mdmmt-") as scratch:
        folder = Path(scratch) / "probe.db"
        with way(folder) as address:
            _knock(address)
            try:
                with way(folder):
                    pass
            except InputError:
                return
            raise RuntimeError("it opens a database twice")


def _knock(address: str) -> None:
    """Connect to a server and leave again; raise OSError if nothing listens."""
    parts = urlsplit(address)
    if parts.scheme == "unix":
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(10)
            caller.connect(parts.path)
    else:
        socket.create_connection((str(parts.hostname), int(parts.port or 0)), 10).close()


@contextmanager
def _serve_directly(folder: Path) -> Iterator[str]:
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    from milvus_lite.exceptions import DataDirLockedError

    with _socket_folder() as private:
        host = f"unix:{private}/{SOCKET}".removesuffix(":0")
        try:
            server, database, port = start_server_in_thread(str(folder), host=host, port=0)
        except DataDirLockedError as error:
            raise DatabaseInUse(
                f"the database {str(folder)!r} is open elsewhere, in this process or another, as "
                "by a build; expected one that writes at a time, so wait until that one has ended, "
                "or use a Milvus server, which takes many"
            ) from error
        try:
            if port == 0:  # gRPC's sign of failure; for a socket, success is 1
                raise RuntimeError(f"cannot listen on {host}")
            yield f"unix:{private}/{SOCKET}"
        finally:
            server.stop(grace=1).wait()
            database.close()


@contextmanager
def _socket_folder() -> Iterator[str]:
    """A new folder that only this user may enter, with a path short enough for a socket in it."""
    for parent in filter(os.path.isdir, (tempfile.gettempdir(), "/tmp")):
        with tempfile.TemporaryDirectory(prefix=SOCKET_FOLDER, dir=parent) as folder:
            if len(os.fsencode(f"{folder}/{SOCKET}")) <= MAX_SOCKET_PATH:
                _remove_leftovers(Path(parent))
                yield folder
                return
    raise InputError(
        f"the folder for temporary files, {tempfile.gettempdir()!r}, has too long a path for a "
        "socket; expected a shorter one in the environment variable TMPDIR"
    )


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders of processes that were killed: those with a socket that nobody serves.

    The socket of a server that starts is there for a moment before anybody can call it.
    """
    for folder in parent.glob(f"{SOCKET_FOLDER}*"):
        try:
            status = folder.stat()
            is_ours = status.st_uid == os.getuid() and (folder / SOCKET).is_socket()
            if is_ours and status.st_mtime < time.time() - LEFTOVER_S:
                _knock(f"unix:{folder}/{SOCKET}")
        except ConnectionRefusedError:
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another process has removed it in the meantime
            continue


@contextmanager
def _serve_as_pymilvus(folder: Path) -> Iterator[str]:
    from milvus_lite.server_manager import server_manager_instance as manager

    path = os.path.abspath(folder)
    # For a folder that it serves already, the manager would give the same server again.
    address = None if path in _open_folders else manager.start_and_get_uri(path)
    if address is None:
        raise DatabaseInUse(
            f"the database {str(folder)!r} cannot be opened; it may be open elsewhere, in this "
            "process or another; expected one that writes at a time, or a Milvus server, which "
            "takes many"
        )
    _open_folders.add(path)
    try:
        yield address
    finally:
        _open_folders.discard(path)
        manager.release_server(path)


def _installed_version() -> str:
    try:
        return version("milvus-lite")
    except PackageNotFoundError:
        return "of an unknown version"

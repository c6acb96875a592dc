"""Files that appear whole or not at all, and the hash of a file's content."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..background import check_stop
from ..errors import InputError, describe_error, warn
from .text import counted

logger = logging.getLogger(__name__)

BLOCK_SIZE = 1 << 20  # bytes read at once
OF_FULL_DISKS = (errno.ENOSPC, errno.EDQUOT)  # a write does not tell the file
LOCK_FILE = ".mdmmt.lock"  # locks the folder in which it lies
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # `Path` removes the second slash


def check_writable(path: Path) -> None:
    """Refuse the path of a file that cannot be written, before any work is done for it.

    Raises:
        InputError: naming the file.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r} to write {path.name!r} into")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder, expected the name of a file to write")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path.name!r} may not be written into the folder {str(path.parent)!r}")


def check_folder(path: Path) -> None:
    """Refuse a folder that is not there and cannot be made, or that nothing can be written into.

    Raises:
        InputError: naming the folder, or the nearest of its parents that exists.
    """
    path = path.absolute()
    nearest = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise InputError(f"{str(nearest)!r} is not a folder, expected one to write into")
    if not os.access(nearest, os.W_OK):
        raise InputError(f"nothing may be written into the folder {str(nearest)!r}")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success that file replaces `path` atomically.

    The file is flushed to disk before it replaces `path`. On failure `path` is as it was. A process
    that is killed inside the block leaves a hidden file whose name ends in `.part`.

    Raises:
        InputError: see `check_writable`.
        OSError: naming `path`; the disk is full, for example.
    """
    check_writable(path)
    # The name is short, whatever the length of `path`, which may be as long as the disk allows.
    part = path.with_name(f".{secrets.token_hex(4)}.part")
    try:
        yield part
        flush_to_disk(part)
        part.replace(path)
        flush_to_disk(path.parent)
    except OSError as error:
        if error.filename == str(part) or (error.filename is None and error.errno in OF_FULL_DISKS):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def visible_files(folder: Path, followlinks: bool = False) -> Iterator[Path]:
    """Yield all files below a folder that are not hidden. Each folder is visited once.

    Hidden files and folders, whose names begin with a dot, are counted in one log line. A folder
    that may not be read is left out with a warning.

    Args:
        followlinks: whether links to folders are followed.
    """

    def warn_of(error: OSError) -> None:
        warn(f"{describe_error(error)}; the files in it are left out")

    visited: set[str] = set()
    hidden = 0
    for place, folders, files in os.walk(folder, onerror=warn_of, followlinks=followlinks):
        real = os.path.realpath(place)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        hidden += sum(name.startswith(".") and name != LOCK_FILE for name in folders + files)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))
    if hidden:
        what = counted(hidden, "hidden file or folder is", "hidden files and folders are")
        logger.info("%s left out of %s", what, folder)


def flush_to_disk(path: Path) -> None:
    """Wait until the disk has a file's bytes, or the names in a folder (where a system can)."""
    is_windows = sys.platform == "win32"
    if path.is_dir() and is_windows:  # which cannot open a folder
        return
    descriptor = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)  # or its fsync fails
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_file(path: str | os.PathLike[str], what: str = "a video file") -> None:
    """Raise unless a path is that of an existing file.

    Args:
        what: the kind of file that the message asks for.

    Raises:
        InputError: the path is not that of a file that can be reached.
    """
    if os.path.isfile(path):
        return
    name = os.fspath(path)
    if os.path.isdir(path):
        raise InputError(f"{name!r} is a folder, expected {what}")
    if URL.match(name):
        raise InputError(f"{name!r} is a URL, expected {what}: download it first")
    if os.path.exists(path):
        raise InputError(f"{name!r} is a pipe, a socket or a device, expected {what}")
    if os.path.islink(path):
        raise InputError(f"{name!r} is a symbolic link that leads to no file, expected {what}")
    try:
        os.stat(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"{name!r} cannot be read ({error.strerror}), expected {what}") from error
    except ValueError:  # a null byte
        pass
    raise InputError(f"there is no file {name!r}, expected {what}")


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(BLOCK_SIZE):
            check_stop()
            digest.update(block)
    return digest.hexdigest()


def in_units(size: int) -> str:
    """A number of bytes for a person, such as '605 MB'."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"

"""A private copy of a local database that is open elsewhere, to be searched meanwhile.

Milvus Lite lets one process open a database. While that process writes,

- a file of rows is complete before the manifest names it, and never changes after that,
- the manifest is replaced as a whole, and has another version each time,
- the logs, which hold the newest rows, grow until the manifest names a file of these rows.

So if neither the manifest nor the size of a log changes while the logs are copied, the copy is the
database of one moment. An index opens the copy as it opens a database whose process was killed at
that moment.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copyfile, rmtree

from ..errors import InputError
from .milvus import COLLECTION, MANIFEST, files_in_manifest, remove_local_database

FOLDER = "mdmmt-copy-"  # the start of the name of the folder that holds a copy
COPY = "copy.db"
FORMAT_VERSION = 2  # of the manifest; files of another version may mean something else
PATIENCE_S = 30.0  # in which there has to be a moment without a change
PAUSE_S = 0.05  # after a change
STALE_S = 3600.0  # a copy that nobody has opened for so long is of a process that was killed


@contextmanager
def private_copy(folder: Path) -> Iterator[Path]:
    """Copy a local database that may be open elsewhere; the copy goes when the context is left.

    Raises:
        InputError: the database changes all the time, or is of another version of Milvus Lite.
    """
    _remove_stale_copies()
    with tempfile.TemporaryDirectory(prefix=FOLDER) as private:  # only this user may enter it
        copy = Path(private) / COPY
        _copy_moment(folder, copy)
        yield copy


def _copy_moment(folder: Path, copy: Path) -> None:
    source, target = (place / "collections" / COLLECTION for place in (folder, copy))
    target.mkdir(parents=True)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        # A file that is missing was merged into another one in the meantime.
        with suppress(FileNotFoundError):
            manifest = _read_manifest(source)
            for name in _named_files(folder, manifest):
                if not (target / name).exists():
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    copyfile(source / name, target / name)
            sizes = _log_sizes(source)
            rmtree(target / "wal", ignore_errors=True)
            (target / "wal").mkdir()
            for name in ("schema.json", *sizes):
                copyfile(source / name, target / name)
            if sizes == _log_sizes(source) and manifest == _read_manifest(source):
                if manifest is not None:
                    (target / MANIFEST).write_bytes(manifest)
                return
        if time.monotonic() > deadline:
            raise InputError(
                f"the database {str(folder)!r} is open elsewhere, and had no moment without a "
                f"change in {PATIENCE_S:g} s; try again later"
            )
        time.sleep(PAUSE_S)


def _read_manifest(collection: Path) -> bytes | None:
    """The manifest; None before it comes with the first flush."""
    try:
        return (collection / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None


def _named_files(folder: Path, manifest: bytes | None) -> list[str]:
    if manifest is None:
        return []
    try:
        content = json.loads(manifest)
        if content["manifest_format_version"] == FORMAT_VERSION:
            return files_in_manifest(content)
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    raise InputError(
        f"the database {str(folder)!r} is open elsewhere, and is of a version of Milvus Lite that "
        "can only be read when it is closed there; try again then"
    )


def _log_sizes(collection: Path) -> dict[str, int]:
    return {
        str(file.relative_to(collection)): file.stat().st_size
        for file in sorted((collection / "wal").glob("*.arrow"))
    }


def _remove_stale_copies() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        with suppress(OSError):  # another process has removed it in the meantime
            status = folder.lstat()
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if is_ours and status.st_mtime < time.time() - STALE_S:
                remove_local_database(folder / COPY)
                folder.rmdir()  # refuses if the copy is open

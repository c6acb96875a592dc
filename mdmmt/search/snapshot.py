"""A private copy of a local database, which leaves the database free for others.

Milvus Lite lets one process open a database. While that process writes,

- a file of rows is complete before the manifest names it, and never changes after that,
- the manifest is replaced as a whole, and has another version each time; so is the schema,
- the logs, which hold the newest rows, grow until the manifest names a file of these rows.

So if none of manifest, schema and the sizes of the logs changes while the logs are copied, the copy
is the database of one moment. A copy of a database that is open for writing is opened as one whose
process was killed at that moment.
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
from typing import NamedTuple

from ..errors import InputError
from ..storage.files import OF_FULL_DISKS
from .milvus import (
    COLLECTION,
    MANIFEST,
    UNCLEAN,
    check_database,
    check_files,
    files_in_manifest,
    remove_local_database,
)

FOLDER = "mdmmt-copy-"  # the start of the name of the folder that holds a copy
COPY = "copy.db"
SCHEMA = "schema.json"
FORMAT_VERSION = 2  # of the manifest; files of another version may mean something else
PATIENCE_S = 30.0  # in which there has to be a moment without a change
GRACE_S = 2.0  # without a change, after which a file that is missing is lost
PAUSE_S = 0.05  # after a change
STALE_S = 3600.0  # a copy that nobody has opened for so long is of a process that was killed


class CannotCopy(InputError):
    """There is no room for a copy, or the database is of another version of Milvus Lite."""


class Moment(NamedTuple):
    """What changes whenever a database does."""

    manifest: bytes | None  # None before it comes with the first flush
    schema: bytes
    logs: dict[str, int]  # name -> size
    is_clean: bool  # no process has it open for writing, or was killed then

    @classmethod
    def of(cls, folder: Path) -> Moment:
        """The present moment of a database.

        Raises:
            FileNotFoundError: a file is missing; a log goes while the others are looked at.
        """
        collection = folder / "collections" / COLLECTION
        try:
            manifest = (collection / MANIFEST).read_bytes()
        except FileNotFoundError:
            if any(collection.glob("partitions/*/*/*")):  # the first flush runs
                raise
            manifest = None
        logs = {
            str(file.relative_to(collection)): file.stat().st_size
            for file in sorted((collection / "wal").glob("*.arrow"))
        }
        schema = (collection / SCHEMA).read_bytes()
        return cls(manifest, schema, logs, not (folder / UNCLEAN).exists())


@contextmanager
def private_copy(folder: Path) -> Iterator[tuple[Path, Moment]]:
    """Copy a local database that may be open elsewhere; the copy goes when the context is left.

    Raises:
        CannotCopy: see there.
        InputError: the database changes all the time, lacks files, or holds no index.
    """
    _remove_stale_copies()
    with tempfile.TemporaryDirectory(prefix=FOLDER) as private:  # only this user may enter it
        copy = Path(private) / COPY
        try:
            moment = _copy_moment(folder, copy)
        except OSError as error:
            if error.errno not in OF_FULL_DISKS:
                raise
            raise CannotCopy(
                f"the database {str(folder)!r} is open elsewhere, and its copy, which would be "
                f"read meanwhile, has no room in {tempfile.gettempdir()!r}; expected room there, "
                "or another folder in the environment variable TMPDIR"
            ) from error
        yield copy, moment


def _copy_moment(folder: Path, copy: Path) -> Moment:
    source, target = (place / "collections" / COLLECTION for place in (folder, copy))
    target.mkdir(parents=True)
    last_moment, last_change_s = None, time.monotonic()
    deadline = last_change_s + PATIENCE_S
    while True:
        check_database(folder, create=False)
        if not source.is_dir():
            raise InputError(f"{str(folder)!r} holds no index, expected one")
        # A file that is missing was merged into another one in the meantime, or is lost.
        with suppress(FileNotFoundError):
            moment = Moment.of(folder)
            if moment != last_moment:
                last_moment, last_change_s = moment, time.monotonic()
            for name in _named_files(folder, moment.manifest):
                if not (target / name).exists():
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    copyfile(source / name, target / name)
            rmtree(target / "wal", ignore_errors=True)
            (target / "wal").mkdir()
            for name in moment.logs:
                copyfile(source / name, target / name)
            if moment == Moment.of(folder):
                (target / SCHEMA).write_bytes(moment.schema)
                if moment.manifest is not None:
                    (target / MANIFEST).write_bytes(moment.manifest)
                if not moment.is_clean:
                    (copy / UNCLEAN).touch()
                return moment
        if time.monotonic() > last_change_s + GRACE_S:
            check_files(folder)
        if time.monotonic() > deadline:
            raise InputError(
                f"the database {str(folder)!r} is open elsewhere, and had no moment without a "
                f"change in {PATIENCE_S:g} s; try again later"
            )
        time.sleep(PAUSE_S)


def _named_files(folder: Path, manifest: bytes | None) -> list[str]:
    if manifest is None:
        return []
    try:
        content = json.loads(manifest)
        if content["manifest_format_version"] == FORMAT_VERSION:
            return files_in_manifest(content)
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    raise CannotCopy(
        f"the database {str(folder)!r} is open elsewhere, and is of a version of Milvus Lite that "
        "can only be read when it is closed there; try again then"
    )


def _remove_stale_copies() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        with suppress(OSError):  # another process has removed it in the meantime
            status = folder.lstat()
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if is_ours and status.st_mtime < time.time() - STALE_S:
                remove_local_database(folder / COPY)
                folder.rmdir()  # refuses if the copy is open

"""Facts about files that take long to find, kept in the user's cache until the file changes.

A fact is kept under the path, the size, the inode and the times of its file, which tell its content
without reading it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .files import atomic_file, sha256_of
from .paths import cache_folder

CACHE_NAME = "facts"  # a folder in the user's cache; one small file for each file and topic
MIN_AGE_S = 2.0  # a file written since then may change again within one tick of its time stamps

SHA256 = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)


class Mark(NamedTuple):
    """The marks that tell the content of a file without reading it.

    The time of the last change of the inode tells apart contents that were given the same size and
    time of modification.
    """

    file: str
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int


def mark_of(file: Path) -> Mark | None:
    """The mark of a file as it is now; None if it is missing or too new to be told by its times."""
    file = file.absolute()
    try:
        status = file.stat()
    except OSError:
        return None
    if time.time() - max(status.st_mtime, status.st_ctime) < MIN_AGE_S:
        return None
    return Mark(
        os.fspath(file), status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
    )


def recall(mark: Mark | None, topic: str) -> str | None:
    """The fact that is kept about a file with this mark; None if there is none."""
    if mark is None:
        return None
    try:
        entry = json.loads(_entry_file(mark, topic).read_text(encoding="utf-8"))
        fact = entry.pop("fact")
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None
    return fact if entry == _entry(mark, topic) and isinstance(fact, str) else None


def remember(mark: Mark | None, topic: str, fact: str) -> None:
    """Keep a fact, if the file still has the mark that it had before it was read.

    A cache that cannot be written is ignored.
    """
    if mark is None or mark != mark_of(Path(mark.file)):
        return
    file = _entry_file(mark, topic)
    if not file.is_absolute():  # a user without a home
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as part:
            entry = _entry(mark, topic) | {"fact": fact}
            part.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    except (OSError, InputError) as error:
        logger.info("what was found about %s is not kept: %s", mark.file, error)


def known_sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; the file is read once until it changes."""
    mark = mark_of(file)
    sha256 = recall(mark, "SHA-256")
    if sha256 is None or not SHA256.fullmatch(sha256):
        sha256 = sha256_of(file)
        remember(mark, "SHA-256", sha256)
    return sha256


def _entry(mark: Mark, topic: str) -> dict[str, str | int]:
    return mark._asdict() | {"topic": topic}


def _entry_file(mark: Mark, topic: str) -> Path:
    """One file for each path and topic, so a changed file replaces its entry."""
    name = json.dumps([mark.file, topic])
    return cache_folder() / CACHE_NAME / f"{hashlib.sha256(name.encode()).hexdigest()}.json"

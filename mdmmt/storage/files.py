"""Files: written whole or not at all, and told apart by their content."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..errors import InputError

BLOCK = 1 << 20  # bytes read at once


def check_place(path: Path) -> None:
    """Say so before any work, if a file cannot be written there.

    Raises:
        InputError: naming it.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r} to write {path.name!r} into")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder, expected the name of a file to write")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path.name!r} may not be written into the folder {str(path.parent)!r}")


def check_folder(path: Path) -> None:
    """Say so before any work, if a folder is not there and cannot be made there either.

    Raises:
        InputError: naming it.
    """
    path = path.absolute()
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise InputError(f"{str(there)!r} is no folder, expected one to write into")
    if not os.access(there, os.W_OK):
        raise InputError(f"nothing may be written into the folder {str(there)!r}")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to; what was written there then takes the place of `path`.

    If the block fails, `path` is as it was. A process that is killed within it leaves a hidden
    file whose name ends in `.part`.

    Raises:
        InputError: see `check_place`.
    """
    check_place(path)
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(out: Path, keep: str | None = None) -> Iterator[Path]:
    """A new folder beside `out` to fill, which then takes its place.

    If the block fails, `out` is as it was. Links in the path are followed by the system, `out`
    itself must be absolute.

    Args:
        keep: the name of what moves from the old folder into the new one.

    Raises:
        InputError: see `check_folder`.
    """
    check_folder(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    built, replaced = scratch / "built", scratch / "replaced"
    built.mkdir()
    try:
        yield built
        kept = [(replaced / keep, built / keep)] if keep else []
        _rename_all((out, replaced), *kept, (built, out))
        if replaced.exists():
            shutil.rmtree(replaced)
    finally:
        if not replaced.exists():  # else it is all that is left of what was there
            shutil.rmtree(scratch)


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _rename_all(*pairs: tuple[Path, Path]) -> None:
    """Rename what exists of each pair's first to its second: all of them, or none."""
    with ExitStack() as undo:
        for source, target in pairs:
            if os.path.lexists(source):
                os.rename(source, target)
                undo.callback(os.rename, target, source)
        undo.pop_all()

"""Folders that are replaced as a whole, even if the process that replaces them is killed.

A new folder is filled in a hidden scratch folder beside its place. Then it is exchanged with the
old folder in one operation, if the system has one. Elsewhere the old folder is away for a moment.
A process that is killed leaves the scratch folder behind. The next process that writes the same
folder finishes or undoes what was begun, and removes the scratch folder.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import InputError
from .files import check_folder, flush_to_disk

# In a scratch folder.
LOCK = "lock"  # held by the process that uses the scratch folder
BUILT = "built"  # the new folder; once it is in place, the old one
MOVED = "moved"  # the old folder, on its way where it cannot be exchanged in one operation

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux
CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # of an older system, or of the disk


@contextmanager
def atomic_folder(out: Path, keep: str | None = None) -> Iterator[Path]:
    """Yield a new folder beside `out` to fill; on success it replaces `out`.

    All of it is flushed to disk before it gets its name. On failure `out` is as it was. If another
    process writes the same folder, this one waits for it.

    Args:
        out: an absolute path. Its parents may be links, itself it is not followed.
        keep: the name of a file or folder to move from the old folder into the new one, which
            must not have one of this name.

    Raises:
        InputError: see `check_folder`; or a killed process has left the old folder aside, and
            there is another one in its place.
    """
    check_folder(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked_scratch(out) as scratch:
        _settle(scratch, out, keep)
        built = scratch / BUILT
        built.mkdir()
        try:
            yield built
            if keep and os.path.lexists(out / keep):
                with suppress(OSError):  # a disk without links: it is away until it is moved
                    os.symlink(_way_to_kept(scratch, keep), built / keep)
            _flush_tree(built)
            _put_in_place(scratch, out, keep)
        finally:
            _remove_built(scratch, keep)


def move_files(source: Path, target: Path) -> None:
    """Move all files of a folder into another one, each as a whole and flushed to disk."""
    for file in sorted(source.iterdir()):
        flush_to_disk(file)
        os.replace(file, target / file.name)
    flush_to_disk(target)


@contextmanager
def _locked_scratch(out: Path) -> Iterator[Path]:
    """Lock the scratch folder of `out`, which is made before and removed behind."""
    import filelock  # torch requires it; a model that is loaded does not need it

    # The name is short, whatever the length of `out`, which may be as long as the disk allows.
    name = hashlib.sha256(os.fsencode(out.name)).hexdigest()[:16]
    scratch = out.with_name(f".mdmmt-{name}")
    while True:
        with suppress(FileNotFoundError):  # the process before has just removed the folder
            _make_scratch(scratch)
            lock = filelock.FileLock(scratch / LOCK)
            try:
                lock.acquire()
            except NotImplementedError:  # a disk without locks
                break
            if (scratch / LOCK).exists():
                break
            lock.release()
    try:
        yield scratch
    finally:
        # Under the lock, or the file could be that of the next process. Windows refuses to unlink
        # an open file; there `release` does it.
        with suppress(OSError):
            (scratch / LOCK).unlink()
        lock.release()
        with suppress(OSError):  # it is not empty: the next process has come, or something is left
            scratch.rmdir()


def _make_scratch(scratch: Path) -> None:
    """Make the scratch folder, or take the one that is there if it is this user's."""
    try:
        scratch.mkdir(mode=0o700)
    except FileExistsError:
        status = scratch.lstat()
        is_own = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
        if not stat.S_ISDIR(status.st_mode) or not is_own:
            raise InputError(
                f"{scratch} is in the way, expected a folder of this user or nothing; wait until "
                "the process that uses it has ended, or delete it"
            ) from None


def _put_in_place(scratch: Path, out: Path, keep: str | None) -> None:
    """Make the built folder `out`, and what was `out` the built folder."""
    built = scratch / BUILT
    if not os.path.lexists(out):
        os.rename(built, out)
    else:
        _exchange(built, out, scratch / MOVED)
        try:
            _move_kept(scratch, out, keep)
        except OSError:
            _exchange(built, out, scratch / MOVED)
            raise
        flush_to_disk(out)
    flush_to_disk(out.parent)


def _settle(scratch: Path, out: Path, keep: str | None) -> None:
    """Finish or undo what a killed process has begun, and empty the scratch folder."""
    built, moved = scratch / BUILT, scratch / MOVED
    if os.path.lexists(moved):
        if not built.exists():  # it is in place
            os.rename(moved, built)
        elif not os.path.lexists(out):
            os.rename(moved, out)
        else:
            raise InputError(
                f"{out} was left at {moved} by a process that was killed, and there is another "
                f"{out} now; move one of the two away"
            )
    if _holds_kept(scratch, keep) and not os.path.lexists(out):  # somebody has deleted the new one
        os.rename(built, out)
    _move_kept(scratch, out, keep)
    _remove_built(scratch, keep)


def _way_to_kept(scratch: Path, keep: str) -> str:
    """The link in the new folder that leads to the kept part until that is moved there."""
    return os.path.join(os.pardir, scratch.name, BUILT, keep)


def _holds_kept(scratch: Path, keep: str | None) -> bool:
    """Whether the kept part is in the scratch folder, with the rest of the old folder."""
    if keep is None or not os.path.lexists(scratch / BUILT / keep):
        return False
    return not _is_way_to_kept(scratch / BUILT / keep, scratch, keep)


def _is_way_to_kept(path: Path, scratch: Path, keep: str) -> bool:
    return path.is_symlink() and os.readlink(path) == _way_to_kept(scratch, keep)


def _move_kept(scratch: Path, out: Path, keep: str | None) -> None:
    """Move the kept part of the old folder into the new one, where it replaces the link to it."""
    if keep is None or not _holds_kept(scratch, keep):
        return
    kept, place = scratch / BUILT / keep, out / keep
    if _is_way_to_kept(place, scratch, keep):
        if _exchange_at_once(kept, place):
            return
        place.unlink()
    os.rename(kept, place)


def _remove_built(scratch: Path, keep: str | None) -> None:
    """Remove the new folder that failed, or the old one, unless the kept part is still in it."""
    if (scratch / BUILT).exists() and not _holds_kept(scratch, keep):
        shutil.rmtree(scratch / BUILT)


def _exchange(first: Path, second: Path, spare: Path) -> None:
    """Exchange two folders. Where the system cannot, the second one lies at `spare` meanwhile."""
    if _exchange_at_once(first, second):
        return
    with ExitStack() as undo:
        for source, target in ((second, spare), (first, second), (spare, first)):
            os.rename(source, target)
            undo.callback(os.rename, target, source)
        undo.pop_all()


def _exchange_at_once(first: Path, second: Path) -> bool:
    """Exchange two files or folders in one operation; False if the system or the disk cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # an older C library
        return False
    names = os.fsencode(first), os.fsencode(second)
    if rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), os.fspath(first), None, os.fspath(second))


def _flush_tree(folder: Path) -> None:
    """Flush a folder and everything in it to disk; links are not followed."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            if not Path(place, name).is_symlink():
                flush_to_disk(Path(place, name))
        flush_to_disk(Path(place))

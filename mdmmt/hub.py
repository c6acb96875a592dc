"""The operator folder, as Towhee's hub and its cache hold it.

Towhee looks for the operator in one folder, executes the `__init__.py` there and reads the
`requirements.txt` beside it; this package lies inside. A clone holds those two files; an
installation from a wheel does not, so they are made here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

from .errors import InputError

# `__file__` must not be resolved: in a folder that the hub laid, this file is a symbolic link.
PACKAGE = Path(__file__).parent
AUTHOR, REPOSITORY, TAG = "video-text-embedding", "mdmmt", "main"  # as Towhee calls the operator
ENTRY_FILE = "__init__.py"
REQUIREMENTS_FILE = "requirements.txt"
WEIGHTS = "weights"  # the user's own, beside the operator
NAMES = (ENTRY_FILE, REQUIREMENTS_FILE, PACKAGE.name, WEIGHTS)  # what an operator folder holds
CACHES = "__pycache__"

# The repository's root `__init__.py`, which a test holds equal to this.
ENTRY = '''\
"""What Towhee's hub and operator folder execute: `ops.video_text_embedding.mdmmt`.

The import is relative, since there this package is not installed. It binds the name `mdmmt` twice:
first to the sub-package, and then, as must be, to the factory.
"""

from .mdmmt.operator import MDMMT, mdmmt

__all__ = ["MDMMT", "mdmmt"]
'''


def install_operator() -> Path:
    """Put the operator where this user's Towhee looks for it, whole or not at all.

    Returns:
        The folder, which `ops.video_text_embedding.mdmmt` finds from now on without an import.

    Raises:
        InputError: see `write_operator_folder`, or Towhee keeps operators otherwise (0.9).
        OSError: the folder cannot be written.
    """
    try:
        from towhee.hub.cache_manager import get_local_dir
        from towhee.hub.downloader import repo_tag_path
    except ImportError as error:
        raise InputError(
            "this Towhee keeps its operators otherwise than 1.1.3, as 0.9 does; "
            "with it, `import mdmmt` makes the operator known"
        ) from error
    folder = repo_tag_path(Path(get_local_dir()) / "operators" / AUTHOR / REPOSITORY, TAG)
    write_operator_folder(folder)
    return folder


def write_operator_folder(out: str | os.PathLike[str]) -> None:
    """Write exactly the files that the operator needs: entry, requirements, package.

    The folder is built beside `out` and appears whole or not at all. An operator folder that is
    there is replaced, be it of files or of the hub's symbolic links, and keeps its `weights/`.

    Raises:
        InputError: `out` is there and is or holds something other than an operator, or the
            requirements are not known.
        OSError: the folder cannot be written; what was there still is.
    """
    out = Path(out).absolute()
    strangers = next(_strangers(out), None)
    if strangers is not None:
        raise InputError(
            f"{out} is there and was left as it is, since it is no operator folder: "
            f"replacing it would lose {strangers}"
        )
    requirements = _requirements()
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{REPOSITORY}-", dir=out.parent))
    built, replaced = scratch / "built", scratch / "replaced"
    try:
        for file in _package_files():
            target = built / file.relative_to(PACKAGE.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        (built / ENTRY_FILE).write_text(ENTRY, encoding="utf-8")
        (built / REQUIREMENTS_FILE).write_text(requirements, encoding="utf-8")
        _rename_all((out, replaced), (replaced / WEIGHTS, built / WEIGHTS), (built, out))
        if replaced.exists():
            shutil.rmtree(replaced)
    finally:
        if not replaced.exists():  # else it is all that is left of what was there
            shutil.rmtree(scratch)


def _package_files() -> Iterator[Path]:
    """The files of this package, without caches and hidden files."""
    for folder, folders, files in os.walk(PACKAGE):
        folders[:] = [name for name in folders if name != CACHES and not name.startswith(".")]
        for name in files:
            if not name.endswith(".pyc") and not name.startswith("."):
                yield Path(folder, name)


def _requirements() -> str:
    """The content of requirements.txt: the clone's own, or that of what pip installed."""
    entry, file = PACKAGE.parent / ENTRY_FILE, PACKAGE.parent / REQUIREMENTS_FILE
    if file.is_file() and entry.is_file() and entry.read_text(encoding="utf-8") == ENTRY:
        return file.read_text(encoding="utf-8")
    try:
        required = metadata.requires(REPOSITORY) or []
    except metadata.PackageNotFoundError as error:
        raise InputError(
            f"mdmmt is not installed, and {PACKAGE.parent} is no clone of its repository, so its "
            "requirements are not known; run this from a clone, or install mdmmt with pip"
        ) from error
    return "".join(f"{line}\n" for line in required if ";" not in line)  # the rest is extras


def _strangers(folder: Path) -> Iterator[Path]:
    """What is at or in a folder and neither part of an operator nor a link that the hub laid."""
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        yield folder
        return
    ours = NAMES if os.path.lexists(folder / ENTRY_FILE) else (WEIGHTS,)
    for parent, folders, files in os.walk(folder):
        known = (CACHES, *ours) if Path(parent) == folder else (CACHES,)
        folders[:] = [name for name in folders if name not in known]
        paths = (Path(parent, name) for name in files if name not in known)
        yield from (path for path in paths if not path.is_symlink())


def _rename_all(*pairs: tuple[Path, Path]) -> None:
    """Rename what exists of each pair's first to its second: all of them, or none."""
    with ExitStack() as undo:
        for source, target in pairs:
            if os.path.lexists(source):
                os.rename(source, target)
                undo.callback(os.rename, target, source)
        undo.pop_all()

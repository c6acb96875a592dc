"""The operator folder, as Towhee's hub and its cache hold it.

Towhee looks for the operator in one folder, executes the `__init__.py` there and reads the
`requirements.txt` beside it; this package lies in that folder too. A clone of the repository is
such a folder. `write_operator_folder` makes one from an installed package as well, and adds a
manifest, with which the `__init__.py` notices a file that a download has truncated.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

from .errors import InputError, MissingDependency
from .storage.files import sha256_of
from .storage.folders import atomic_folder

# `__file__` must not be resolved: in a folder that the hub laid, this file is a symbolic link.
PACKAGE = Path(__file__).parent
AUTHOR, REPOSITORY, TAG = "video-text-embedding", "mdmmt", "main"  # as Towhee calls the operator
ENTRY_FILE = "__init__.py"
# Towhee executes it if the entry defines no `mdmmt`: 1.1.3 after the entry, 0.9 before it.
STAND_IN_FILE = f"{REPOSITORY}.py"
MANIFEST_FILE = "MANIFEST.json"  # path -> SHA-256 of every other file
REQUIREMENTS_FILE = "requirements.txt"
README_FILE = "README.md"  # the operator's page on the hub
LICENCE_FILES = ("LICENSE", "NOTICE")
WEIGHTS = "weights"  # the user's own, beside the operator
CACHES = "__pycache__"
# All names that an operator folder may hold.
NAMES = (
    *(ENTRY_FILE, STAND_IN_FILE, MANIFEST_FILE, REQUIREMENTS_FILE, README_FILE, *LICENCE_FILES),
    *(PACKAGE.name, WEIGHTS),
)
# The contents of these files. The repository's root `__init__.py` is a copy of the first, which
# a wheel cannot hold; a test holds them equal.
ENTRY = PACKAGE / "operator_entry.py.txt"
STAND_IN = PACKAGE / "operator_stand_in.py.txt"
README = PACKAGE / "operator_readme.md"
# The command line, the sample's training and other files that the operator does not import, as
# patterns of paths in this package; a test compares them with the operator's imports.
LEFT_OUT = (
    "__main__.py",
    "operator_*",
    "py.typed",
    "app/*",
    "batch/*",
    "cli/*",
    "datasets/*",
    "downloads.py",
    "evaluation/*",
    "features/dumps.py",
    "features/provenance.py",
    "installation.py",
    "media/stills.py",
    "sample/*.py",
    "sample/model/report.json",
    "search/*",
    "storage/object_store.py",
    "training/*",
    "weights/convert.py",
    "weights/identity.py",
    "weights/info.py",
)


def install_operator() -> Path:
    """Write the operator into the folder in which this user's Towhee looks for it.

    Returns:
        The folder; `ops.video_text_embedding.mdmmt` needs no import of this package from now on.

    Raises:
        InputError: see `write_operator_folder`.
        MissingDependency: Towhee is not installed.
        OSError: the folder cannot be written.
    """
    try:  # here and not above, since each version of Towhee has only one of these modules
        from towhee.hub.cache_manager import get_local_dir
        from towhee.hub.downloader import repo_tag_path
    except ImportError:  # Towhee 0.9
        try:
            from towhee.hub.file_manager import FileManagerConfig
        except ImportError as error:
            raise MissingDependency("Towhee's operator folder", None) from error

        folder = FileManagerConfig().default_cache / "operators" / AUTHOR / REPOSITORY / TAG
    else:
        folder = repo_tag_path(Path(get_local_dir()) / "operators" / AUTHOR / REPOSITORY, TAG)
    write_operator_folder(folder)
    return folder


def write_operator_folder(out: str | os.PathLike[str]) -> None:
    """Write the files that the operator needs, and no others, as Towhee's hub should hold them.

    The folder appears whole or not at all. It replaces an operator folder of files or of the hub's
    symbolic links, and keeps the `weights/` of that folder.

    Raises:
        InputError: `out` exists and is not an operator folder, or holds other files, or cannot be
            written; or the requirements are not known.
        OSError: the disk fails, or is full; an old folder remains as it was.
    """
    out = Path(out).absolute()
    stranger = next(_foreign_files(out), None)
    if stranger is not None:
        raise InputError(
            f"{out} exists and was left as it is, since it is not an operator folder: "
            f"replacing it would lose {stranger}"
        )
    requirements = _requirements()
    with atomic_folder(out, keep=WEIGHTS) as built:
        for file in _package_files():
            target = built / file.relative_to(PACKAGE.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        for name, content in _licences().items():
            (built / name).write_text(content, encoding="utf-8")
        shutil.copyfile(ENTRY, built / ENTRY_FILE)
        shutil.copyfile(STAND_IN, built / STAND_IN_FILE)
        shutil.copyfile(README, built / README_FILE)
        (built / REQUIREMENTS_FILE).write_text(requirements, encoding="utf-8")
        (built / MANIFEST_FILE).write_text(_manifest(built), encoding="utf-8")


def _package_files() -> Iterator[Path]:
    """The files of this package that the operator needs."""
    for folder, folders, files in os.walk(PACKAGE):
        folders[:] = [name for name in folders if name != CACHES and not name.startswith(".")]
        for name in files:
            file = Path(folder, name)
            path = file.relative_to(PACKAGE).as_posix()
            is_left_out = any(fnmatch(path, pattern) for pattern in LEFT_OUT)
            if file.suffix != ".pyc" and not name.startswith(".") and not is_left_out:
                yield file


def _manifest(folder: Path) -> str:
    """The manifest of all files in a folder."""
    hashes = {
        file.relative_to(folder).as_posix(): sha256_of(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    return json.dumps(hashes, indent=1) + "\n"


def _requirements() -> str:
    """The lines of requirements.txt: the clone's, or those of the installed package."""
    entry, file = PACKAGE.parent / ENTRY_FILE, PACKAGE.parent / REQUIREMENTS_FILE
    if file.is_file() and entry.is_file() and entry.read_bytes() == ENTRY.read_bytes():
        return file.read_text(encoding="utf-8")
    try:
        required = metadata.requires(REPOSITORY) or []
    except metadata.PackageNotFoundError as error:
        raise InputError(
            f"mdmmt is not installed, and {PACKAGE.parent} is not a clone of its repository, so "
            "its requirements are not known; run this from a clone, or install mdmmt with pip"
        ) from error
    return "".join(f"{line}\n" for line in required if ";" not in line)  # extras have a ";"


def _licences() -> dict[str, str]:
    """The licence and the notice, which go with every copy: the clone's, or the package's."""
    licences = {}
    for name in LICENCE_FILES:
        file = PACKAGE.parent / name
        if file.is_file() and (PACKAGE.parent / REQUIREMENTS_FILE).is_file():
            licences[name] = file.read_text(encoding="utf-8")
        else:
            content = metadata.distribution(REPOSITORY).read_text(f"licenses/{name}")
            if content is not None:
                licences[name] = content
    return licences


def _foreign_files(folder: Path) -> Iterator[Path]:
    """Files that a replacement would lose: neither the operator's nor the hub's links."""
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        yield folder
        return
    ours = NAMES if os.path.lexists(folder / ENTRY_FILE) else (WEIGHTS,)
    for parent, folders, files in os.walk(folder):
        known = (CACHES, *ours) if Path(parent) == folder else (CACHES,)
        folders[:] = [name for name in folders if name not in known]
        paths = (Path(parent, name) for name in files if name not in known)
        yield from (path for path in paths if not path.is_symlink())

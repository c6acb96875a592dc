"""The operator folder, as Towhee's hub and its cache hold it.

Towhee looks for the operator in one folder, executes the `__init__.py` there and reads the
`requirements.txt` beside it; this package lies inside. A clone holds those two files; an
installation from a wheel does not, so they are made here, and with them what tells of a file that
was cut short on its way.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from .errors import InputError
from .storage.files import atomic_folder

# `__file__` must not be resolved: in a folder that the hub laid, this file is a symbolic link.
PACKAGE = Path(__file__).parent
AUTHOR, REPOSITORY, TAG = "video-text-embedding", "mdmmt", "main"  # as Towhee calls the operator
ENTRY_FILE = "__init__.py"
REQUIREMENTS_FILE = "requirements.txt"
WEIGHTS = "weights"  # the user's own, beside the operator
MANIFEST_FILE = "MANIFEST.json"  # path -> SHA-256 of every other file
STAND_IN_FILE = f"{REPOSITORY}.py"
LICENCE_FILES = ("LICENSE", "NOTICE")
# What an operator folder holds.
NAMES = (
    *(ENTRY_FILE, STAND_IN_FILE, MANIFEST_FILE, REQUIREMENTS_FILE, *LICENCE_FILES),
    *(PACKAGE.name, WEIGHTS),
)
CACHES = "__pycache__"
# What the command line, the demo and training need and the operator does not; a test holds this.
LEFT_OUT = (
    "search/__init__.py",
    "evaluation/__init__.py",
    "datasets/__init__.py",
    "batch/__init__.py",
    "__main__.py",
    "cli/__init__.py",
    "cli/common.py",
    "cli/evaluation.py",
    "cli/search.py",
    "cli/operator_folder.py",
    "cli/videos.py",
    "cli/weights.py",
    "datasets/annotations.py",
    "datasets/fields.py",
    "datasets/lists.py",
    "sample/demo.py",
    "features/dumps.py",
    "batch/embed.py",
    "evaluation/evaluate.py",
    "batch/extract.py",
    "operator_folder.py",
    "search/index.py",
    "search/build.py",
    "weights/convert.py",
    "weights/info.py",
    "evaluation/metrics.py",
    "search/milvus.py",
    "search/page.py",
    "search/page.html",
    "media/stills.py",
    "evaluation/plots.py",
    "evaluation/results.py",
    "sample/__init__.py",
    "sample/captions.py",
    "sample/clips.py",
    "sample/train.py",
    "sample/model/report.json",
    "storage/text.py",
)

# The repository's root `__init__.py`, which a test holds equal to this.
ENTRY = """\
# What Towhee's hub and operator folder execute: `ops.video_text_embedding.mdmmt`.
#
# Towhee compares nothing that it fetches with any hash, and keeps what was cut short on the way. So
# where there is a MANIFEST.json (a clone has none), each file is compared with it before the
# package is imported, which a cut could turn into a SyntaxError or into other vectors.
#
# This file itself is so small that it arrives whole or empty, as a rule. Empty, it has no `mdmmt`,
# and Towhee executes mdmmt.py instead, which tells. So does a file cut up here, above all code.
#
# The package is imported relatively, since there it is not installed. That binds the name `mdmmt`
# twice: first to the sub-package, and then, as must be, to the factory.

from hashlib import sha256
from json import loads
from pathlib import Path

HERE = Path(__file__).parent
file = HERE / "MANIFEST.json"
if file.exists():
    try:
        for name, digest in loads(file.read_bytes()).items():
            file = HERE / name
            if sha256(file.read_bytes()).hexdigest() != digest:
                raise ValueError("not as published")
    except (OSError, ValueError) as error:
        cached = HERE.parents[1] if HERE.parent.name == "versions" else HERE
        raise RuntimeError(
            f"{file} is cut short: save weights of yours, delete {cached}, try again"
        ) from error

from .mdmmt.operator import MDMMT, mdmmt  # noqa: E402

__all__ = ["MDMMT", "mdmmt"]
"""

# What Towhee executes when the entry has no `mdmmt`: 1.1.3 after it, 0.9 before it, and in vain.
STAND_IN = """\
# Towhee executes this when __init__.py was cut short and has no `mdmmt`.

from pathlib import Path

HERE = Path(__file__).parent
cached = HERE.parents[1] if HERE.parent.name == "versions" else HERE
raise RuntimeError(
    f"{HERE / '__init__.py'} is cut short: save weights of yours, delete {cached}, try again"
)
"""


def install_operator() -> Path:
    """Put the operator where this user's Towhee looks for it, whole or not at all.

    Returns:
        The folder, which `ops.video_text_embedding.mdmmt` finds from now on without an import.

    Raises:
        InputError: see `write_operator_folder`.
        OSError: the folder cannot be written.
    """
    try:
        from towhee.hub.cache_manager import get_local_dir
        from towhee.hub.downloader import repo_tag_path
    except ImportError:  # Towhee 0.9
        from towhee.hub.file_manager import FileManagerConfig

        folder = FileManagerConfig().default_cache / "operators" / AUTHOR / REPOSITORY / TAG
    else:
        folder = repo_tag_path(Path(get_local_dir()) / "operators" / AUTHOR / REPOSITORY, TAG)
    write_operator_folder(folder)
    return folder


def write_operator_folder(out: str | os.PathLike[str]) -> None:
    """Write exactly the files that the operator needs, as Towhee's hub should hold them.

    The folder is built beside `out` and appears whole or not at all. An operator folder that is
    there is replaced, be it of files or of the hub's symbolic links, and keeps its `weights/`.

    Raises:
        InputError: `out` is there and is or holds something other than an operator, or cannot be
            written, or the requirements are not known.
        OSError: the disk fails, or is full; what was there still is.
    """
    out = Path(out).absolute()
    strangers = next(_strangers(out), None)
    if strangers is not None:
        raise InputError(
            f"{out} is there and was left as it is, since it is no operator folder: "
            f"replacing it would lose {strangers}"
        )
    requirements = _requirements()
    with atomic_folder(out, keep=WEIGHTS) as built:
        for file in _package_files():
            target = built / file.relative_to(PACKAGE.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        for name, content in _licences().items():
            (built / name).write_text(content, encoding="utf-8")
        (built / ENTRY_FILE).write_text(ENTRY, encoding="utf-8")
        (built / STAND_IN_FILE).write_text(STAND_IN, encoding="utf-8")
        (built / REQUIREMENTS_FILE).write_text(requirements, encoding="utf-8")
        (built / MANIFEST_FILE).write_text(_manifest(built), encoding="utf-8")


def _package_files() -> Iterator[Path]:
    """The files of this package that the operator needs."""
    left_out = [PACKAGE / name for name in LEFT_OUT]
    for folder, folders, files in os.walk(PACKAGE):
        folders[:] = [name for name in folders if name != CACHES and not name.startswith(".")]
        for name in files:
            file = Path(folder, name)
            if file.suffix != ".pyc" and not name.startswith(".") and file not in left_out:
                yield file


def _manifest(folder: Path) -> str:
    """The content of the manifest of all files in a folder."""
    hashes = {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    return json.dumps(hashes, indent=1) + "\n"


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


def _licences() -> dict[str, str]:
    """The licence and the lineage, which go with every copy: the clone's, or what pip installed."""
    found = {}
    for name in LICENCE_FILES:
        file = PACKAGE.parent / name
        if file.is_file() and (PACKAGE.parent / REQUIREMENTS_FILE).is_file():
            found[name] = file.read_text(encoding="utf-8")
        else:
            content = metadata.distribution(REPOSITORY).read_text(f"licenses/{name}")
            if content is not None:
                found[name] = content
    return found


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

"""The items of a large run: what a folder, a list, a table or an object store holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from ..errors import InputError
from ..features.files import SUFFIX, VIDEO_SUFFIXES
from ..features.listing import find_videos_or_features
from ..storage.files import check_file
from ..storage.object_store import Address, Store, is_address, local_copy
from .texts import STDIN, TABLES, read_texts

PATH_COLUMN = "path"  # of a table of videos, unless another one is named
LISTS = (".txt", *TABLES)  # suffixes of files that name items

Kind = Literal["path", "text"]


class Items(NamedTuple):
    """The items of a run, each once."""

    kind: Kind
    names: list[str]  # texts; or absolute paths, and addresses in object stores
    root: str = ""  # the folder or prefix that holds all of them; "": there is none
    options: str = ""  # of the object store, see `Store`


def find_items(source: str, column: str | None = None) -> Items:
    """Find the videos and feature files that a source stands for. Equal ones count once.

    Args:
        source: a folder, or a prefix of an object store (see `Store`), which stands for the videos
            in it, or for its feature files if it has no video; or a list of items, one a line of
            a .txt, or in a column of a .csv, .tsv, .jsonl or .parquet; or one video. Relative paths
            of a list count from the current folder.
        column: of the table, which holds the items. None: 'path'.

    Raises:
        InputError: there is no such source, it cannot be read, or it holds no item.
        MissingDependency: a package that reads it is not installed.
    """
    suffix = PurePosixPath(source.partition("?")[0] if is_address(source) else source).suffix
    is_list = suffix in LISTS and not os.path.isdir(source)
    if column is not None and suffix not in TABLES:
        raise InputError(
            f"--column is {column!r} and {source!r} is no table, expected {', '.join(TABLES)}"
        )
    if is_list:
        place, _, options = source.partition("?") if is_address(source) else (source, "", "")
        with local_copy(place, options) as file:
            column = column or (PATH_COLUMN if suffix in TABLES else None)
            paths = _listed(str(file), column)
        return Items("path", _distinct(map(_absolute, paths)), options=options)
    if is_address(source):
        return _in_store(source)
    if not os.path.isdir(source):
        check_file(source, "a folder, a list, a video file or a feature file")
    paths = find_videos_or_features([source])
    root = os.path.abspath(source) if os.path.isdir(source) else ""
    return Items("path", _distinct(map(os.path.abspath, paths)), root)


def find_texts(file: str, column: str | None = None) -> Items:
    """Find the texts in a file. Equal ones count once.

    Args:
        file: one text a line of a .txt, or a table, see `find_items`.
        column: of the table, which holds the texts. None: 'text'.

    Raises:
        InputError: the file cannot be read, or is not on this machine.
        MissingDependency: a package that reads it is not installed.
    """
    if Path(file) == STDIN or is_address(file):
        raise InputError(f"the file of texts is {file!r}, expected a file on this machine")
    return Items("text", _distinct(_listed(file, column)))


def item_id(name: str) -> str:
    """The id of an item, under which an index keeps the windows of a file too."""
    return hashlib.sha256(encode(name)).hexdigest()[:40]


def encode(name: str) -> bytes:
    """The bytes of a name, of a path that is no UTF-8 too."""
    return name.encode(errors="surrogatepass")


def decode(name: bytes) -> str:
    """The name whose bytes these are."""
    return name.decode(errors="surrogatepass")


def feature_file_of(name: str, root: str) -> str:
    """The path of the feature file of a video, relative to a folder of feature files."""
    relative = name.removeprefix(root.rstrip("/") + "/") if root else name
    if (address := Address.parse(relative)) is not None:
        relative = f"{address.bucket}/{address.key}"
    return relative.lstrip("/") + SUFFIX


def _in_store(source: str) -> Items:
    store = Store(source)
    names = store.list()
    chosen = [name for name in names if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES]
    chosen = chosen or [name for name in names if name.endswith(SUFFIX)]
    if not chosen:
        raise InputError(
            f"there is no video and no feature file below {store.place!r}, expected some whose "
            f"names end in {', '.join(VIDEO_SUFFIXES)} or {SUFFIX}"
        )
    root = store.place.rstrip("/")
    return Items("path", [f"{root}/{name}" for name in chosen], root, store.options)


def _listed(source: str, column: str | None) -> list[str]:
    """The cells of a list or table."""
    portions = read_texts(Path(source), column)
    return [placed.text for portion in portions for placed in portion]


def _absolute(name: str) -> str:
    name = name.strip()
    return name if not name or is_address(name) else os.path.abspath(name)


def _distinct(names: Sequence[str] | map[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.strip()]

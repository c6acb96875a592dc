"""A folder, or a prefix of an object store, whose files are listed, read and written whole.

pyarrow speaks to the object stores: S3 (and what speaks as S3 does), Google Cloud Storage and
Azure. Those of Google and Azure were never tried.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import InputError, MissingDependency
from .files import atomic_file, visible_files

SCHEMES = {"s3": "s3", "gs": "gs", "az": "abfs"}  # of addresses -> as pyarrow spells them
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?]*)/?(.*)", re.DOTALL)
EXTRA = "ray"  # which installs pyarrow
BLOCK_SIZE = 1 << 20  # bytes copied at once
REQUEST = re.compile(r" \(Request ID: [^)]*\)")  # is of no use to a reader


class Address(NamedTuple):
    """The address of a file in an object store."""

    scheme: str
    bucket: str
    key: str  # as the store has it, without an escape

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> Address | None:
        """The parts of an address; None for a path."""
        found = ADDRESS.fullmatch(text)
        return None if found is None else cls(*found.groups())


def is_address(place: str) -> bool:
    """Whether a text is the address of something in an object store, and no path."""
    return Address.parse(place) is not None


class Store:
    """The files below a folder, or below a prefix of an object store.

    Args:
        place: a folder, or `s3://BUCKET/PREFIX`, `gs://…`, `az://…`. Options of pyarrow may follow
            a question mark, such as `s3://films/new?endpoint_override=localhost:9000&scheme=http`.

    Raises:
        InputError: no store is at this address, or pyarrow does not know one of the options.
        MissingDependency: pyarrow is not installed.
    """

    def __init__(self, place: str) -> None:
        self.place, _, self.options = place.partition("?") if is_address(place) else (place, "", "")
        self._address = Address.parse(self.place)
        if self._address is None:
            self._files, self._root = _local_files(), str(Path(place).absolute())
            return
        scheme, bucket, key = self._address
        if scheme not in SCHEMES or not bucket:
            raise InputError(
                f"the address is {place!r}, expected a folder, or one of "
                f"{', '.join(f'{name}://BUCKET/PREFIX' for name in SCHEMES)}"
            )
        self._files, root = _remote_files(scheme, bucket, self.options)
        self._root = f"{root}/{key}".rstrip("/")  # a path of Python would make a//b into a/b

    def __str__(self) -> str:
        return self.place

    def list(self) -> list[str]:
        """The files below the place, however deep, without hidden ones, in order.

        Returns:
            Names for `read`, relative to the place.

        Raises:
            InputError: the place cannot be listed.
        """
        if self._address is None:
            folder = Path(self._root)
            return sorted(str(file.relative_to(folder)) for file in visible_files(folder))
        from pyarrow.fs import FileSelector, FileType

        with self._errors("be listed"):
            found = self._files.get_file_info(FileSelector(self._root, recursive=True))
        names = [info.path[len(self._root) + 1 :] for info in found if info.type == FileType.File]
        return sorted(n for n in names if not any(p.startswith(".") for p in n.split("/")))

    def exists(self) -> bool:
        """Whether the folder is there, or anything below the prefix.

        Raises:
            InputError: the store does not tell.
        """
        from pyarrow.fs import FileType

        with self._errors("be read"):
            return bool(self._files.get_file_info(self._root).type != FileType.NotFound)

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """Open a file to read parts of it.

        Raises:
            InputError: it cannot be read.
        """
        with self._errors("be read", name), self._files.open_input_file(self._path(name)) as file:
            yield file

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none.

        Raises:
            InputError: it cannot be read.
        """
        try:
            with self.open(name) as file:
                return bytes(file.read())
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def write(self, name: str, content: bytes) -> None:
        """Write a file. It appears whole or not at all, and replaces one of the same name.

        Raises:
            InputError: it cannot be written.
        """
        if self._address is None:
            path = Path(self._path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as part:
                part.write_bytes(content)
            return
        # A store shows an object once its last byte has come.
        with (
            self._errors("be written", name),
            self._files.open_output_stream(self._path(name)) as file,
        ):
            file.write(content)

    @contextmanager
    def _errors(self, what: str, name: str = "") -> Iterator[None]:
        place = f"{self.place.rstrip('/')}/{name}" if name else self.place
        try:
            yield
        except (OSError, ValueError) as error:  # those of pyarrow are of these types
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{place!r} cannot {what}: {_cause(error)}; expected that it exists, that the "
                "store answers, and that its keys give the right to do so"
            ) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


@contextmanager
def local_copy(item: str, options: str = "") -> Iterator[Path]:
    """Yield the path of a file on this machine: the file itself, or a copy out of an object store.

    Args:
        item: a path or an address. A copy is removed at the end.
        options: of pyarrow for the address, see `Store`.

    Raises:
        InputError: the store does not give the file.
    """
    address = Address.parse(item)
    if address is None:
        yield Path(item)
        return
    # The key alone may hold a question mark.
    bucket = f"{address.scheme}://{address.bucket}"
    store = Store(f"{bucket}?{options}" if options else bucket)
    with tempfile.TemporaryDirectory(prefix="mdmmt-") as scratch:
        copy = Path(scratch, f"copy{PurePosixPath(address.key).suffix}")
        with store.open(address.key) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, BLOCK_SIZE)
        yield copy


def _cause(error: BaseException) -> str:
    return REQUEST.sub("", str(error)).strip().rstrip(".")


def import_filesystems() -> Any:
    """Import pyarrow's module of file systems.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        from pyarrow import fs
    except ImportError as error:
        raise MissingDependency("an object store", EXTRA) from error
    return fs


def _local_files() -> Any:
    return import_filesystems().LocalFileSystem()


@functools.cache
def _remote_files(scheme: str, bucket: str, options: str) -> tuple[Any, str]:
    """The file system of a bucket, and the path of the bucket in it."""
    uri = f"{SCHEMES[scheme]}://{bucket}" + (f"?{options}" if options else "")
    try:
        return import_filesystems().FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:
        raise InputError(
            f"there is no object store at '{scheme}://{bucket}': {_cause(error)}; expected the "
            "name of a bucket, and options of pyarrow after a question mark if any"
        ) from error

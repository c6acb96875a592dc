"""The output of a large run: Parquet files, its parts, in a folder or an object store.

A part holds all rows of some items, and appears whole or not at all. So the rows that are there
tell which items are done. `_batch.json` beside the parts holds the settings of the run, which are
the same for all parts, and a mark of the last command that began to write.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..storage.object_store import Store
from ..weights.identity import Identity
from .embedding_files import import_parquet
from .sources import Kind

SETTINGS_FILE = "_batch.json"  # readers of Parquet leave out what begins with _
PART = "part-{}.parquet"


class Row(NamedTuple):
    """A text, a window of a video, or an item that failed."""

    id: str  # the item's, and the number of the row among those of the item
    name: str  # the text, or the path
    vector: NDArray[np.float32] | None = None
    span_s: tuple[float, float] | None = None
    features: str | None = None  # the feature file that holds the features of the video
    sha256: str | None = None  # of the file
    versions: Mapping[str, str] | None = None  # of the experts
    clock: str | None = None  # of the times
    error: str | None = None


class Parts:
    """The parts in one place.

    Args:
        out: a folder, or an address, see `Store`.
    """

    def __init__(self, out: str) -> None:
        self.out = out
        self._parquet = import_parquet()
        self._store = Store(out)

    def begin(self, settings: Mapping[str, Any]) -> str:
        """Begin to write; a command that began before can write no longer.

        Args:
            settings: of the run.

        Returns:
            The mark with which parts are written.

        Raises:
            InputError: the place holds parts with other settings, or cannot be written.
        """
        content = self._store.read(SETTINGS_FILE)
        if content is None:
            if self._names():
                raise InputError(
                    f"{str(self._store)!r} holds parts and no {SETTINGS_FILE}, which tells of what "
                    "model they are; expected an empty place, or all files of an earlier run"
                )
        else:
            self._check_same(self._parse(content)["settings"], settings)
        mark = secrets.token_hex(8)
        text = json.dumps({"settings": settings, "mark": mark}, indent=1)
        self._store.write(SETTINGS_FILE, text.encode())
        return mark

    def settings(self) -> dict[str, Any]:
        """The settings of the run that has written here.

        Raises:
            InputError: no run has written here.
        """
        content = self._store.read(SETTINGS_FILE)
        if content is None:
            raise InputError(
                f"there is no {SETTINGS_FILE} in {str(self._store)!r}, expected the output of "
                "`mdmmt batch`"
            )
        return self._parse(content)["settings"]

    def done(self) -> dict[str, bool]:
        """The ids of the items that have their rows, and whether each has failed."""
        done: dict[str, bool] = {}
        for name in self._names():
            table = self._read(name, ["id", "error"])
            ids, failed = table["id"].to_pylist(), table["error"].is_valid().to_pylist()
            done |= {item_of(id_): one for id_, one in zip(ids, failed, strict=True)}
        return done

    def write(self, mark: str, rows: Sequence[Row], kind: Kind, model: str, dim: int) -> None:
        """Write all rows of some items as one part, in place of a part of the same items.

        Args:
            mark: from `begin`.
            kind: what the name of a row is.
            model: the hash of the model's weights.
            dim: the numbers in a vector.

        Raises:
            InputError: another command has begun since, this place is not that of the command, or
                it cannot be written.
        """
        self.check_mark(mark)
        items = dict.fromkeys(item_of(row.id) for row in rows)
        digest = hashlib.sha256("".join(items).encode()).hexdigest()[:32]
        self._store.write(PART.format(digest), self._bytes(_table(rows, kind, model, dim)))

    def check_mark(self, mark: str) -> None:
        """Refuse to go on if this place is not the one in which `begin` has given this mark.

        Raises:
            InputError: see `write`.
        """
        content = self._store.read(SETTINGS_FILE)
        if content is None:
            raise InputError(
                f"{str(self._store)!r} does not hold the {SETTINGS_FILE} of this run; expected a "
                "folder that all machines of the cluster share, or an object store"
            )
        if self._parse(content)["mark"] != mark:
            raise InputError(
                f"another `mdmmt batch` has begun to write into {str(self._store)!r}; expected "
                "one at a time"
            )

    def forget_errors(self) -> None:
        """Remove the rows of items that failed, so that these are done again."""
        from pyarrow import compute

        for name in self._names():
            errors = self._read(name, ["error"])["error"]
            if errors.null_count == len(errors):
                continue
            table = self._read(name)
            self._store.write(name, self._bytes(table.filter(compute.is_null(table["error"]))))

    def tables(self) -> Iterator[Any]:
        """Yield each part as a table of pyarrow."""
        return (self._read(name) for name in self._names())

    def _names(self) -> list[str]:
        start, end = PART.split("{}")
        names = self._store.list() if self._store.exists() else []
        return [name for name in names if name.startswith(start) and name.endswith(end)]

    def _read(self, name: str, columns: Iterable[str] | None = None) -> Any:
        with self._store.open(name) as file:
            try:
                return self._parquet.read_table(file, columns=columns)
            except (OSError, ValueError, KeyError) as error:  # those of pyarrow are of these types
                raise InputError(
                    f"{name!r} in {str(self._store)!r} is no part of a run: {error}; expected what "
                    "`mdmmt batch` has written, so remove it to have its items done again"
                ) from error

    def _bytes(self, table: Any) -> bytes:
        import pyarrow

        buffer = pyarrow.BufferOutputStream()
        self._parquet.write_table(table, buffer)
        return bytes(buffer.getvalue())

    def _parse(self, content: bytes) -> dict[str, Any]:
        try:
            stored = json.loads(content)
            Identity(**stored["settings"]["model"])
            return {"settings": stored["settings"], "mark": str(stored["mark"])}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the {SETTINGS_FILE} in {str(self._store)!r} is damaged, expected what "
                "`mdmmt batch` has written"
            ) from error

    def _check_same(self, stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            if stored.get(name) == value:
                continue
            there, here = stored.get(name), value
            if name == "model":
                there, here = Identity(**stored[name]), Identity(**value)
            raise InputError(
                f"{str(self._store)!r} holds rows whose {name} is {there}, and {here} is asked "
                "for; expected the same, or another place for --out"
            )


def item_of(row_id: str) -> str:
    """The id of the item to which a row belongs."""
    return row_id.rpartition("-")[0]


def _table(rows: Sequence[Row], kind: Kind, model: str, dim: int) -> Any:
    import pyarrow as pa

    spans = [row.span_s or (None, None) for row in rows]
    text = pa.string()
    columns = {
        "id": pa.array([row.id for row in rows], text),
        kind: pa.array([_printable(row.name) for row in rows], text),
        "start_s": pa.array([start for start, _ in spans], pa.float64()),
        "end_s": pa.array([end for _, end in spans], pa.float64()),
        "vector": _vectors([row.vector for row in rows], dim),
        "features": pa.array([row.features and _printable(row.features) for row in rows], text),
        "sha256": pa.array([row.sha256 for row in rows], text),
        "model": pa.array([model] * len(rows), text),
        "versions": pa.array(
            [None if row.versions is None else json.dumps(dict(row.versions)) for row in rows], text
        ),
        "clock": pa.array([row.clock for row in rows], text),
        "error": pa.array([row.error and _printable(row.error) for row in rows], text),
    }
    return pa.table(columns)


def _vectors(vectors: Sequence[NDArray[np.float32] | None], dim: int) -> Any:
    import pyarrow as pa

    missing = np.array([vector is None for vector in vectors], dtype=bool)
    zeros = np.zeros(dim, dtype=np.float32)
    matrix = np.stack([zeros if vector is None else vector for vector in vectors])
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), dim, mask=pa.array(missing))


def _printable(text: str) -> str:
    """Escape the bytes of a path that are no UTF-8, as Parquet holds text alone."""
    return text.encode(errors="backslashreplace").decode()

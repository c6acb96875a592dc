"""Files of embeddings. Each format names its rows, a .npy by a second file beside it.

The name of a row is a `text` or a `path`; a window also has `start_s` and `end_s`. These are keys,
columns or arrays beside the `embedding`, whatever the format.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependency
from ..storage.files import atomic_file, check_writable
from .embed import EmbeddingRow

NAMES_SUFFIX = ".names.jsonl"  # of the file beside a .npy
EMBEDDING = "embedding"
ROWS_AT_ONCE = 4_096  # written together; 25 MB for the released model


def names_file(out: Path) -> Path:
    """The file that names the rows of a .npy: `videos.names.jsonl` beside `videos.npy`."""
    return out.with_suffix(NAMES_SUFFIX)


def check_output(out: Path) -> None:
    """Refuse a file of embeddings that cannot be written, before any work is done for it.

    Raises:
        InputError: naming the file.
        MissingDependency: a .parquet needs pyarrow.
    """
    check_writable(out)
    if out.suffix == ".npy":
        check_writable(names_file(out))
    if out.suffix == ".parquet":
        import_parquet()


def import_parquet() -> ModuleType:
    """Import pyarrow's module for Parquet.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency("a .parquet file", "parquet") from error
    return parquet


def json_line(kind: str, row: EmbeddingRow) -> str:
    """A row as a line of JSON, with its embedding if it has one."""
    embedding = {} if row.vector is None else {EMBEDDING: row.vector.tolist()}
    return json.dumps(_describe(kind, row) | embedding) + "\n"


@contextmanager
def embeddings_file(out: Path, kind: str) -> Iterator[Callable[[EmbeddingRow], None]]:
    """Write a file of embeddings in the format of its suffix. It appears whole or not at all.

    Row i of a .npy and line i of its names belong to the row that was added as number i. The row of
    an error is NaN, and its line has the `error`. The other formats leave errors out. Without any
    embedding no file is written.

    A .jsonl, .csv or .parquet is written as its rows come, and the others at the end, since their
    first bytes tell how many rows there are.

    Args:
        out: see `FORMATS`.
        kind: 'text' or 'path', what the name of a row is.

    Yields:
        A function that adds a row.
    """
    waiting: list[EmbeddingRow] = []
    with ExitStack() as stack:
        write: Callable[[Sequence[EmbeddingRow]], None] | None = None

        def flush() -> None:
            nonlocal write
            if not any(row.vector is not None for row in waiting):
                return
            if write is None:
                part = stack.enter_context(atomic_file(out))
                write = stack.enter_context(WRITERS[out.suffix](part, out, kind))
            write(waiting)
            waiting.clear()

        def add(row: EmbeddingRow) -> None:
            waiting.append(row)
            if out.suffix in STREAMED and len(waiting) >= ROWS_AT_ONCE:
                flush()

        yield add
        flush()


def _describe(kind: str, row: EmbeddingRow) -> dict[str, Any]:
    span = {} if row.span_s is None else {"start_s": row.span_s[0], "end_s": row.span_s[1]}
    error = {} if row.error is None else {"error": row.error}
    return {kind: row.name, **span, **error}


def _embedded(rows: Sequence[EmbeddingRow]) -> list[EmbeddingRow]:
    return [row for row in rows if row.vector is not None]


def _columns(kind: str, rows: Sequence[EmbeddingRow]) -> dict[str, list[Any]]:
    records = [_describe(kind, row) for row in rows]
    return {key: [record[key] for record in records] for key in records[0]}


def _matrix(rows: Sequence[EmbeddingRow]) -> NDArray[np.float32]:
    """The embeddings (N, D) float32; that of an error is NaN."""
    width = next(len(row.vector) for row in rows if row.vector is not None)
    nan = np.full(width, np.nan, dtype=np.float32)
    return np.stack([nan if row.vector is None else row.vector for row in rows])


Writer = Iterator[Callable[[Sequence[EmbeddingRow]], None]]  # yields what writes further rows


@contextmanager
def _npy(part: Path, out: Path, kind: str) -> Writer:
    def write(rows: Sequence[EmbeddingRow]) -> None:
        with part.open("wb") as file:
            np.save(file, _matrix(rows))
        with atomic_file(names_file(out)) as names:
            lines = (json_line(kind, row._replace(vector=None)) for row in rows)
            names.write_text("".join(lines), encoding="ascii", newline="\n")

    yield write


@contextmanager
def _npz(part: Path, out: Path, kind: str) -> Writer:
    def write(rows: Sequence[EmbeddingRow]) -> None:
        good = _embedded(rows)
        arrays: dict[str, Any] = {**_columns(kind, good), EMBEDDING: _matrix(good)}
        with part.open("wb") as file:
            np.savez(file, **arrays)

    yield write


@contextmanager
def _json_lines(part: Path, out: Path, kind: str) -> Writer:
    with part.open("w", encoding="ascii", newline="\n") as file:
        yield lambda rows: file.writelines(json_line(kind, row) for row in _embedded(rows))


@contextmanager
def _csv(part: Path, out: Path, kind: str) -> Writer:
    with part.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")

        def write(rows: Sequence[EmbeddingRow]) -> None:
            good = _embedded(rows)
            vectors = _matrix(good)
            if file.tell() == 0:
                numbers = (f"{EMBEDDING}_{index}" for index in range(vectors.shape[1]))
                lines.writerow([*_describe(kind, good[0]), *numbers])
            for row, vector in zip(good, vectors.tolist(), strict=True):
                values = map(_printable, _describe(kind, row).values())
                lines.writerow([*values, *(f"{number:.9g}" for number in vector)])  # 9 tell float32

        yield write


@contextmanager
def _parquet(part: Path, out: Path, kind: str) -> Writer:
    import pyarrow

    with ExitStack() as stack:
        file: Any = None

        def write(rows: Sequence[EmbeddingRow]) -> None:
            nonlocal file
            good = _embedded(rows)
            vectors = _matrix(good)
            columns = {
                name: pyarrow.array([_printable(value) for value in values])
                for name, values in _columns(kind, good).items()
            }
            columns[EMBEDDING] = pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(vectors.ravel()), vectors.shape[1]
            )
            table = pyarrow.table(columns)
            if file is None:
                file = stack.enter_context(import_parquet().ParquetWriter(part, table.schema))
            file.write_table(table)  # as a row group of its own

        yield write


WRITERS = {
    ".npy": _npy,
    ".npz": _npz,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
FORMATS = tuple(WRITERS)
STREAMED = (".jsonl", ".csv", ".parquet")


def _printable(value: Any) -> Any:
    """Escape the bytes of a path that are no UTF-8, as `\\udcff`: these formats hold text alone."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    return value

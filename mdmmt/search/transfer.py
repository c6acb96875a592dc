"""Moves an index: all of it as one file, and an index of such a file.

The file is Parquet or JSON lines. Each row is a segment, with the fields that Milvus keeps, and the
rows of a video follow each other. The header tells the model. It is metadata of the Parquet file,
or the first line of JSON lines.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..batch.embedding_files import import_parquet
from ..errors import InputError, describe_error
from ..model import Segments
from ..storage.files import atomic_file, check_file, check_writable
from ..storage.text import counted, parse_json
from ..weights.identity import Identity
from .checks import (
    checked_metadata,
    checked_path,
    checked_spans,
    checked_storable_text,
    checked_vectors,
)
from .index import ROWS_AT_ONCE, ROWS_READ_AT_ONCE, FileEntry, Index, segment_id
from .milvus import FIELDS, is_local, remove_local_database
from .sources import MixtureCheck, Source

HEADER = "mdmmt.index"  # the key of the header, in either format
VERSION = 1  # of the header and the fields
VECTOR = "vector"
KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {  # of fields, with words for a message
    "id": (str, "a text"),
    "path": (str, "a text"),
    "start_s": ((int, float), "a number"),
    "end_s": ((int, float), "a number"),
    "source": (str, "a text"),
    "segments": (int, "a whole number"),
    "metadata": (dict, "a JSON object"),
}
MAX_LINE_BYTES = 16_000_000  # of JSON lines, some hundred times a row of the released model


class Transferred(NamedTuple):
    """How much an export or an import has moved."""

    files: int
    segments: int


class Header(NamedTuple):
    """What a file tells of its index."""

    model: Identity
    weights: str | None  # see `Index`
    experts: list[str] | None
    sources: list[dict[str, Any]]  # the versions of the experts and the clocks that files are of
    deleted: list[str]  # see `Index.deleted`
    segments: int  # the number of rows, by which a file that was cut is told

    def as_dict(self) -> dict[str, Any]:
        return {"version": VERSION, **self._asdict(), "model": self.model._asdict()}

    @classmethod
    def parse(cls, value: Any, where: str) -> Header:
        """Check a header.

        Raises:
            InputError: another program or version has written it.
        """
        try:
            if value.pop("version") != VERSION:
                raise ValueError
            header = cls(**value)._replace(model=Identity(**value["model"]))
            marks, experts = header.deleted, header.experts or []
            if not (isinstance(header.model.dim, int) and isinstance(header.segments, int)):
                raise ValueError
            texts = (*header.model[:2], header.weights or "", *marks, *experts)
            if not all(isinstance(text, str) for text in texts):
                raise ValueError
        except (AttributeError, LookupError, TypeError, ValueError):
            raise InputError(
                f"{where}: the model is not told, or in the words of another version of mdmmt; "
                "expected a file that `mdmmt index export` has written"
            ) from None
        return header


class Row(NamedTuple):
    """A row of a file, unchecked. The other fields are those of Milvus."""

    where: str  # for error messages
    id: Any
    path: Any
    start_s: Any
    end_s: Any
    source: Any
    segments: Any
    metadata: Any
    vector: Any


def check_output(file: Path) -> None:
    """Refuse a file that cannot be written, before any work is done for it.

    Raises:
        InputError: naming the file.
        MissingDependency: a .parquet needs pyarrow.
    """
    _check_name(file)
    check_writable(file)
    if file.suffix == ".parquet":
        import_parquet()


def _check_name(file: Path) -> None:
    if file.suffix not in FORMATS:
        raise InputError(f"{str(file)!r}: expected a name that ends in {' or '.join(FORMATS)}")


def export_index(index: Index, out: str | os.PathLike[str]) -> Transferred:
    """Write an index to a file, which appears whole or not at all.

    Args:
        out: a name that ends in .parquet or .jsonl.

    Raises:
        InputError: the file cannot be written, or another process has changed the index meanwhile.
        MissingDependency: a .parquet needs pyarrow.
    """
    path = Path(out)
    check_output(path)
    kinds: dict[str, dict[str, Any]] = {}
    for _, text in index.sources():
        if (source := Source.parse(text)) is not None:
            kind = {"versions": source.versions, "clock": source.clock}
            kinds[json.dumps(kind, sort_keys=True)] = kind
    experts = None if index.experts is None else list(index.experts)
    files = index.files()
    segments = sum(file.segments for file in files)
    header = Header(
        index.model, index.weights, experts, list(kinds.values()), sorted(index.deleted), segments
    )
    with atomic_file(path) as part, FORMATS[path.suffix].write(part, header) as write:
        for entries in _batches(index.entries(files), ROWS_READ_AT_ONCE):
            write(entries)
    return Transferred(len(files), segments)


def import_index(file: str | os.PathLike[str], uri: str | os.PathLike[str]) -> Transferred:
    """Add all that `export_index` has written to an index, which is made if there is none.

    A file that the index has already is replaced. So an import that was stopped is run again.

    Args:
        uri: see `Index.open`.

    Raises:
        InputError: the file is damaged or of another model than the index, or see `Index.open`. All
            files before the damage are in the index.
        MissingDependency: a .parquet needs pyarrow.
    """
    path = Path(file)
    _check_name(path)
    check_file(path, "a file that `mdmmt index export` has written")
    uri = checked_path(uri, "uri")
    database = Path(uri).expanduser()
    is_new = is_local(uri) and not database.exists()
    files = segments = 0
    try:
        with (
            FORMATS[path.suffix].read(path) as (header, rows),
            Index.open(uri, header.model) as index,
        ):
            mixture = MixtureCheck(index)
            for entries in _batches(_entries(rows, header.model.dim), ROWS_AT_ONCE):
                for entry in entries:
                    if (source := Source.parse(entry.source)) is not None:
                        mixture.check(entry.path, source)
                index.add_files(entries)
                files += len(entries)
                segments += sum(len(entry.segments.vectors) for entry in entries)
            if segments != header.segments:
                raise InputError(
                    f"{path} has {counted(segments, 'segment')}, now in the index, and its header "
                    f"tells of {header.segments}; expected as many, so export the index again"
                )
            index.keep_origin(header.weights, header.experts)
            index.keep_out(header.deleted)
    except BaseException:
        if is_new and files == 0 and database.exists():
            remove_local_database(database)
        raise
    return Transferred(files, segments)


def _batches(entries: Iterable[FileEntry], rows: int) -> Iterator[list[FileEntry]]:
    """Put files together until they have so many rows."""
    waiting: list[FileEntry] = []
    count = 0
    for entry in entries:
        if waiting and count + len(entry.segments.vectors) > rows:
            yield waiting
            waiting, count = [], 0
        waiting.append(entry)
        count += len(entry.segments.vectors)
    if waiting:
        yield waiting


def _entries(rows: Iterable[Row], dim: int) -> Iterator[FileEntry]:
    """Put the rows of each file together.

    Raises:
        InputError: naming the row that does not belong where it is, or cannot be stored.
    """
    of_file: list[Row] = []
    for row in rows:
        _check_row(row)
        if of_file and len(of_file) == of_file[0].segments:
            yield _entry(of_file, dim)
            of_file = []
        first = of_file[0] if of_file else row
        facts, expected = (
            (one.path, one.source, one.segments, one.metadata) for one in (row, first)
        )
        if row.id != segment_id(first.path, len(of_file)) or facts != expected:
            raise InputError(
                f"{row.where}: this is not segment {len(of_file)} of {first.path!r}, which has "
                f"{first.segments}; expected the rows as `mdmmt index export` writes them"
            )
        of_file.append(row)
    if of_file:
        if len(of_file) != of_file[0].segments:
            raise InputError(
                f"{of_file[-1].where}: the file ends after {len(of_file)} of "
                f"{counted(of_file[0].segments, 'segment')} of {of_file[0].path!r}; expected all"
            )
        yield _entry(of_file, dim)


def _check_row(row: Row) -> None:
    for name, (kind, words) in KINDS.items():
        value = getattr(row, name)
        if isinstance(value, bool) or not isinstance(value, kind):
            raise InputError(f"{row.where}: {name} is {value!r:.80}, expected {words}")
    if row.segments < 1:
        raise InputError(f"{row.where}: segments is {row.segments}, expected at least 1")


def _entry(rows: Sequence[Row], dim: int) -> FileEntry:
    first = rows[0]
    vectors = []
    for row in rows:
        try:
            vectors.append(checked_vectors(row.vector, dim, "vector"))
            checked_spans([(row.start_s, row.end_s)], 1)
            if row is first:
                checked_path(first.path)
                checked_storable_text(first.source, "source")
                checked_metadata(first.metadata)
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from error
    spans_s = np.array([(row.start_s, row.end_s) for row in rows], dtype=np.float64)
    segments = Segments(np.concatenate(vectors), spans_s)
    return FileEntry(first.path, segments, first.source, first.metadata)


def _records(entry: FileEntry) -> Iterator[dict[str, Any]]:
    """The rows of a file, without their vectors."""
    for i, (start_s, end_s) in enumerate(entry.segments.spans_s.tolist()):
        yield {
            "id": segment_id(entry.path, i),
            "path": entry.path,
            "start_s": start_s,
            "end_s": end_s,
            "source": entry.source,
            "segments": len(entry.segments.vectors),
            "metadata": entry.metadata,
        }


Writing = Iterator[Callable[[Sequence[FileEntry]], None]]  # yields what writes files
Reading = Iterator[tuple[Header, Iterator[Row]]]


@contextmanager
def _write_json_lines(part: Path, header: Header) -> Writing:
    with part.open("w", encoding="ascii", newline="\n") as file:
        file.write(json.dumps({HEADER: header.as_dict()}) + "\n")

        def write(entries: Sequence[FileEntry]) -> None:
            for entry in entries:
                vectors = entry.segments.vectors.tolist()
                for record, vector in zip(_records(entry), vectors, strict=True):
                    file.write(json.dumps(record | {VECTOR: vector}) + "\n")

        yield write


@contextmanager
def _read_json_lines(path: Path) -> Reading:
    with path.open("rb") as file:
        records = _json_records(file, path)
        where, record = next(records, (str(path), {}))
        yield Header.parse(record.get(HEADER), where), _rows_of_records(records)


def _json_records(file: BinaryIO, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number in itertools.count(1):
        line = file.readline(MAX_LINE_BYTES + 1)
        where = f"{path}, line {number}"
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            raise InputError(f"{where}: is longer than {MAX_LINE_BYTES} bytes, expected a row")
        try:
            record = parse_json(line.decode(), where)
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: is not UTF-8 text") from error
        if not isinstance(record, dict):
            raise InputError(f"{where}: {record!r:.80}, expected a JSON object")
        yield where, record


def _rows_of_records(records: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Row]:
    for where, record in records:
        _check_columns(record.keys(), where)
        yield Row(where, *(record[name] for name in FIELDS))


def _check_columns(names: Collection[str], where: str) -> None:
    missing = [name for name in FIELDS if name not in names]
    if missing:
        raise InputError(
            f"{where}: there is no {missing[0]!r}, expected all of {', '.join(FIELDS)}"
        )


@contextmanager
def _write_parquet(part: Path, header: Header) -> Writing:
    parquet = import_parquet()
    import pyarrow

    types = {
        "id": pyarrow.string(),
        "path": pyarrow.string(),
        "start_s": pyarrow.float64(),
        "end_s": pyarrow.float64(),
        "source": pyarrow.string(),
        "segments": pyarrow.int64(),
        "metadata": pyarrow.string(),  # JSON
        VECTOR: pyarrow.list_(pyarrow.float32(), header.model.dim),
    }
    schema = pyarrow.schema(types, metadata={HEADER: json.dumps(header.as_dict())})
    # A dictionary of numbers that never come twice would only take time.
    with parquet.ParquetWriter(part, schema, use_dictionary=["path", "source", "metadata"]) as file:

        def write(entries: Sequence[FileEntry]) -> None:
            records = [
                record | {"metadata": json.dumps(record["metadata"])}
                for entry in entries
                for record in _records(entry)
            ]
            columns = {name: [record[name] for record in records] for name in records[0]}
            vectors = np.concatenate([entry.segments.vectors for entry in entries])
            columns[VECTOR] = pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(vectors.ravel()), vectors.shape[1]
            )
            file.write_table(pyarrow.table(columns, schema))  # as a row group of its own

        yield write


@contextmanager
def _read_parquet(path: Path) -> Reading:
    parquet = import_parquet()
    with _parquet_errors(path), parquet.ParquetFile(path) as file:
        metadata = file.schema_arrow.metadata or {}
        header = Header.parse(
            parse_json(metadata.get(HEADER.encode(), b"{}").decode(errors="replace"), str(path)),
            str(path),
        )
        _check_columns(file.schema_arrow.names, str(path))
        yield header, _rows_of_parquet(file, path)


def _rows_of_parquet(file: Any, path: Path) -> Iterator[Row]:
    number = itertools.count(1)
    batches = file.iter_batches(ROWS_READ_AT_ONCE, columns=list(FIELDS))
    while True:
        with _parquet_errors(path):
            if (batch := next(batches, None)) is None:
                return
            columns = [batch[name].to_pylist() for name in FIELDS if name != VECTOR]
            columns.append(batch[VECTOR].to_numpy(zero_copy_only=False))
        for values in zip(*columns, strict=True):
            row = Row(f"{path}, row {next(number)}", *values)
            if isinstance(row.metadata, str):
                row = row._replace(metadata=parse_json(row.metadata, row.where))
            yield row


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    """Raise the errors of pyarrow as `InputError`."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{str(path)!r} cannot be read as Parquet ({describe_error(error)}); expected a whole "
            "file that `mdmmt index export` has written"
        ) from error


class Format(NamedTuple):
    """Writes and reads files of one suffix."""

    write: Callable[[Path, Header], AbstractContextManager[Callable[[Sequence[FileEntry]], None]]]
    read: Callable[[Path], AbstractContextManager[tuple[Header, Iterator[Row]]]]


FORMATS = {
    ".parquet": Format(_write_parquet, _read_parquet),
    ".jsonl": Format(_write_json_lines, _read_json_lines),
}

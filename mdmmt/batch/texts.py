"""Texts from a file or from stdin: one a line, or a column of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..storage.files import check_file
from ..storage.text import numbered_lines, parse_json, portions_of_stdin, read_text
from .embedding_files import import_parquet

STDIN = Path("-")
TEXT_COLUMN = "text"  # of a table, unless another one is named


class PlacedText(NamedTuple):
    """A text, and its place as messages name it."""

    text: str
    place: str


def read_texts(file: Path, column: str | None = None) -> Iterable[Sequence[PlacedText]]:
    """Read the texts of a file, in portions: a file is one, stdin gives its lines as they come.

    A blank line or an empty cell is a text too, so the text of row i is text i. Blank lines at the
    end of a file, and between JSON lines, do not count.

    Args:
        file: .txt or without a suffix, one text a line; or a table, .csv or .tsv with a header,
            .jsonl or .parquet; or `STDIN`, one text a line. All are UTF-8. Bytes of stdin that are
            not become surrogates, which no model takes, so their line alone is refused.
        column: of a table, which holds the texts. None: `TEXT_COLUMN`.

    Raises:
        InputError: the file cannot be read, is no such file, or holds no text, which of stdin is
            known at its end; a table without the column, or with a value that is no text in it; or
            a column of what is no table.
        MissingDependency: a .parquet needs pyarrow.
    """
    if file == STDIN or file.suffix in ("", ".txt"):
        if column is not None:
            raise InputError(
                f"--column is {column!r} and {_name(file)} is no table; expected "
                f"{', '.join(TABLES)}, or no --column for one text a line"
            )
        if file == STDIN:
            return _lines_of_stdin()
        texts = _lines(file)
    elif file.suffix in TABLES:
        check_file(file, "a file of texts")
        cells = TABLES[file.suffix](file, column or TEXT_COLUMN)
        texts = [PlacedText(_checked(value, place), place) for value, place in cells]
    else:
        raise InputError(
            f"the file of texts is {str(file)!r}, expected .txt (one text a line), "
            f"{', '.join(TABLES)}, or - for stdin"
        )
    if not texts:
        raise InputError(f"{_name(file)} holds no text")
    return [texts]


def _name(file: Path) -> str:
    return "stdin" if file == STDIN else str(file)


def _lines(file: Path) -> list[PlacedText]:
    lines = read_text(file).split("\n")  # splitlines() would also split within a text
    while lines and not lines[-1].strip():
        lines.pop()
    return [PlacedText(line, f"{file}, line {n}") for n, line in enumerate(lines, start=1)]


def _lines_of_stdin() -> Iterator[list[PlacedText]]:
    line: list[str] = []  # the parts that have come of it
    blank: list[PlacedText] = []  # lines that may be the last ones
    number = 0
    for portion in chain(portions_of_stdin(), "\n"):
        start, *others = portion.split("\n")
        line.append(start)
        texts: list[PlacedText] = []
        for other in others:
            number += 1
            blank.append(PlacedText("".join(line), f"{_name(STDIN)}, line {number}"))
            line = [other]
            if blank[-1].text.strip():
                texts += blank
                blank = []
        if texts:
            yield texts
    if len(blank) == number:
        raise InputError(f"{_name(STDIN)} holds no text")


Cells = Iterator[tuple[Any, str]]  # the value of each cell of the column, and its place


def _cells_of_csv(file: Path, column: str) -> Cells:
    text = io.StringIO(read_text(file), newline="")
    rows = csv.reader(text, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
    try:
        header = next(rows, [])
        _check_column(column, header, str(file))
        index = header.index(column)
        for row in rows:
            if row:  # the reader gives [] for an empty line
                yield row[index] if index < len(row) else None, f"{file}, line {rows.line_num}"
    except csv.Error as error:
        raise InputError(f"{file}, line {rows.line_num}: is not CSV ({error})") from error


def _cells_of_json_lines(file: Path, column: str) -> Cells:
    for line, place in numbered_lines(file, read_text(file)):
        record = parse_json(line, place)
        if not isinstance(record, dict):
            raise InputError(f"{place}: {line[:80]!r}, expected a JSON object")
        _check_column(column, list(record), place)
        yield record[column], place


def _cells_of_parquet(file: Path, column: str) -> Cells:
    parquet = import_parquet()
    try:
        with parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            _check_column(column, names, str(file))
            values = table.read(columns=[column]).column(column).to_pylist()
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:  # those of pyarrow are of these types
        raise InputError(f"{str(file)!r} is not a readable Parquet file: {error}") from error
    yield from ((value, f"{file}, row {n}") for n, value in enumerate(values, start=1))


TABLES: dict[str, Callable[[Path, str], Cells]] = {
    ".csv": _cells_of_csv,
    ".tsv": _cells_of_csv,
    ".jsonl": _cells_of_json_lines,
    ".parquet": _cells_of_parquet,
}


def _check_column(column: str, columns: Sequence[str], place: str) -> None:
    if list(columns).count(column) != 1:
        count = "several columns" if column in columns else "no column"
        raise InputError(
            f"{place}: there is {count} {column!r} among {_listed(columns)}; name the one that "
            "is meant with --column"
        )


def _listed(columns: Iterable[str]) -> str:
    """The first columns of a table, for a message."""
    first = [repr(name[:40]) for name in columns][:20]
    return ", ".join(first) or "none"


def _checked(value: Any, place: str) -> str:
    if value is None:  # an empty cell
        return ""
    if not isinstance(value, str):
        raise InputError(f"{place}: holds {value!r:.80}, expected a text")
    return value

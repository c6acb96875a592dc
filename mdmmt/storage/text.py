"""Text: UTF-8 files, lines and JSON, with the place in every error message; words and tables."""

from __future__ import annotations

import codecs
import io
import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from ..errors import InputError

PORTION = 65_536  # bytes of stdin that are read together at most


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


CONTROLS = ("Cc", "Zl", "Zp")  # categories of Unicode: control characters, line separators
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # turn the order of what follows


def escape_controls(text: str) -> str:
    """Show control characters, which could command a terminal, as escapes such as `\\x1b`."""
    return "".join(
        ascii(char)[1:-1] if unicodedata.category(char) in CONTROLS or char in BIDI else char
        for char in text
    )


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number and the words after it, which depend on whether it is 1.

    Args:
        one: the words after a 1, such as `video` or `video was`.
        many: the words after any other number. None: `one` and an s.
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Raises:
        InputError: the file cannot be read, or one of its lines, which the message names, is not
            UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    return _decode(content, str(path))


def portions_of_stdin() -> Iterator[str]:
    """Yield what stdin holds, each portion as soon as it is there.

    Ends of lines are those of `read_text`. Bytes that are no UTF-8 become surrogates.
    """
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder("utf-8-sig")("surrogateescape"), translate=True
    )
    stdin = cast(io.BufferedReader, sys.stdin.buffer)
    while portion := stdin.read1(PORTION):
        yield decoder.decode(portion)
    yield decoder.decode(b"", final=True)


def _decode(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8-sig")  # spreadsheets write the mark
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{name}, line {line}: is not UTF-8 text") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def numbered_lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """Yield each line that is not blank, and its place as error messages name it.

    Args:
        path: the file that `text` was read from; only its name is used.
    """
    # splitlines() would also split at characters that a caption may hold, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield line, f"{path}, line {number}"


def parse_json(text: str, where: str) -> Any:
    """Parse JSON.

    Args:
        where: the file, or the file and the line, of the text; error messages start with it.

    Raises:
        InputError: the text is not JSON, is nested too deeply, or holds a whole number of more
            digits than Python converts (4,300).
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = "" if ", line " in where else f", line {error.lineno}"
        raise InputError(f"{where}{line}: is not JSON ({error.msg})") from error
    except ValueError as error:  # Python's bound for the digits of an int
        raise InputError(f"{where}: holds a whole number of too many digits ({error})") from error
    except RecursionError as error:
        raise InputError(f"{where}: is nested too deeply") from error


def format_table(rows: Iterable[Sequence[str]], flush_left: Sequence[int] = (-1,)) -> str:
    """Format rows as a table in plain text.

    Args:
        rows: the cells of each row, the same number in every row; the header is a row as well.
            Control characters in them are escaped.
        flush_left: the columns that are flush left, as indexes; the others are flush right.
    """
    columns = [[escape_controls(cell) for cell in column] for column in zip(*rows, strict=True)]
    last = len(columns) - 1
    left = [index % len(columns) for index in flush_left]
    padded = []
    for index, column in enumerate(columns):
        pad = str.ljust if index in left else str.rjust
        width = 0 if index == last and index in left else max(map(len, column))
        padded.append([pad(cell, width) for cell in column])
    return "\n".join(map("  ".join, zip(*padded, strict=True)))

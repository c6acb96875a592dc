"""Texts from files and stdin."""

from __future__ import annotations

import io
import sys
from itertools import chain
from pathlib import Path

import pytest

from mdmmt.batch.texts import STDIN, PlacedText, read_texts
from mdmmt.errors import InputError, MissingDependency

TEXTS = ["a red ball", 'it is "blue",\u2028 not red', "", "ein W\u00fcrfel"]


@pytest.fixture
def stdin(monkeypatch):
    """Sets what stdin holds."""

    def hold(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "ascii"))

    return hold


def texts_of(file: Path, column: str | None = None) -> list[PlacedText]:
    return list(chain.from_iterable(read_texts(file, column)))


def write(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n"])
def test_a_line_is_a_text_and_a_blank_one_keeps_its_place(end, tmp_path, stdin):
    content = ("\ufeff" + "\r\n".join(TEXTS) + end).encode()
    stdin(content)
    for file in (write(tmp_path / "a.txt", content), write(tmp_path / "63", content), STDIN):
        assert [text.text for text in texts_of(file)] == TEXTS
    assert texts_of(tmp_path / "a.txt")[2].place == f"{tmp_path / 'a.txt'}, line 3"
    stdin(content)
    assert texts_of(STDIN)[3].place == "stdin, line 4"


QUOTED = 'it is ""blue"",\u2028 not red'


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        (
            "a.csv",
            f'\ufeffid,text\r\n1,a red ball\r\n\r\n2,"{QUOTED}"\r\n3,""\r\n4,ein W\u00fcrfel',
            ["line 2", "line 4", "line 5", "line 6"],
        ),
        (
            "a.tsv",
            f'text\tid\na red ball\t1\n"{QUOTED}"\n\t3\nein W\u00fcrfel\t4\t5\n',
            ["line 2", "line 3", "line 4", "line 5"],
        ),
        (
            "a.jsonl",
            '{"id": 1, "text": "a red ball"}\n\n{"text": "it is \\"blue\\",\u2028 not red"}\n'
            '{"text": null}\n{"text": "ein W\\u00fcrfel"}',
            ["line 1", "line 3", "line 4", "line 5"],
        ),
    ],
)
def test_a_column_of_a_table_holds_the_texts(name, content, places, tmp_path):
    file = write(tmp_path / name, content)
    texts = texts_of(file)
    assert [text.text for text in texts] == TEXTS
    assert [text.place for text in texts] == [f"{file}, {place}" for place in places]
    renamed = write(file, content.replace("text", "what is said"))
    assert [text.text for text in texts_of(renamed, "what is said")] == TEXTS
    with pytest.raises(InputError, match=r"no column 'text' among .*'what is said'"):
        texts_of(renamed)


def test_a_column_of_parquet_holds_the_texts(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is missing")
    from pyarrow import parquet

    values = [text or None for text in TEXTS]
    file = tmp_path / "a.parquet"
    for kind in (
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
    ):
        table = pyarrow.table({"id": [1, 2, 3, 4], "a.b": pyarrow.array(values, kind)})
        parquet.write_table(table, file)
        texts = texts_of(file, "a.b")
        assert [text.text for text in texts] == TEXTS and texts[1].place == f"{file}, row 2"
    with pytest.raises(InputError, match=r"no column 'text' among 'id', 'a\.b'"):
        texts_of(file)
    with pytest.raises(InputError, match="row 1: holds 1, expected a text"):
        texts_of(file, "id")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "\n \n", "a.txt holds no text"),
        ("a.csv", "", "no column 'text' among none"),
        ("a.csv", "text,id\n", "a.csv holds no text"),
        ("a.csv", "text,text\na,b\n", "several columns 'text' among 'text', 'text'"),
        ("a.csv", 'text\na\n"b\nc\n', r"a.csv, line 4: is not CSV \(unexpected end of data\)"),
        ("a.csv", b"text\na\n\xff\n", "a.csv, line 3: is not UTF-8 text"),
        ("a.txt", b"a\n\xff\n", "a.txt, line 2: is not UTF-8 text"),
        ("a.jsonl", '{"text": "a"}\n["b"]\n', r"line 2: '\[\"b\"\]', expected a JSON object"),
        ("a.jsonl", '{"text": "a"}\n{"id": 1}\n', "line 2: there is no column 'text' among 'id'"),
        ("a.jsonl", '{"text": ["a"]}\n', r"line 1: holds \['a'\], expected a text"),
        ("a.jsonl", '{"text": \n', "line 1: is not JSON"),
        ("a.parquet", "no parquet", "a.parquet' is not a readable Parquet file"),
        ("a.json", "[]", r"expected .txt \(one text a line\), .csv, .tsv, .jsonl, .parquet, or -"),
    ],
)
def test_a_bad_file_is_named_with_the_place(name, content, words, tmp_path):
    if name == "a.parquet":
        pytest.importorskip("pyarrow", reason="the extra `parquet` is missing")
    with pytest.raises(InputError, match=words):
        texts_of(write(tmp_path / name, content))


def test_a_missing_file_a_column_of_no_table_and_a_missing_package(tmp_path, stdin, monkeypatch):
    for name in ("none.txt", "none.csv", "none.jsonl", "none.parquet"):
        with pytest.raises(InputError, match=name):
            texts_of(tmp_path / name)
    with pytest.raises(InputError, match=r"'id' and stdin is no table; expected \.csv"):
        texts_of(STDIN, "id")
    stdin(b"\n \n\n")
    with pytest.raises(InputError, match="stdin holds no text"):
        texts_of(STDIN)
    write(tmp_path / "a.parquet", "")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"pip install 'mdmmt\[parquet\]'"):
        texts_of(tmp_path / "a.parquet")


class Pipe(io.BytesIO):
    """Gives its bytes in pieces, as a pipe does."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self.size = size

    def read1(self, size: int = -1) -> bytes:
        return super().read1(self.size)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_stdin_may_come_in_pieces(size: int, monkeypatch) -> None:
    texts = ["a red ball", "", "\u2028\U0001f600", "b", "c", " ", "d"]
    content = ("\ufeff" + "\r\n".join(texts).replace("b\r\n", "b\r") + "\n\n \n").encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(content, size)))
    portions = list(read_texts(STDIN))
    assert [text.text for portion in portions for text in portion] == texts
    places = [text.place for portion in portions for text in portion]
    assert places == [f"stdin, line {n}" for n in range(1, 8)]
    assert len(portions) == {1: 5, 1000: 1}.get(size, len(portions))


def test_bytes_of_stdin_that_are_no_text_stay_in_their_line(stdin) -> None:
    stdin(b"a\n\xff\nb")
    assert [text.text for text in texts_of(STDIN)] == ["a", "\udcff", "b"]

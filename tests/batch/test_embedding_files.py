"""Rows of embeddings as files of each format."""

from __future__ import annotations

import csv
import json
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mdmmt.batch import embedding_files
from mdmmt.batch.embed import EmbeddingRow
from mdmmt.batch.embedding_files import FORMATS, STREAMED, check_output, embeddings_file, json_line
from mdmmt.errors import InputError, MissingDependency

# Which of decimal digits do not give back: the third of 1, the least number, the greatest one.
NUMBERS = np.array([[1 / 3, 1e-45, -1.0], [np.finfo(np.float32).max, 16777217, 0.1]], np.float32)
NAMES = ['a "red", ball\nand a star', "ein \u00fcber\u2028 \U0001f600"]
ODD = os.fsdecode(b"\xff.mp4")  # no UTF-8


def texts() -> list[EmbeddingRow]:
    good = [EmbeddingRow(name, vector) for name, vector in zip(NAMES, NUMBERS, strict=True)]
    return [good[0], EmbeddingRow("\ud800", None, "a lone surrogate"), good[1]]


def windows() -> list[EmbeddingRow]:
    return [
        EmbeddingRow("a.mp4", NUMBERS[0], span_s=(0.0, 2.5)),
        EmbeddingRow("b.mp4", None, "it is damaged"),
        EmbeddingRow(ODD, NUMBERS[1], span_s=(2.5, 1 / 3)),
    ]


def same(vectors) -> None:
    """That these are the bits of `NUMBERS`."""
    vectors = np.asarray(vectors, dtype=np.float32)
    assert vectors.tobytes() == NUMBERS.tobytes() and vectors.shape == NUMBERS.shape


def write_embeddings(out: Path, kind: str, rows: list[EmbeddingRow]) -> None:
    with embeddings_file(out, kind) as add:
        for row in rows:
            add(row)


def test_npy_has_nan_for_errors_and_its_names_beside_it(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a.npy", "text", texts())
    rows = np.load(tmp_path / "a.npy")
    assert rows.dtype == np.float32 and np.isnan(rows[1]).all()
    same(rows[[0, 2]])
    lines = (tmp_path / "a.names.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"text": NAMES[0]},
        {"text": "\ud800", "error": "a lone surrogate"},
        {"text": NAMES[1]},
    ]
    write_embeddings(tmp_path / "a.npy", "path", windows())
    lines = (tmp_path / "a.names.jsonl").read_text().splitlines()
    assert json.loads(lines[2]) == {"path": ODD, "start_s": 2.5, "end_s": 1 / 3}


def test_npz_holds_arrays(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a.npz", "text", texts())
    with np.load(tmp_path / "a.npz") as arrays:
        assert sorted(arrays) == ["embedding", "text"] and arrays["text"].tolist() == NAMES
        assert arrays["embedding"].dtype == np.float32
        same(arrays["embedding"])
    write_embeddings(tmp_path / "a.npz", "path", windows())
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["path"].tolist() == ["a.mp4", ODD]
        assert arrays["start_s"].tolist() == [0.0, 2.5] and arrays["end_s"].tolist() == [2.5, 1 / 3]


def test_jsonl_leaves_errors_out(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a.jsonl", "text", texts())
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [record["text"] for record in records] == NAMES
    same([record["embedding"] for record in records])
    assert json.loads(json_line("path", windows()[2]))["path"] == ODD


def test_csv_gives_every_bit_back(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a.csv", "text", texts())
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["text", "embedding_0", "embedding_1", "embedding_2"]
    assert [row[0] for row in rows] == NAMES
    same([[float(number) for number in row[1:]] for row in rows])
    write_embeddings(tmp_path / "a.csv", "path", windows())
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("path,start_s,end_s,embedding_0,")
    assert lines[2].startswith(f"\\udcff.mp4,2.5,{1 / 3!r},")


def test_parquet_holds_lists_of_one_length(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is missing")
    write_embeddings(tmp_path / "a.parquet", "text", texts())
    table = parquet.read_table(tmp_path / "a.parquet")
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[3]"
    assert table["text"].to_pylist() == NAMES
    same(table["embedding"].to_pylist())
    write_embeddings(tmp_path / "a.parquet", "path", windows())
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["path", "start_s", "end_s", "embedding"]
    assert table["path"].to_pylist() == ["a.mp4", "\\udcff.mp4"]
    assert table["end_s"].to_pylist() == [2.5, 1 / 3]


def many(n: int, alive: list[weakref.ref]) -> Iterator[EmbeddingRow]:
    """Rows, every fifth an error. `alive` gets references to the vectors."""
    for i in range(n):
        vector = None if i % 5 == 0 else np.full(3, i, np.float32)
        if vector is not None:
            alive.append(weakref.ref(vector))
        yield EmbeddingRow(f"text {i}", vector, None if i % 5 else "odd")


@pytest.mark.parametrize("suffix", STREAMED)
def test_rows_are_written_as_they_come(suffix: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(embedding_files, "ROWS_AT_ONCE", 4)
    out, alive, most = tmp_path / f"a{suffix}", [], 0
    with embeddings_file(out, "text") as add:
        for row in many(30, alive):
            add(row)
            most = max(most, sum(one() is not None for one in alive))
        assert not out.exists()
    assert most <= 5  # four that wait, and the row in hand
    names = [f"text {i}" for i in range(30) if i % 5]
    if suffix == ".jsonl":
        records = [json.loads(line) for line in out.read_text().splitlines()]
        found = {record["text"]: record["embedding"] for record in records}
    elif suffix == ".csv":
        header, *rows = csv.reader(out.read_text().splitlines())
        assert header == ["text", "embedding_0", "embedding_1", "embedding_2"]
        found = {name: [float(number) for number in numbers] for name, *numbers in rows}
    else:
        parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is missing")
        with parquet.ParquetFile(out) as file:
            assert file.num_row_groups == 8
            table = file.read()
        found = dict(zip(table["text"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    assert found == {name: [float(name.split()[1])] * 3 for name in names}
    assert list(found) == names


@pytest.mark.parametrize("suffix", FORMATS)
def test_errors_alone_make_no_file(suffix: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(embedding_files, "ROWS_AT_ONCE", 1)
    write_embeddings(tmp_path / f"a{suffix}", "text", [texts()[1]] * 3)
    assert not list(tmp_path.iterdir())
    write_embeddings(tmp_path / f"a{suffix}", "text", [texts()[1], texts()[0], texts()[1]])
    assert (tmp_path / f"a{suffix}").exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failure_leaves_the_files_that_were_there(suffix: str, tmp_path: Path) -> None:
    rows = texts()
    rows[2] = rows[2]._replace(vector=np.array([object()]))
    files = [tmp_path / f"a{suffix}", *([tmp_path / "a.names.jsonl"] if suffix == ".npy" else [])]
    for file in files:
        file.write_text("mine")
    with pytest.raises((ValueError, TypeError)):
        write_embeddings(files[0], "text", rows)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert {file.read_text() for file in files} == {"mine"}


def test_check_output_refuses_what_cannot_be_written(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.names.jsonl").mkdir()
    with pytest.raises(InputError, match=r"a\.names\.jsonl' is a folder"):
        check_output(tmp_path / "a.npy")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"a \.parquet file needs .*'mdmmt\[parquet\]'"):
        check_output(tmp_path / "a.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["a.names.jsonl"]

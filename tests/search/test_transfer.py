"""An index as one file, and back: nothing is lost, and what is damaged is refused."""

from __future__ import annotations

import json
import shutil
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from index_windows import DIM, MODEL, segments

from mdmmt.errors import InputError, MissingDependency
from mdmmt.search import Index, export_index, import_index, transfer
from mdmmt.search import index as index_module
from mdmmt.search.sources import Source

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")

SOURCE = str(Source(["abc", 10.0, None, ["CLIP"]], {"CLIP": "1", "VIDEO": "2"}, "file"))
ODD = 'it\'s "50%" \\ é\u2028.mp4'
FILES = {
    "/b/1.mp4": (12, SOURCE, {"year": 2021, "tags": ["a", None], "deep": {"er": 1.5}}),
    "/b/0.mp4": (1, SOURCE, {}),
    ODD: (3, "of another program", {"my-name": "é"}),
}


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    database = tmp_path_factory.mktemp("database") / "library.db"
    with Index.open(database, MODEL) as index:
        for seed, (path, (n, source, metadata)) in enumerate(FILES.items()):
            index.add(path, segments(n, seed), source, metadata)
        index.add("/gone.mp4", segments(2))
        index.delete("/gone.mp4", keep_out=True)
        index.keep_origin("sample", ["CLIP", "VIDEO"])
    return database


@pytest.fixture(scope="module")
def exports(database, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    with Index.open(database, read_only=True) as index:
        for suffix in transfer.FORMATS:
            assert export_index(index, folder / f"library{suffix}") == (3, 16)
    return folder


@pytest.fixture(params=["parquet", "jsonl"])
def exported(request, exports, tmp_path) -> Path:
    return Path(shutil.copy(exports / f"library.{request.param}", tmp_path))


def contents(database: Path | str) -> dict[str, tuple]:
    with Index.open(database, read_only=True) as index:
        assert index.count() == sum(file.segments for file in index.files())
        return {
            file.path: (
                index.segments(file.path).vectors.tobytes(),
                index.segments(file.path).spans_s.tobytes(),
                index.source(file.path),
                file.metadata,
            )
            for file in index.files()
        }


def change(file: Path, alter) -> None:
    """Give a file of an export other rows: `alter` changes the list of them, and the header."""
    if file.suffix == ".jsonl":
        header, *rows = map(json.loads, file.read_text().splitlines())
        alter(header[transfer.HEADER], rows)
        file.write_text("".join(json.dumps(line) + "\n" for line in (header, *rows)))
        return
    table = parquet.read_table(file)
    rows = [row | {"metadata": json.loads(row["metadata"])} for row in table.to_pylist()]
    header = json.loads(table.schema.metadata[transfer.HEADER.encode()])
    alter(header, rows)
    for row in rows:
        if "metadata" in row:
            row["metadata"] = json.dumps(row["metadata"])
    changed = pyarrow.Table.from_pylist(rows)
    parquet.write_table(
        changed.replace_schema_metadata({transfer.HEADER: json.dumps(header)}), file
    )


def test_import_gives_all_that_was_exported(exported, database, databases):
    copy = databases("copy")
    assert import_index(exported, copy) == (3, 16)
    assert contents(copy) == contents(database)
    assert contents(copy)[ODD][3] == {"my-name": "é"}
    with Index.open(copy) as index:
        assert index.model == MODEL
        assert (index.weights, index.experts) == ("sample", ("CLIP", "VIDEO"))
        assert index.is_deleted("/gone.mp4") and not index.is_deleted("/b/1.mp4")
        query = segments(1).vectors[0]
        assert {hit.path for hit in index.search(query, filter="year >= 2020")} == {"/b/1.mp4"}


def test_export_tells_the_model_and_the_versions_of_its_experts(exported):
    if exported.suffix == ".jsonl":
        header = json.loads(exported.read_text().splitlines()[0])[transfer.HEADER]
    else:
        header = json.loads(parquet.read_schema(exported).metadata[transfer.HEADER.encode()])
        vector = parquet.read_schema(exported).field("vector").type
        assert vector == pyarrow.list_(pyarrow.float32(), DIM)
    assert header["model"] == MODEL._asdict()
    assert header["sources"] == [{"versions": {"CLIP": "1", "VIDEO": "2"}, "clock": "file"}]


def test_import_replaces_files_and_keeps_the_others(exported, tmp_path):
    copy = tmp_path / "copy.db"
    with Index.open(copy, MODEL) as index:
        index.add("/b/1.mp4", segments(20, seed=9), "older", {"year": 1})
        index.add("/other.mp4", segments(2))
    for _ in range(2):
        import_index(exported, copy)
        found = contents(copy)
        assert found.keys() == {*FILES, "/other.mp4"}
        assert found["/b/1.mp4"][0] == segments(12).vectors.tobytes()
        assert found["/b/1.mp4"][2:] == FILES["/b/1.mp4"][1:]


def test_import_goes_on_after_it_was_stopped(exported, database, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "ROWS_AT_ONCE", 4)
    real, calls = Index.add_files, []

    def stopped(self, files):
        calls.append(files)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self, files)

    with monkeypatch.context() as patch:
        patch.setattr(Index, "add_files", stopped)
        with pytest.raises(KeyboardInterrupt):
            import_index(exported, tmp_path / "copy.db")
    assert set(contents(tmp_path / "copy.db")) == {"/b/0.mp4"}
    import_index(exported, tmp_path / "copy.db")
    assert contents(tmp_path / "copy.db") == contents(database)


def test_export_of_an_empty_index(tmp_path):
    Index.open(tmp_path / "a.db", MODEL).close()
    for suffix in transfer.FORMATS:
        with Index.open(tmp_path / "a.db") as index:
            assert export_index(index, tmp_path / f"a{suffix}") == (0, 0)
        assert import_index(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}.db") == (0, 0)
        assert contents(tmp_path / f"b{suffix}.db") == {}


def test_export_that_fails_leaves_the_old_file(database, tmp_path, monkeypatch):
    file = tmp_path / "library.parquet"
    file.write_text("old")
    with Index.open(database, read_only=True) as index:
        monkeypatch.setattr(index, "_read_entries", lambda files: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_index(index, file)
    assert [path.name for path in tmp_path.iterdir()] == ["library.parquet"]
    assert file.read_text() == "old"


def test_export_refuses_an_index_that_changes_meanwhile(tmp_path):
    """Only a server lets others write meanwhile."""
    for other in (segments(4), segments(2)):
        with Index.open(tmp_path / "a.db", MODEL) as index:
            index.add("a.mp4", segments(3))
            files = index.files()
            index.add("a.mp4", other)
            with pytest.raises(InputError, match=r"'a.mp4' was changed while it was read"):
                list(index.entries(files))


def swap(header, rows):
    rows[0], rows[5] = rows[5], rows[0]


def of(name, value, row=4):
    return lambda header, rows: rows[row].update({name: value})


def without(name):
    return lambda header, rows: [row.pop(name) for row in rows]


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (of("vector", [float("nan")] * DIM), r"(row 5|line 6): vector holds NaN"),
        (of("vector", [0.5] * (DIM - 1)), r"(row 5|line 6): vector is \(23,\), expected \(n, 24\)"),
        (of("vector", None), r"(row 5|line 6): vector is \(\), expected \(n, 24\)"),
        (of("start_s", None), r"(row 5|line 6): start_s is None, expected a number"),
        (of("end_s", -1.0), r"(row 5|line 6): .* 0 <= start_s <= end_s"),
        (of("path", None), r"(row 5|line 6): path is None, expected a text"),
        (of("path", "/c.mp4"), r"(row 5|line 6): this is not segment 3 of '/b/1.mp4'"),
        (of("segments", 0), r"(row 5|line 6): segments is 0, expected at least 1"),
        (of("segments", 7), r"(row 5|line 6): this is not segment 3"),
        (of("source", "other"), r"(row 5|line 6): this is not segment 3"),
        (of("id", "abc-3"), r"(row 5|line 6): this is not segment 3"),
        (of("metadata", {"id": 3}, row=0), r"(row 1|line 2): metadata has the name 'id'"),
        (of("metadata", [], row=0), r"(row 1|line 2): metadata is \[\], expected a JSON object"),
        (swap, r"(row 1|line 2): this is not segment 0 of"),
        *((without(name), f"there is no '{name}', expected all of") for name in transfer.FIELDS),
        (lambda header, rows: header.pop("model"), "the model is not told"),
        (lambda header, rows: header.update(version=2), "words of another version of mdmmt"),
        (lambda header, rows: header["model"].update(dim="a"), "the model is not told"),
        (lambda header, rows: rows.pop(), "the file ends after 2 of 3 segments"),
        (
            lambda header, rows: rows.__delitem__(slice(13, 16)),
            "13 segments, .* its header tells of 16",
        ),
        (lambda header, rows: rows.append(dict(rows[0])), "17 segments, .* its header tells of 16"),
    ],
)
@pytest.mark.parametrize(
    "exported", ["jsonl", pytest.param("parquet", marks=pytest.mark.slow)], indirect=True
)
def test_import_refuses_damage(exported, alter, words, tmp_path):
    change(exported, alter)
    with pytest.raises(InputError, match=words) as caught:
        import_index(exported, tmp_path / "copy.db")
    assert exported.name in str(caught.value) and "\n" not in str(caught.value)


def test_import_that_adds_nothing_makes_no_database(exported, tmp_path):
    change(exported, of("vector", [float("inf")] * DIM, row=0))
    with pytest.raises(InputError):
        import_index(exported, tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == [exported]


def test_import_refuses_a_mixture_of_models(exported, tmp_path):
    for other, words in (
        (MODEL._replace(sha256="1" * 64), "cannot be compared"),
        (MODEL._replace(dim=DIM + 1), "25 wide"),
    ):
        database = tmp_path / f"{other.dim}-{other.sha256[0]}.db"
        with Index.open(database, other) as index:
            index.add("a.mp4", segments(1)._replace(vectors=np.ones((1, other.dim), np.float32)))
        with pytest.raises(InputError, match=words):
            import_index(exported, database)
        assert set(contents(database)) == {"a.mp4"}


def test_import_refuses_a_mixture_of_experts(exported, tmp_path):
    with Index.open(tmp_path / "copy.db", MODEL) as index:
        index.add("a.mp4", segments(1), SOURCE.replace('"CLIP": "1"', '"CLIP": "0"'))
    with pytest.raises(InputError, match=r"the expert CLIP has the version '1', and '0'"):
        import_index(exported, tmp_path / "copy.db")
    assert set(contents(tmp_path / "copy.db")) == {"a.mp4"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", r"'.*a.csv': expected a name that ends in .parquet or .jsonl"),
        ("a.parquet", b"", r"cannot be read as Parquet \(.+\); expected a whole file"),
        ("a.parquet", b"PAR1" + b"x" * 100, "cannot be read as Parquet"),
        ("a.jsonl", b"", "the model is not told"),
        ("a.jsonl", b"{}\n", "line 1: the model is not told"),
        ("a.jsonl", b"[1]\n", r"line 1: \[1\], expected a JSON object"),
        ("a.jsonl", b'{"a', r"line 1: is not JSON"),
        ("a.jsonl", b"\xff\n", r"line 1: is not UTF-8"),
        ("a.jsonl", None, r"there is no file .*a.jsonl"),
    ],
)
def test_import_refuses_other_files(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = list(tmp_path.iterdir())
    with pytest.raises(InputError, match=words):
        import_index(tmp_path / name, tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == before


def test_import_refuses_a_file_cut_anywhere(exported, tmp_path):
    content = exported.read_bytes()
    for size in (*(len(content) * share // 10 for share in (2, 5, 9)), len(content) - 2):
        exported.write_bytes(content[:size])
        with pytest.raises(InputError):
            import_index(exported, tmp_path / "copy.db")


def test_import_refuses_a_page_of_parquet_that_is_damaged(database, tmp_path):
    file = tmp_path / "library.parquet"
    with Index.open(database, read_only=True) as index:
        export_index(index, file)
    content = bytearray(file.read_bytes())
    content[4:24] = b"\xff" * 20  # the header of the first page
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        import_index(file, tmp_path / "copy.db")


def test_import_refuses_an_endless_line(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MAX_LINE_BYTES", 100)
    (tmp_path / "a.jsonl").write_bytes(b"{" * 1000)
    with pytest.raises(InputError, match="line 1: is longer than 100 bytes"):
        import_index(tmp_path / "a.jsonl", tmp_path / "copy.db")


def test_export_names_the_extra_of_parquet(database, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (
        Index.open(database, read_only=True) as index,
        pytest.raises(MissingDependency, match="parquet"),
    ):
        export_index(index, tmp_path / "a.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_memory_does_not_grow_with_the_index(tmp_path, suffix, monkeypatch):
    """Python's objects, that is: the peak of an export of four times the rows is the same."""
    monkeypatch.setattr(transfer, "ROWS_AT_ONCE", 200)
    for module in (transfer, index_module):
        monkeypatch.setattr(module, "ROWS_READ_AT_ONCE", 200)
    peaks = []
    for files in (50, 200):
        database = tmp_path / f"{files}.db"
        with Index.open(database, MODEL) as index:
            index.add_files(
                index_module.FileEntry(f"{i}.mp4", segments(40, i), "", {}) for i in range(files)
            )
            # Milvus Lite itself, in this process, looks at all rows to find these.
            files_in_index, sources = index.files(), list(index.sources())
            monkeypatch.setattr(index, "files", lambda found=files_in_index: found)
            monkeypatch.setattr(index, "sources", lambda found=sources: found)
            tracemalloc.start()
            export_index(index, tmp_path / f"{files}{suffix}")
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        with transfer.FORMATS[suffix].read(tmp_path / f"{files}{suffix}") as (_, read):
            tracemalloc.start()
            assert sum(1 for _ in transfer._entries(read, DIM)) == files
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[0] and peaks[3] < 1.5 * peaks[1]

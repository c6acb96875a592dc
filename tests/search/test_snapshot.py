"""What reads a database reads a copy: it is of one moment, and private."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from index_windows import DIM, MODEL, segments

from mdmmt.errors import InputError
from mdmmt.model import Segments
from mdmmt.search import index as index_module
from mdmmt.search import snapshot
from mdmmt.search.index import Index
from mdmmt.search.snapshot import private_copy

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")


@pytest.fixture
def database(tmp_path):
    return tmp_path / "library.db"


@pytest.fixture(autouse=True)
def temporary_files(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def contents(database: Path) -> list[tuple[str, int]]:
    """The files of a database that may be open elsewhere, each with its number of segments."""
    with Index.open(database, read_only=True) as index:
        files = index.files()
        assert index.count() == sum(file.segments for file in files)
        return [(file.path, file.segments) for file in files]


def test_open_reads_the_present_state_while_another_writes(database, temporary_files):
    query = segments(1).vectors[0]
    with Index.open(database, MODEL) as index:
        assert contents(database) == []
        index.add("a.mp4", segments(3))  # in the log
        assert contents(database) == [("a.mp4", 3)]
        index._flush()
        index.add("b.mp4", segments(5, seed=1), metadata={"year": 2000})
        index.add("a.mp4", segments(2, seed=2))
        expected = index.search(query, 20)
        with Index.open(database, MODEL, read_only=True) as reader:
            (copy,) = temporary_files.glob("mdmmt-copy-*")
            assert copy.stat().st_mode & 0o777 == 0o700
            assert [hit.id for hit in reader.search(query, 20)] == [hit.id for hit in expected]
            index.add("c.mp4", segments(1))  # the writer goes on
            assert len(reader.files()) == 2
            for change in (
                lambda: reader.add("d.mp4", segments(1)),
                lambda: reader.delete("a.mp4"),
            ):
                with pytest.raises(InputError, match=r"library.db' was opened with read_only"):
                    change()
        assert not copy.exists()
        with pytest.raises(InputError, match="open elsewhere"):
            Index.open(database, MODEL)
    assert contents(database) == [("a.mp4", 2), ("b.mp4", 5), ("c.mp4", 1)]
    assert list(temporary_files.iterdir()) == []


def test_open_read_only_makes_no_database(database):
    with pytest.raises(InputError, match="there is no database"):
        Index.open(database, MODEL, read_only=True)
    assert not database.exists()


@pytest.mark.parametrize(
    ("after", "change"),
    [("wal_data", "replace"), ("wal_data", "flush"), ("wal_data", "both"), ("data_", "flush")],
)
def test_private_copy_is_of_one_moment(database, monkeypatch, after, change):
    """The database changes after the first log, or the first file of rows, has been copied."""
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(8))
        index.add("b.mp4", segments(8))
        if change != "replace":
            index._flush()
        index.add("c.mp4", segments(2))
        index.delete("b.mp4")  # a log of its own
        real, changes = snapshot.copyfile, []

        def copy(source, target):
            real(source, target)
            if not changes and Path(source).name.startswith(after):
                changes.append(change)
                if change != "replace":
                    index._flush()
                if change != "flush":
                    index.delete("a.mp4")
                    index.add("a.mp4", segments(3))

        monkeypatch.setattr(snapshot, "copyfile", copy)
        first = 8 if change == "flush" else 3
        assert contents(database) == [("a.mp4", first), ("c.mp4", 2)]
        assert changes


def test_private_copy_gives_up_on_a_database_that_always_changes(
    database, monkeypatch, temporary_files
):
    monkeypatch.setattr(snapshot, "PATIENCE_S", 0.2)
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(1))
        real = snapshot.copyfile

        def copy(source, target):
            real(source, target)
            index.add("a.mp4", segments(1))

        monkeypatch.setattr(snapshot, "copyfile", copy)
        with pytest.raises(InputError, match=r"no moment without a change in 0.2 s"):
            Index.open(database, read_only=True)
    assert list(temporary_files.iterdir()) == []


def test_private_copy_refuses_files_of_another_version(database):
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(1))
        index._flush()
        manifest = database / "collections" / "mdmmt" / "manifest.json"
        content = json.loads(manifest.read_text())
        for other in (content | {"manifest_format_version": 3}, {}, []):
            manifest.write_text(json.dumps(other))
            with pytest.raises(InputError, match="can only be read when it is closed"):
                Index.open(database, read_only=True)
        manifest.write_text(json.dumps(content))


def test_private_copy_removes_the_copies_of_killed_processes(database, temporary_files):
    Index.open(database, MODEL).close()
    for name in ("killed", "young", "open"):
        folder = temporary_files / f"mdmmt-copy-{name}"
        folder.mkdir()
        Index.open(folder / snapshot.COPY, MODEL).close()
    used = Index.open(temporary_files / "mdmmt-copy-open" / snapshot.COPY, MODEL)
    for name in ("killed", "open"):
        os.utime(temporary_files / f"mdmmt-copy-{name}", (0, 0))
    with used, private_copy(database):
        left = {folder.name for folder in temporary_files.glob("mdmmt-copy-[kyo]*")}
        assert {"mdmmt-copy-young", "mdmmt-copy-open"} <= left
        assert "mdmmt-copy-killed" not in left
        assert used.count() == 0


def test_open_read_only_leaves_the_database_free_and_as_it_is(database, temporary_files):
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(3))
        index._flush()
        index.add("b.mp4", segments(2))

    def state():
        files = (file for file in database.rglob("*") if file.is_file())
        return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    before = state()
    with Index.open(database, read_only=True) as reader:
        (copy,) = temporary_files.glob("mdmmt-copy-*/*")
        assert not reader.is_outdated()
        assert state() == before
        with Index.open(database, MODEL) as index:  # a build that starts after the search
            assert not index.is_outdated()
            index.add("c.mp4", segments(4))
            assert reader.is_outdated()
            assert contents(database)[2:] == [("c.mp4", 4)]
        assert len(reader.files()) == 2
        index_files = {file.name for file in copy.iterdir()}
    assert index_files >= {snapshot.UNCLEAN}  # as long as it is open
    assert len(contents(database)) == 3


@pytest.mark.parametrize("way", ["closed", "open", "killed"])
def test_only_a_copy_of_a_database_that_was_not_closed_is_repaired(database, monkeypatch, way):
    """A repair looks at every row."""
    repaired = []
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(3))
        monkeypatch.setattr(Index, "_repair", lambda self: repaired.append(self))
        if way == "open":
            contents(database)
    if way == "killed":
        (database / snapshot.UNCLEAN).touch()
    if way != "open":
        contents(database)
    assert bool(repaired) == (way != "closed")


@pytest.mark.parametrize("lost", ["data_*.parquet", "manifest.json", "schema.json"])
def test_private_copy_names_a_file_that_is_lost(database, monkeypatch, lost):
    monkeypatch.setattr(snapshot, "GRACE_S", 0.1)
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(3))
    (file,) = database.rglob(lost)
    file.unlink()
    with pytest.raises(
        InputError, match=f"library.db' lacks 1 of its files, such as .*{file.name}"
    ):
        Index.open(database, read_only=True)


def test_without_room_for_a_copy_the_database_itself_is_read(database, monkeypatch):
    def fail(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(3))
        monkeypatch.setattr(snapshot, "copyfile", fail)
        with pytest.raises(InputError, match=r"library.db' is open elsewhere.*no room.*TMPDIR"):
            Index.open(database, read_only=True)
    assert contents(database) == [("a.mp4", 3)]
    with Index.open(database, read_only=True) as reader:
        assert not reader.is_outdated()
        with pytest.raises(InputError, match="open elsewhere"):
            Index.open(database, MODEL)


@pytest.mark.slow  # many copies
def test_open_never_reads_half_of_a_file_while_a_build_runs(database, monkeypatch):
    monkeypatch.setattr(index_module, "MAX_LOG_BYTES", 4000)  # many flushes
    opened, done = threading.Event(), threading.Event()

    def build() -> None:
        rng = np.random.default_rng(0)
        with Index.open(database, MODEL) as index:
            opened.set()
            for generation in range(1, 10_000):
                if done.is_set():
                    return
                n = int(rng.integers(1, 30))
                vectors = np.full((n, DIM), generation, dtype=np.float32)
                spans_s = np.array([[i, i + 1] for i in range(n)])
                index.add(f"{generation % 3}.mp4", Segments(vectors, spans_s))
                time.sleep(0.01)

    builder = threading.Thread(target=build)
    builder.start()
    assert opened.wait(60)
    seen = set()
    try:
        for _ in range(25):
            with Index.open(database, read_only=True) as index:
                files = index.files()
                assert index.count() == sum(file.segments for file in files)
                for file in files:
                    generations = set(index.segments(file.path).vectors.ravel().tolist())
                    assert len(generations) == 1
                    seen |= generations
            time.sleep(0.05)
    finally:
        done.set()
        builder.join()
    assert len(seen) > 25

"""Facts about files: when they are kept, and when they are not believed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from mdmmt.storage import facts
from mdmmt.storage.facts import known_sha256, mark_of, recall, remember

pytestmark = pytest.mark.usefixtures("facts_cache")


@pytest.fixture
def file(tmp_path) -> Path:
    """A file of which the length is known."""
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    remember(mark_of(file), "length", "5")
    return file


def test_recall_gives_what_is_kept(file, facts_cache, tmp_path, monkeypatch):
    assert recall(mark_of(file), "length") == "5"
    assert recall(mark_of(file), "colour") is None
    monkeypatch.chdir(tmp_path)
    assert recall(mark_of(Path("a")), "length") == "5"
    os.link(file, tmp_path / "b")
    assert recall(mark_of(tmp_path / "b"), "length") is None
    (entry,) = facts_cache.iterdir()  # and no temporary file
    remember(mark_of(file), "length", "five")
    assert recall(mark_of(file), "length") == "five" and list(facts_cache.iterdir()) == [entry]


CHANGES = {
    "longer": lambda file: file.write_bytes(b"123456"),
    "other bytes": lambda file: file.write_bytes(b"54321"),
    "touched": lambda file: os.utime(file, ns=(1, 1)),
    "replaced": lambda file: (
        file.with_name("b").write_bytes(b"54321"),
        file.with_name("b").replace(file),
    ),
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("restored", [True, False], ids=["same time", "new time"])
def test_recall_believes_nothing_of_a_changed_file(change, restored, file):
    times = file.stat()
    CHANGES[change](file)
    if restored and file.exists():
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert recall(mark_of(file), "length") is None


def test_remember_keeps_nothing_of_a_file_that_has_changed_since(file, facts_cache):
    mark = mark_of(file)
    file.write_bytes(b"1234567")
    remember(mark, "length", "5")
    remember(mark, "colour", "red")
    assert len(list(facts_cache.iterdir())) == 1 and recall(mark_of(file), "length") is None


def test_a_file_just_written_has_no_mark(file, monkeypatch):
    monkeypatch.setattr(facts, "MIN_AGE_S", 3600.0)
    assert mark_of(file) is None and recall(None, "length") is None
    remember(None, "length", "5")


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"3", b"{}", b'{"fact": 3}', b"[" * 100_000, "number", "other"]
)
def test_recall_ignores_a_damaged_entry(content, file, facts_cache):
    (entry,) = facts_cache.iterdir()
    if isinstance(content, str):
        changes = {"number": {"fact": 5}, "other": {"size": 6}}
        content = json.dumps(json.loads(entry.read_text()) | changes[content]).encode()
    entry.write_bytes(content)
    assert recall(mark_of(file), "length") is None
    remember(mark_of(file), "length", "5")
    assert recall(mark_of(file), "length") == "5"


def test_remember_needs_no_cache(file, facts_cache, tmp_path, monkeypatch):
    (entry,) = facts_cache.iterdir()
    entry.unlink()
    facts_cache.rmdir()
    facts_cache.write_text("a file where the folder should be")
    remember(mark_of(file), "length", "5")
    assert recall(mark_of(file), "length") is None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(facts, "cache_folder", lambda: Path("~/.cache"))  # of a user with no home
    remember(mark_of(file), "length", "5")
    assert not (tmp_path / "~").exists()


def test_known_sha256_reads_a_file_once_until_it_changes(file, facts_cache, monkeypatch):
    reads, sha256_of = [], facts.sha256_of
    monkeypatch.setattr(facts, "sha256_of", lambda path: reads.append(path) or sha256_of(path))
    for content in (b"12345", b"54321"):
        times = file.stat()
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        for _ in range(2):
            assert known_sha256(file) == hashlib.sha256(content).hexdigest()
    assert len(reads) == 2
    remember(mark_of(file), "SHA-256", "54321")  # as if the entry were damaged
    assert known_sha256(file) == hashlib.sha256(b"54321").hexdigest() and len(reads) == 3

"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import hashlib

import pytest

from mdmmt.errors import InputError
from mdmmt.storage.files import atomic_file, atomic_folder, check_folder, check_writable, sha256_of


def test_atomic_file_replaces_the_old_file_on_success_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_atomic_folder_keeps_what_it_is_told_to(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "kept").write_text("mine")
    (out / "gone").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(out, keep="kept"):
        raise RuntimeError
    assert {path.name for path in out.iterdir()} == {"kept", "gone"}
    with atomic_folder(out, keep="kept") as folder:
        (folder / "new").write_text("new")
    assert {path.name for path in out.iterdir()} == {"kept", "new"}
    assert list(tmp_path.iterdir()) == [out]


def test_checks_refuse_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="there is no folder"):
        check_writable(tmp_path / "none" / "a.txt")
    with pytest.raises(InputError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        check_folder(tmp_path / "file" / "a")


def test_sha256_of_reads_all_of_a_file(tmp_path):
    content = bytes(3_000_000) + b"end"
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()

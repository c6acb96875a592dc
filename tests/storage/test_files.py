"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from mdmmt.errors import InputError, describe_error
from mdmmt.storage.files import (
    atomic_file,
    check_file,
    check_folder,
    check_writable,
    sha256_of,
    visible_files,
)


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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk")
def test_atomic_file_names_the_file_for_which_there_is_no_room(tmp_path):
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "a.txt") as part:
        part.symlink_to("/dev/full")
        part.write_text("all")
    assert describe_error(caught.value) == f"{str(tmp_path / 'a.txt')!r}: No space left on device"
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "a.txt") as part:
        (part / "below").read_text()
    assert str(part) in describe_error(caught.value)  # another file
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "a.txt"):
        pass  # it was not written
    assert describe_error(caught.value).startswith(repr(str(tmp_path / "a.txt")))
    assert list(tmp_path.iterdir()) == []


def test_checks_refuse_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="there is no folder"):
        check_writable(tmp_path / "none" / "a.txt")
    with pytest.raises(InputError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        check_folder(tmp_path / "file" / "a")


def test_sha256_of_reads_all_of_a_file(tmp_path):
    content = bytes(3_000_000) + b"end"
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("length", [1, 229, 243, 255])
def test_atomic_file_takes_any_name_that_the_disk_takes(tmp_path, length):
    path = tmp_path / ("x" * length)
    with atomic_file(path) as part:
        part.write_bytes(b"content")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_atomic_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda f: calls.append(os.fstat(f).st_ino) or fsync(f))
    monkeypatch.setattr(
        Path, "replace", lambda self, to: calls.append("replace") or replace(self, to)
    )
    with atomic_file(tmp_path / "a") as part:
        part.write_bytes(b"content")
    assert calls == [(tmp_path / "a").stat().st_ino, "replace", tmp_path.stat().st_ino]


@pytest.mark.skipif(sys.platform == "win32", reason="it stands for Windows elsewhere")
def test_atomic_file_flushes_by_a_descriptor_that_windows_takes(tmp_path, monkeypatch):
    """There, os.fsync refuses a descriptor that cannot be written to, and folders do not open."""
    import fcntl

    modes = []

    def fsync(descriptor):
        modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(sys, "platform", "win32")
    with atomic_file(tmp_path / "a") as part:
        part.write_bytes(b"content")
    assert modes == [os.O_RDWR] and (tmp_path / "a").read_bytes() == b"content"


def make_pipe(path):
    os.mkfifo(path)
    return path


def make_link(path, target):
    path.symlink_to(target)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder, "is a folder, expected a video"),
        (lambda folder: folder / "none.mp4", "there is no file"),
        (lambda folder: "https://example.org/a.mp4", "is a URL, expected a video: download it"),
        (lambda folder: Path("https://example.org/a.mp4"), "is a URL, expected a video: download"),
        (lambda folder: "s3://bucket/a.mp4", "is a URL"),
        (lambda folder: make_pipe(folder / "a.mp4"), "is a pipe, a socket or a device, expected"),
        (lambda folder: Path(os.devnull), "is a pipe, a socket or a device, expected a video"),
        (
            lambda folder: make_link(folder / "a.mp4", "a.mp4"),
            "is a symbolic link that leads",
        ),
        (lambda folder: make_link(folder / "a.mp4", "none"), "is a symbolic link that leads"),
        (
            lambda folder: folder / ("a" * 300),
            "cannot be read .File name too long., exp",
        ),
        (lambda folder: folder / "a\0.mp4", "there is no file"),
    ],
)
def test_check_file_says_what_a_path_is(tmp_path, make, words):
    with pytest.raises(InputError, match=words):
        check_file(make(tmp_path), "a video")


def test_check_file_takes_a_file_with_a_colon_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "12:30.mp4").touch()
    check_file("12:30.mp4")


def test_visible_files_leaves_hidden_ones_out_and_counts_them_in_one_line(tmp_path, caplog):
    for name in ("a.mp4", ".a.mp4", "._a.mp4", "sub/b.mp4", ".hidden/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with caplog.at_level("INFO", logger="mdmmt"):
        files = sorted(visible_files(tmp_path))
    assert files == [tmp_path / "a.mp4", tmp_path / "sub" / "b.mp4"]
    (record,) = caplog.records
    assert "3 hidden files and folders" in record.getMessage()

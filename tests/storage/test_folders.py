"""Folders that are replaced as a whole, by processes that are killed at every step."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest

from mdmmt.errors import InputError
from mdmmt.storage import folders
from mdmmt.storage.folders import atomic_folder, move_files
from mdmmt.weights.convert import convert

KEPT = "weights"
OLD = {"a": b"old", "sub/b": b"old", f"{KEPT}/w": b"mine"}
NEW = {"a": b"new", "sub/c": b"new"}
NEWER = {"d": b"newer"}
MOVES = ("os.rename", "os.remove", "os.rmdir", "ctypes.dlsym")  # the last before an exchange
CHANGES = (*MOVES, "os.mkdir", "os.symlink", "open")


@pytest.fixture(params=["exchange", "renames"])
def way(request, monkeypatch) -> str:
    """Folders are exchanged in one operation, or by renames, as on most systems."""
    if request.param == "renames":
        monkeypatch.setattr(folders, "_exchange_at_once", lambda *_: False)
    elif sys.platform != "linux":
        pytest.skip("this system cannot exchange folders in one operation")
    return request.param


@pytest.fixture
def no_flush(monkeypatch) -> None:
    """Nothing is flushed, which takes time: the disk outlives a process that is killed."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def fill(folder: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of each file; links are followed, as a reader does."""
    files = (
        Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names
    )
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def sizes(folder: Path) -> dict[str, int]:
    return {name: len(data) for name, data in snapshot(folder).items()}


def replace(out: Path, content: dict[str, bytes], keep: str | None) -> None:
    with atomic_folder(out, keep) as built:
        fill(built, content)


def killed_at_each_step(
    run: Callable[[], None], prepare: Callable[[], None], events: tuple[str, ...]
) -> Iterator[int]:
    """Run something in processes that are killed before their first event, their second, and so on.

    Python announces an event before each operation on files, see `sys.addaudithook`.
    """
    for step in range(1000):
        prepare()
        child = os.fork()
        if child == 0:
            left = [step]

            def count(event: str, _: object, left: list[int] = left) -> None:
                if event.startswith(events):
                    left[0] -= 1  # before, as `kill` is an event itself
                    if left[0] == -1:
                        os.kill(os.getpid(), signal.SIGKILL)

            try:
                sys.addaudithook(count)
                run()
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            assert step > 5
            return
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        yield step


@pytest.mark.slow
@pytest.mark.parametrize("keep", [KEPT, None])
def test_atomic_folder_leaves_the_old_or_the_new_one_when_it_is_killed(
    way, keep, tmp_path, no_flush
):
    out, kept = tmp_path / "out", {f"{KEPT}/w": b"mine"} if keep else {}

    def prepare() -> None:
        shutil.rmtree(tmp_path)
        fill(out, OLD)

    results = []
    for step in killed_at_each_step(lambda: replace(out, NEW, keep), prepare, CHANGES):
        if way == "exchange":
            assert snapshot(out) in (OLD, NEW | kept), step
        with pytest.raises(KeyError), atomic_folder(out, keep):  # the next run finds it as it was
            raise KeyError
        results.append(snapshot(out))
        assert results[-1] in (OLD, NEW | kept), step
        assert [path.name for path in tmp_path.iterdir()] == ["out"], step
        assert not any(path.is_symlink() for path in out.rglob("*")), step
        replace(out, NEWER, keep)
        assert snapshot(out) == NEWER | kept
    assert OLD in results and NEW | kept in results
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_atomic_folder_makes_a_new_folder_whole_or_not_at_all(way, tmp_path, no_flush):
    out = tmp_path / "parent" / "out"

    def prepare() -> None:
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()

    for step in killed_at_each_step(lambda: replace(out, NEW, None), prepare, CHANGES):
        assert not out.exists() or snapshot(out) == NEW, step
        replace(out, NEWER, None)
        assert snapshot(out) == NEWER
        assert [path.name for path in out.parent.iterdir()] == ["out"], step


@pytest.mark.slow
def test_convert_leaves_the_old_or_the_new_folder_when_it_is_killed(
    tiny_folder, tmp_path, no_flush
):
    out = tmp_path / "out"
    convert(tiny_folder, tmp_path / "new")
    new, old = sizes(tmp_path / "new"), sizes(tiny_folder)
    assert new != old  # which has no card

    def prepare() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tiny_folder, out)

    for step in killed_at_each_step(lambda: convert(tiny_folder, out), prepare, MOVES):
        assert sizes(out) in (old, new), step
    convert(tiny_folder, out)
    assert sizes(out) == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out"]


def test_atomic_folder_keeps_what_it_is_told_to(way, tmp_path):
    out = tmp_path / "out"
    fill(out, OLD)
    with pytest.raises(RuntimeError), atomic_folder(out, KEPT):
        raise RuntimeError
    assert snapshot(out) == OLD and list(tmp_path.iterdir()) == [out]
    replace(out, NEW, KEPT)
    assert snapshot(out) == NEW | {f"{KEPT}/w": b"mine"}
    assert list(tmp_path.iterdir()) == [out] and not (out / KEPT).is_symlink()


@pytest.mark.parametrize("failing", ["exchange", "rename"])
def test_atomic_folder_undoes_an_exchange_if_what_is_kept_cannot_be_moved(
    failing, tmp_path, monkeypatch
):
    """As if it were a mounted disk, which cannot be moved, and must not be emptied."""
    exchange, rename = folders._exchange_at_once, os.rename

    def busy(function):
        def call(first, second):
            if Path(first).name == KEPT:
                raise OSError(errno.EBUSY, "busy", str(first))
            return function(first, second)

        return call

    monkeypatch.setattr(folders, "_exchange_at_once", busy(exchange))
    if failing == "rename":
        monkeypatch.setattr(folders, "_exchange_at_once", lambda *_: False)
        monkeypatch.setattr(os, "rename", busy(rename))
    out = tmp_path / "out"
    fill(out, OLD)
    with pytest.raises(OSError, match="busy"):
        replace(out, NEW, KEPT)
    assert snapshot(out) == OLD and list(tmp_path.iterdir()) == [out]


def test_atomic_folder_never_deletes_what_is_kept(way, tmp_path, monkeypatch):
    """It is stopped after the exchange, while the old folder still holds it."""
    out = tmp_path / "out"
    fill(out, OLD)

    def stop(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folders, "_settle", lambda *_: None)
        patch.setattr(folders, "_move_kept", stop)
        replace(out, NEW, KEPT)
    assert snapshot(out) == NEW | {f"{KEPT}/w": b"mine"}
    shutil.rmtree(out)  # by its user
    with pytest.raises(RuntimeError), atomic_folder(out, KEPT):
        raise RuntimeError
    assert snapshot(out) == OLD and list(tmp_path.iterdir()) == [out]


def test_atomic_folder_does_without_links(way, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    fill(tmp_path / "out", OLD)
    replace(tmp_path / "out", NEW, KEPT)
    assert snapshot(tmp_path / "out") == NEW | {f"{KEPT}/w": b"mine"}


def scratch_of(out: Path, monkeypatch) -> Path:
    """The scratch folder of a process that was killed while its old folder was away."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folders, "_exchange_at_once", lambda *_: False)
        rename = os.rename

        def stop(first, second):
            rename(first, second)
            raise KeyboardInterrupt

        patch.setattr(os, "rename", stop)
        patch.setattr(folders, "_remove_built", lambda *_: None)
        replace(out, NEW, None)
    (scratch,) = (path for path in out.parent.iterdir() if path != out)
    return scratch


def test_atomic_folder_deletes_no_folder_that_it_cannot_put_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    fill(out, OLD)
    scratch = scratch_of(out, monkeypatch)
    assert not out.exists()
    fill(out, NEWER)  # somebody makes another one meanwhile
    with pytest.raises(InputError, match=f"was left at {scratch}.* move one of the two away"):
        replace(out, NEW, None)
    assert snapshot(out) == NEWER and snapshot(scratch / "moved") == OLD
    shutil.rmtree(out)
    replace(out, NEW, None)
    assert snapshot(out) == NEW and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("length", [1, 230, 255])
def test_atomic_folder_takes_any_name_that_the_disk_takes(length, way, tmp_path):
    out = tmp_path / ("x" * length)
    for content in (OLD, NEW):
        replace(out, content, None)
        assert snapshot(out) == content and list(tmp_path.iterdir()) == [out]


def test_atomic_folder_is_on_the_disk_before_it_has_its_name(way, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []
    fill(out, OLD)
    fsync, put = os.fsync, folders._exchange
    monkeypatch.setattr(os, "fsync", lambda f: calls.append(os.fstat(f).st_ino) or fsync(f))
    monkeypatch.setattr(folders, "_exchange", lambda *paths: calls.append("put") or put(*paths))
    replace(out, NEW, KEPT)
    new = {path.stat().st_ino for path in (out, *(out / name for name in (*NEW, "sub")))}
    before, after = calls[: calls.index("put")], calls[calls.index("put") + 1 :]
    assert set(before) == new
    assert after == [out.stat().st_ino, tmp_path.stat().st_ino]


def test_move_files_flushes_each_file_first(tmp_path, monkeypatch):
    source, target, calls = tmp_path / "source", tmp_path / "target", []
    fill(source, {"a": b"new", "b": b"new"})
    fill(target, {"a": b"old"})
    fsync, move = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: calls.append(os.fstat(f).st_ino) or fsync(f))
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append("move") or move(*paths))
    move_files(source, target)
    a, b, folder = (path.stat().st_ino for path in (target / "a", target / "b", target))
    assert calls == [a, "move", b, "move", folder]
    assert snapshot(target) == {"a": b"new", "b": b"new"} and not list(source.iterdir())


def test_atomic_folder_waits_for_another_process(tmp_path):
    out, read_end, write_end = tmp_path / "out", *os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with atomic_folder(out) as built:
                os.write(write_end, b"x")
                for number in range(50):
                    fill(built, {f"{number}": b"child"})
                    os.sched_yield()
            os._exit(0)
        finally:
            os._exit(1)
    os.read(read_end, 1)
    replace(out, NEW, None)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert snapshot(out) == NEW and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("kind", ["file", "link", "another user"])
def test_atomic_folder_refuses_a_scratch_folder_of_others(kind, tmp_path, monkeypatch):
    out, other = tmp_path / "out", tmp_path / "other"
    fill(out, OLD)
    scratch = scratch_of(out, monkeypatch)
    shutil.rmtree(scratch)
    fill(other, {"built/precious": b"mine"})
    if kind == "file":
        scratch.touch()
    elif kind == "link":
        scratch.symlink_to(other)
    else:
        scratch.mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: scratch.stat().st_uid + 1)
    with pytest.raises(InputError, match="is in the way"):
        replace(out, NEW, None)
    assert snapshot(other) == {"built/precious": b"mine"}


def test_atomic_folder_does_without_locks(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    replace(tmp_path / "out", NEW, None)
    assert snapshot(tmp_path / "out") == NEW and len(list(tmp_path.iterdir())) == 1

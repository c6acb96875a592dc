"""Milvus Lite in this process: its internal function may change, and other users stay out."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from index_windows import MODEL, segments

from mdmmt.errors import InputError, MissingDependency
from mdmmt.search import local_server
from mdmmt.search.index import Index

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")


@pytest.fixture
def database(tmp_path):
    return tmp_path / "library.db"


# The fence around Milvus Lite's internal function


@pytest.fixture
def fresh_probe(monkeypatch):
    """Forgets which way of serving a database works, before and after the test."""
    local_server._tested_way.cache_clear()
    yield
    monkeypatch.undo()
    local_server._tested_way.cache_clear()


def change_server(monkeypatch, change: str) -> None:
    """Make Milvus Lite a version whose internal function is missing or has changed."""
    from milvus_lite.adapter.grpc import server

    start = server.start_server_in_thread
    if change == "missing":
        monkeypatch.delattr(server, "start_server_in_thread")
    elif change == "other arguments":
        monkeypatch.setattr(server, "start_server_in_thread", lambda: start("never"))
    elif change == "other results":
        monkeypatch.setattr(server, "start_server_in_thread", lambda path, **where: path)
    elif change == "no answer":

        def elsewhere(path, host, port):
            return start(path, host=f"{host}-2", port=port)

        monkeypatch.setattr(server, "start_server_in_thread", elsewhere)
    elif change == "on a port":
        monkeypatch.setattr(server, "start_server_in_thread", lambda path, **where: start(path))
    elif change == "opens twice":
        opened = {}

        def shared(path, host, port):
            if path not in opened:
                opened[path] = host, start(path, host=host, port=port)
            elif opened[path][0] != host:
                os.symlink(f"{opened[path][0]}:0".removeprefix("unix:"), f"{host}:0"[5:])
            return opened[path][1]

        monkeypatch.setattr(server, "start_server_in_thread", shared)


def manage_servers(monkeypatch) -> None:
    """Give pymilvus' way of opening a database a server of its own, as a newer version has."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    from milvus_lite.exceptions import DataDirLockedError
    from milvus_lite.server_manager import server_manager_instance as manager

    running = {}

    def start_and_get_uri(path):
        if path not in running:  # else the same server serves again
            try:
                running[path] = start_server_in_thread(path)
            except DataDirLockedError:
                return None
        return f"http://127.0.0.1:{running[path][2]}"

    def release_server(path):
        server, database, _ = running.pop(path)
        server.stop(grace=1).wait()
        database.close()

    monkeypatch.setattr(manager, "start_and_get_uri", start_and_get_uri)
    monkeypatch.setattr(manager, "release_server", release_server)


EXPOSED = r"is open, every user of this machine can read and delete its rows"
CHANGES = ("missing", "other arguments", "other results", "no answer", "on a port", "opens twice")


@pytest.mark.parametrize("change", CHANGES)
def test_serve_falls_back_to_the_way_of_pymilvus(
    database, fresh_probe, monkeypatch, caplog, change
):
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(3))
    with local_server.serve(database.parent / "locked.db"):
        manage_servers(monkeypatch)
        change_server(monkeypatch, change)
        local_server._tested_way.cache_clear()
        locked = r"locked\.db' cannot be opened; it may be open"
        with pytest.warns(UserWarning, match=EXPOSED), pytest.raises(InputError, match=locked):
            local_server.serve(database.parent / "locked.db").__enter__()
    for count in (3, 6):  # opened twice, one after the other
        with pytest.warns(UserWarning, match=EXPOSED):
            index = Index.open(database, MODEL)
        with index:
            twice = r"library\.db' cannot be opened; it may be open"
            with pytest.warns(UserWarning, match=EXPOSED), pytest.raises(InputError, match=twice):
                Index.open(database, MODEL)
            assert index.count() == count
            assert len(index.search(segments(1).vectors[0], 20)) == count
            index.add("b.mp4", segments(3))
    (record,) = [r for r in caplog.records if r.name == "mdmmt.search.local_server"]
    assert record.levelno == logging.WARNING
    assert "opened as pymilvus opens them" in record.getMessage()


def test_serve_names_the_version_that_works(database, fresh_probe, monkeypatch):
    change_server(monkeypatch, "missing")  # the installed manager calls the same function
    with pytest.raises(InputError, match=rf"milvus-lite=={local_server.TESTED_VERSION}'"):
        Index.open(database, MODEL)
    assert not database.exists()


def test_serve_names_the_extra_without_milvus_lite(database, fresh_probe, monkeypatch):
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(MissingDependency, match=r"a local database .*'mdmmt\[index\]'"):
        Index.open(database, MODEL)


def test_serve_warns_of_nothing_with_the_installed_version(database, fresh_probe, caplog):
    Index.open(database, MODEL).close()
    assert local_server._tested_way() is local_server._serve_directly
    assert not [r for r in caplog.records if r.name.startswith("mdmmt")]


# Privacy: other users of the machine

CALLER = """
import json, os, socket, sys
for kind, address in json.loads(sys.argv[1]):
    try:
        if kind == "unix":
            socket.socket(socket.AF_UNIX).connect(address)
        else:
            socket.create_connection(("127.0.0.1", address), 10)
        print("connected")
    except OSError as error:
        print(type(error).__name__)
folder = sys.argv[2]
for attempt in (os.listdir, os.rmdir, lambda path: open(path + "/x", "w")):
    try:
        attempt(folder)
        print("done")
    except OSError as error:
        print(type(error).__name__)
"""


def listening_sockets() -> set[tuple[str, str | int]]:
    """The sockets on which this process listens, as the kernel lists them."""
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            own.add(os.readlink(descriptor))
        except OSError:  # the one that lists the folder
            continue
    found: set[tuple[str, str | int]] = set()
    for file in ("tcp", "tcp6"):
        for line in Path("/proc/self/net", file).read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and f"socket:[{cells[9]}]" in own:
                found.add(("tcp", int(cells[1].rpartition(":")[2], 16)))
    for line in Path("/proc/self/net/unix").read_text().splitlines()[1:]:
        cells = line.split(maxsplit=7)
        if cells[3] == "00010000" and f"socket:[{cells[6]}]" in own:
            found.add(("unix", cells[7]))
    return found


@pytest.mark.skipif(not Path("/proc/self/net/unix").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("length", [0, 100])
def test_serve_lets_no_other_user_of_the_machine_connect(database, tmp_path, monkeypatch, length):
    if os.geteuid() != 0:
        pytest.skip("needs root, to play another user")
    if length:  # too long for a socket
        long = tmp_path / ("x" * length)
        long.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(long))
    before = listening_sockets()
    previous = os.umask(0)
    try:
        index = Index.open(database, MODEL)
    finally:
        os.umask(previous)
    with index:
        index.add("a.mp4", segments(3))
        sockets = list(listening_sockets() - before)
        ((kind, address),) = sockets
        assert kind == "unix"
        folder = Path(str(address)).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        python = shutil.which("python3", path=os.defpath) or sys.executable
        command = [python, "-I", "-c", CALLER, json.dumps(sockets), str(folder)]

        def answers(**user):
            child = subprocess.run(
                command, capture_output=True, text=True, check=True, cwd="/", **user
            )
            return child.stdout.split()

        assert answers()[0] == "connected"  # the socket works, for its owner
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        assert answers(**nobody)[0] == "PermissionError"
        assert set(answers(**nobody)[1:]) <= {"PermissionError"}
        assert index.count() == 3
    assert not folder.exists()


def test_serve_removes_the_sockets_of_killed_processes_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = [
        tmp_path / f"mdmmt-index-{name}" for name in ("killed", "served", "new", "other", "starts")
    ]
    for folder in made:
        folder.mkdir()
    (made[3] / "milvus:0").write_text("a file")
    with (
        socket.socket(socket.AF_UNIX) as killed,
        socket.socket(socket.AF_UNIX) as served,
        socket.socket(socket.AF_UNIX) as starts,
    ):
        killed.bind(str(made[0] / "milvus:0"))
        served.bind(str(made[1] / "milvus:0"))
        served.listen()
        killed.close()
        for folder in made:
            os.utime(folder, (0, 0))
        starts.bind(str(made[4] / "milvus:0"))  # a server's, which is to listen next
        with local_server.serve(tmp_path / "a.db"):
            assert not made[0].exists()
        assert {*tmp_path.glob("mdmmt-*")} == {*made[1:]}


def test_serve_names_the_folder_of_temporary_files_with_too_long_a_path(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(local_server, "MAX_SOCKET_PATH", 10)
    with pytest.raises(InputError, match="TMPDIR"), local_server._serve_directly(tmp_path / "a.db"):
        pass
    assert not list(tmp_path.iterdir())

"""Milvus: local databases and servers."""

import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import index_windows
import numpy as np
import pytest
from index_windows import MODEL, segments

from mdmmt.cli import main
from mdmmt.errors import InputError, MissingDependency
from mdmmt.search import milvus
from mdmmt.search.index import FileEntry, Index

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")


@pytest.fixture
def database(tmp_path):
    return tmp_path / "library.db"


def test_a_full_disk_gets_a_sentence(database):
    from pymilvus.exceptions import MilvusException

    said = "[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"
    with (
        pytest.raises(InputError, match=r"'a.db' has no room left on its disk .*make room"),
        milvus.translate_errors("a.db"),
    ):
        raise MilvusException(message=said)
    other = "[Errno 5] Input/output error"
    with (
        pytest.raises(InputError, match=r"'a.db' was refused by Milvus: .*Errno 5"),
        milvus.translate_errors("a.db"),
    ):
        raise MilvusException(message=other)


@pytest.mark.slow
def test_index_if_large_keeps_a_search_exact(database, monkeypatch):
    monkeypatch.setattr(milvus, "MIN_INDEXED_ROWS", 200)
    part = segments(500)
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", part)
        for _ in range(2):
            queries = segments(20, seed=1).vectors
            best = np.argsort(-(queries @ part.vectors.T), axis=1)[:, :10]
            results = index.search(queries, k=10)
            assert [[int(hit.start_s) for hit in hits] for hits in results] == best.tolist()
            index.close()
            index = Index.open(database, MODEL)
        assert index._client.describe_index("mdmmt", "vector_idx")["index_type"] == "IVF_FLAT"
        index.close()


@pytest.mark.slow
def test_load_collection_replaces_an_index_file_cut_short(database, monkeypatch):
    monkeypatch.setattr(milvus, "MIN_INDEXED_ROWS", 100)
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(150))
    (file,) = database.rglob("*.idx")
    file.write_bytes(file.read_bytes()[:1000])
    with Index.open(database, MODEL) as index:
        part = segments(150)
        assert index.search(part.vectors[3], 1)[0].start_s == np.argmax(
            part.vectors @ part.vectors[3]
        )
    assert file.stat().st_size > 1000


def test_make_local_database_keeps_one_made_meanwhile(database):
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(3))
    milvus.make_local_database(database, MODEL)
    with Index.open(database) as index:
        assert index.count() == 3
    assert list(database.parent.iterdir()) == [database]


def test_read_identity_refuses_the_collection_of_another_program(database):
    from pymilvus import MilvusClient

    client = MilvusClient(str(database))
    client.create_collection("mdmmt", dimension=4)
    client.close()
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(database))
    with pytest.raises(InputError, match="that this package has not made"):
        Index.open(database, MODEL)


def test_connect_names_a_silent_server_without_its_password(monkeypatch):
    monkeypatch.setattr(milvus, "CONNECT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes a call and says nothing
        for port in (9, silent.getsockname()[1]):
            began = time.monotonic()
            with pytest.raises(InputError) as caught:
                Index.open(f"http://me:secret@127.0.0.1:{port}", MODEL)
            assert str(caught.value) == (
                f"'http://127.0.0.1:{port}' does not answer, expected a Milvus server that runs; "
                "what was added before is kept"
            )
            assert time.monotonic() - began < 20


# With a server


@pytest.mark.milvus_server
def test_server_that_answers_no_more_is_named(milvus_server, monkeypatch):
    monkeypatch.setattr(milvus, "ANSWER_S", 3)
    with Index.open(milvus_server.new_database(), MODEL) as index:
        index.add("a.mp4", segments(3))
        milvus_server.freeze(True)
        try:
            for call in (
                index.count,
                lambda: index.search(segments(1).vectors[0]),
                lambda: index.add("b.mp4", segments(1)),
            ):
                began = time.monotonic()
                with pytest.raises(
                    InputError, match=r"^'http://127.0.0.1:\d+/\w+' does not answer"
                ):
                    call()
                assert time.monotonic() - began < 30
        finally:
            milvus_server.freeze(False)
        monkeypatch.undo()
        assert index.count() in (3, 4)  # what was refused may have arrived


@pytest.mark.milvus_server
def test_server_killed_in_the_middle_of_a_build_loses_nothing(milvus_server, monkeypatch):
    """Calls wait until it runs again, so the build goes on."""
    monkeypatch.setattr(milvus, "ANSWER_S", 300)  # a busy machine takes long to start a server
    uri = milvus_server.new_database()
    acknowledged: list[int] = []
    failures: list[BaseException] = []

    def build() -> None:
        try:
            with Index.open(uri, MODEL) as index:
                for number in range(60):
                    files = [
                        FileEntry(f"{number}-{i}.mp4", segments(7, 10 * number + i), "", {})
                        for i in range(5)
                    ]
                    index.add_files(files)
                    acknowledged.append(number)
        except BaseException as error:
            failures.append(error)

    builder = threading.Thread(target=build)
    builder.start()
    for enough in (3, 20):
        while len(acknowledged) < enough:
            assert builder.is_alive(), failures
            time.sleep(0.01)
        time.sleep(0.05)
        milvus_server.kill()
        milvus_server.start()
    builder.join()
    assert not failures and acknowledged == list(range(60))
    with Index.open(uri) as index:
        assert index.count() == 60 * 5 * 7
        for number in range(60):
            for i in range(5):
                stored = index.segments(f"{number}-{i}.mp4").vectors
                assert np.array_equal(stored, segments(7, 10 * number + i).vectors)


@pytest.mark.milvus_server
def test_two_processes_write_to_a_server_at_once(milvus_server, tmp_path):
    uri = milvus_server.new_database()
    Index.open(uri, MODEL).close()
    script = tmp_path / "write.py"
    script.write_text(
        "import sys\n"
        "from index_windows import MODEL, segments\n"
        "from mdmmt.search import Index\n"
        "with Index.open(sys.argv[1], MODEL) as index:\n"
        "    for number in range(10):\n"
        "        index.add(f'{sys.argv[2]}-{number}.mp4', segments(3, number))\n"
        "        index.add('both.mp4', segments(2 + number % 3, number), sys.argv[2])\n"
        "    index.delete(f'{sys.argv[2]}-0.mp4', keep_out=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(index_windows.__file__).parent)}
    writers = [
        subprocess.Popen([sys.executable, "-W", "ignore", script, uri, name], env=environment)
        for name in ("a", "b")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    with Index.open(uri) as index:
        paths = {f"{name}-{number}.mp4" for name in "ab" for number in range(1, 10)}
        assert {file.path for file in index.files()} == {*paths, "both.mp4"}
        for name in "ab":
            assert index.is_deleted(f"{name}-0.mp4")
            for number in range(1, 10):
                stored = index.segments(f"{name}-{number}.mp4").vectors
                assert np.array_equal(stored, segments(3, number).vectors)
        both = index.segments("both.mp4").vectors
        assert any(np.array_equal(both, segments(2 + n % 3, n).vectors) for n in range(10))


@pytest.mark.milvus_server
def test_open_deletes_rows_that_a_killed_process_has_left(milvus_server, monkeypatch):
    uri = milvus_server.new_database()
    with Index.open(uri, MODEL) as index, monkeypatch.context() as patch:
        index.add("a.mp4", segments(5), "old")
        patch.setattr(Index, "_delete_ids", lambda self, ids: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            index.add("a.mp4", segments(2, seed=1), "new")
        assert index.count() == 2
    with Index.open(uri, MODEL) as index:
        assert index._call("query", filter='id != ""', output_fields=["count(*)"]) == [
            {"count(*)": 2}
        ]
        assert len(index.search(segments(1).vectors[0], 2)) == 2


@pytest.mark.milvus_server
def test_open_read_only_needs_no_copy_of_a_server(milvus_server):
    uri = milvus_server.new_database()
    with Index.open(uri, MODEL) as index, Index.open(uri, read_only=True) as reader:
        index.add("a.mp4", segments(3))
        assert reader.count() == 3
        with pytest.raises(InputError, match=r"127.0.0.1:\d+/\w+' was opened with read_only"):
            reader.add("b.mp4", segments(1))
    with pytest.raises(InputError, match="holds no index, expected one"):
        Index.open(milvus_server.new_database(), MODEL, read_only=True)


@pytest.mark.milvus_server
def test_server_that_asks_for_a_password(milvus_server, capfd):
    uri = milvus_server.new_database()
    with Index.open(uri, MODEL) as index:
        index.add("a.mp4", segments(3))
        assert index.count() == 3
    host, name = uri.split("@")[1].split("/")
    for user in ("root:wrong-one-2@", "nobody:wrong-one-2@", ""):
        with pytest.raises(InputError) as caught:
            Index.open(f"http://{user}{host}/{name}", MODEL)
        assert str(caught.value).startswith(f"'http://{host}/{name}' refused the user and the")
        shown = "".join(traceback.format_exception(caught.value))
        assert "wrong-one-2" not in shown + str(capfd.readouterr())
    assert main(["index", "list", "--db", f"http://root:wrong-one-2@{host}/{name}"]) == 1
    out, err = capfd.readouterr()
    assert err.count("\n") == 1 and "refused the user" in err and "wrong-one-2" not in out + err


def test_import_pymilvus_names_the_extra(database, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingDependency, match=r"an index .*'mdmmt\[index\]'"):
        Index.open(database, MODEL)


@pytest.mark.slow
def test_import_of_the_search_package_leaves_milvus_and_the_page_alone():
    script = "import sys, mdmmt.search; mdmmt.search.Index; print(*sys.modules, sep='\\n')"
    command = [sys.executable, "-W", "ignore", "-c", script]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "mdmmt.search.index" in names
    assert not {"pymilvus", "milvus_lite", "mdmmt.search.page"} & {*names}

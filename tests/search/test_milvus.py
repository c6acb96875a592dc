"""Milvus: local databases and servers."""

import subprocess
import sys

import numpy as np
import pytest
from index_windows import MODEL, segments

from mdmmt.errors import InputError, MissingDependency
from mdmmt.search import milvus
from mdmmt.search.index import Index

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")


@pytest.fixture
def database(tmp_path):
    return tmp_path / "library.db"


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


def test_connect_names_a_silent_server_without_its_password():
    with pytest.raises(InputError, match=r"'http://127.0.0.1:9' was refused") as caught:
        Index.open("http://me:secret@127.0.0.1:9", MODEL)
    assert "secret" not in str(caught.value)


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

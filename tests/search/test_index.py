"""The index: search, replacement of files, and the rows that survive a kill."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import index_windows
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_windows import DIM, MODEL, segments

import mdmmt
from mdmmt.errors import InputError
from mdmmt.model import Segments
from mdmmt.search import index as index_module
from mdmmt.search import milvus
from mdmmt.search.index import FileEntry, Index, stored_weights
from mdmmt.weights.identity import Identity, identity_of

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")
milvus_server = pytest.mark.milvus_server


def rows_of(index: Index) -> list[dict]:
    """All rows of a database, with those that no search returns."""
    fields = ["id", "path", "source", "segments", "vector"]
    return [dict(row) for row in index._call("query", filter='id != ""', output_fields=fields)]


@pytest.fixture
def database(tmp_path):
    return tmp_path / "library.db"


@pytest.fixture
def place(databases):
    """A database of Milvus Lite or of a server."""
    return databases("library")


@pytest.fixture(params=["local", "address", pytest.param("server", marks=milvus_server)])
def index(request, database):
    """An open index: of Milvus Lite, of Milvus Lite behind an address, and of a server."""
    if request.param == "local":
        with Index.open(database, MODEL) as index:
            yield index
    elif request.param == "server":
        server = request.getfixturevalue("milvus_server")
        with Index.open(uri := server.new_database(), MODEL) as index:
            yield index
        server.drop(uri)
    else:
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        server, lite, port = start_server_in_thread(str(database))
        with Index.open(f"http://127.0.0.1:{port}", MODEL) as index:
            yield index
        server.stop(grace=1).wait()
        lite.close()


def test_open_tells_where_the_model_is(place, tiny_model):
    assert stored_weights(str(place)) is None
    Index.open(place, identity_of(tiny_model.path, tiny_model.config)).close()
    with Index.open(place) as index:  # as an older version of this package makes it
        assert (index.weights, index.experts) == (None, None)
    Index.open(place, tiny_model).close()
    experts = tuple(expert.name for expert in tiny_model.config.video.experts)
    with Index.open(place) as index:
        assert (index.weights, index.experts) == (str(tiny_model.path), experts)
        assert index.model == identity_of(tiny_model.path, tiny_model.config)
        index.check_model(mdmmt.load(index.weights, "cpu"))
        with pytest.raises(InputError, match=r"embeddings of the model .* cannot be compared with"):
            index.check_model(mdmmt.load("sample", "cpu"))
    assert stored_weights(str(place)) == str(tiny_model.path)


def test_search_finds_what_numpy_finds(index):
    parts = {f"{i}.mp4": segments(7, seed=i) for i in range(9)}
    for path, part in parts.items():
        index.add(path, part)
    vectors = np.concatenate([part.vectors for part in parts.values()])
    places = [(path, i) for path in parts for i in range(7)]
    queries = segments(5, seed=99).vectors
    scores = queries @ vectors.T
    results = index.search(queries, k=10, with_vectors=True)
    assert len(results) == 5
    for query, hits in enumerate(results):
        best = np.argsort(-scores[query])[:10]
        assert [(hit.path, int(hit.start_s)) for hit in hits] == [places[i] for i in best]
        assert np.allclose([hit.score for hit in hits], scores[query][best], atol=1e-5)
        assert np.array_equal([hit.vector for hit in hits], vectors[best])
        assert all(hit.end_s == hit.start_s + 1.5 for hit in hits)
    assert [hit.id for hit in index.search(queries[0], k=3)] == [hit.id for hit in results[0][:3]]
    assert len(index.search(queries[0], k=100)) == len(vectors)


def test_hit_has_a_repr_that_fits_a_screen():
    vector = np.zeros(DIM, np.float32)
    hit = index_module.Hit("ab-0", "a b.mp4", 0.0, 28.8, 1.23456, {"year": 2020}, vector)
    shown = f"Hit(1.235: 'a b.mp4', 0 to 28.8 s, metadata={{'year': 2020}}, vector ({DIM},))"
    assert repr(hit) == shown
    hit = hit._replace(vector=None, metadata={})
    assert repr([hit, hit]) == "[{0}, {0}]".format("Hit(1.235: 'a b.mp4', 0 to 28.8 s)")
    assert len(repr(hit._replace(metadata={"text": "long " * 1000}))) < 300


def test_search_filters_by_metadata_and_by_path(index):
    odd = 'it\'s "50%" <b>\\.mp4'
    index.add("old.mp4", segments(2), metadata={"year": 1999, "tags": ["a"], "by": 'O"Neil'})
    index.add(odd, segments(2), metadata={"year": 2021, "deep": {"er": [1, None]}})
    query = segments(1).vectors[0]

    def paths(filter):
        return {hit.path for hit in index.search(query, filter=filter)}

    assert paths(None) == {"old.mp4", odd}
    assert paths("year >= 2000") == paths("year in [2020, 2021]") == {odd}
    assert paths("year > 1990 and start_s < 0.5") == {"old.mp4", odd}
    assert paths('by == "O\\"Neil"') == paths('path like "old%"') == {"old.mp4"}
    assert paths("nowhere == 3") == set()
    hits = {hit.path: hit.metadata for hit in index.search(query)}
    assert hits["old.mp4"] == {"year": 1999, "tags": ["a"], "by": 'O"Neil'}
    assert hits[odd] == {"year": 2021, "deep": {"er": [1, None]}}
    for filter in ("year >", 'path == "a', "year = 3", "}"):
        with pytest.raises(InputError, match=r"the filter .* was refused by Milvus: .+"):
            index.search(query, filter=filter)


def test_search_multiplies_the_blocks_of_experts(index):
    index.experts = ("CLIP", "VIDEO", "tf_vggish")
    part = segments(30)
    index.add("a.mp4", part)
    queries = segments(2, seed=1).vectors
    width = DIM // 3
    shares = [queries[:, i : i + width] @ part.vectors[:, i : i + width].T for i in (0, 8, 16)]
    for weights, scores in (
        ({"VIDEO": 2.5, "tf_vggish": 0}, shares[0] + 2.5 * shares[1]),
        ({}, shares[0] + shares[1] + shares[2]),
    ):
        results = index.search(queries, 5, expert_weights=weights)
        best = np.argsort(-scores, axis=1)[:, :5]
        assert [[int(hit.start_s) for hit in hits] for hits in results] == best.tolist()
        assert results[0][0].score == pytest.approx(scores[0].max(), abs=1e-5)
        alone = index.search(queries[0], 5, expert_weights=weights)
        assert [hit.id for hit in alone] == [hit.id for hit in results[0]]
    assert index.weigh(queries[0], {}).shape == (DIM,)
    index.experts = None
    with pytest.raises(InputError, match="does not name its experts"):
        index.search(queries, expert_weights={"CLIP": 1})


def test_add_replaces_a_file_added_before(index):
    for n, seed in ((5, 1), (2, 2), (6, 3)):
        part = segments(n, seed)
        index.add("a.mp4", part, source=f"content {seed}")
        index.add("b.mp4", segments(1))
        hits = index.search(part.vectors[0], k=20, with_vectors=True)
        mine = sorted((hit for hit in hits if hit.path == "a.mp4"), key=lambda hit: hit.start_s)
        assert np.array_equal([hit.vector for hit in mine], part.vectors)
        assert index.count() == n + 1
        stored = index.segments("a.mp4")
        assert np.array_equal(stored.vectors, part.vectors) and stored.vectors.dtype == np.float32
        assert np.array_equal(stored.spans_s, part.spans_s)
        assert index.source("a.mp4") == f"content {seed}"
        assert index.source("c.mp4") is None
        with pytest.raises(InputError, match=r"nothing of 'c\.mp4'"):
            index.segments("c.mp4")


def test_add_files_is_like_add_one_after_the_other(index):
    index.add("a.mp4", segments(6, seed=1), "old")
    index.add("kept.mp4", segments(1))
    index.add_files(
        FileEntry(path, segments(n, seed=n), f"content {n}", {"n": n})
        for path, n in (("a.mp4", 2), ("b.mp4", 3), ("c.mp4", 1), ("b.mp4", 4))
    )
    assert [(file.path, file.segments) for file in index.files()] == [
        *(("a.mp4", 2), ("b.mp4", 4), ("c.mp4", 1), ("kept.mp4", 1)),
    ]
    assert index.count() == len(rows_of(index)) == 8
    for path, n in (("a.mp4", 2), ("b.mp4", 4), ("c.mp4", 1)):
        assert np.array_equal(index.segments(path).vectors, segments(n, seed=n).vectors)
        assert (index.source(path), index.metadata(path)) == (f"content {n}", {"n": n})
    index.add_files([])
    bad = segments(1)._replace(vectors=np.full((1, DIM), np.nan))
    with pytest.raises(InputError, match="holds NaN"):
        index.add_files([FileEntry("d.mp4", segments(1), "", {}), FileEntry("e.mp4", bad, "", {})])
    assert index.count() == 8


def test_add_replaces_the_metadata(place):
    for reopen in (False, True):
        with Index.open(place, MODEL) as index:
            index.add("a.mp4", segments(1), metadata={"year": 1999})
            if not reopen:
                index.add("a.mp4", segments(1), metadata={})
        with Index.open(place, MODEL) as index:
            if reopen:
                index.add("a.mp4", segments(1), metadata={})
            query = segments(1).vectors[0]
            assert not index.search(query, filter="year == 1999")
            assert index.search(query)[0].metadata == {}


def test_files_gives_each_file_once(index):
    assert index.files() == []
    for number in range(25):  # a second page of a server
        index.add(f"/b/{24 - number:02}.mp4", segments(12 - number % 2), metadata={"n": number})
    index.add("/b/03.mp4", segments(1))
    index.delete("/b/04.mp4")
    files = index.files()
    assert [file.path for file in files] == [f"/b/{i:02}.mp4" for i in range(25) if i != 4]
    assert files[0] == ("/b/00.mp4", 12, {"n": 24})
    assert files[3] == ("/b/03.mp4", 1, {})


def test_delete_takes_files_and_folders(index):
    for path in ("/a/b/1.mp4", "/a/b/2.mp4", "/a/b.mp4", "/a/bc/3.mp4", "/d.mp4", "/d.mp4/4.mp4"):
        index.add(path, segments(2))
    assert index.delete("/a/b", "/d.mp4", "/nowhere") == 6
    assert [file.path for file in index.files()] == ["/a/b.mp4", "/a/bc/3.mp4", "/d.mp4/4.mp4"]
    assert index.delete("/a/b", "/a/") == 4
    assert index.count() == 2


def test_is_deleted_until_the_file_is_added_again(place):
    with Index.open(place, MODEL) as index:
        for path in ("a.mp4", "b.mp4", "c.mp4"):
            index.add(path, segments(2))
        index.delete("a.mp4", "b.mp4", "never.mp4", keep_out=True)
        index.delete("c.mp4")
    for _ in range(2):
        with Index.open(place, MODEL) as index:
            deleted = [path for path in "abc" if index.is_deleted(f"{path}.mp4")]
            assert deleted == ["a", "b"] and not index.is_deleted("never.mp4")
    with Index.open(place, MODEL) as index:
        index.add("a.mp4", segments(1))
        assert not index.is_deleted("a.mp4")
        index.delete("a.mp4")
        assert not index.is_deleted("a.mp4")
    with Index.open(place, MODEL) as index:
        assert index.is_deleted("b.mp4") and not index.is_deleted("a.mp4")


def test_is_deleted_knows_a_file_that_a_kill_has_kept(place, monkeypatch):
    with Index.open(place, MODEL) as index:
        index.add("a.mp4", segments(2))
        call = Index._call

        def kill(self, method, *args, **kwargs):
            if method == "delete":
                raise KeyboardInterrupt
            return call(self, method, *args, **kwargs)

        monkeypatch.setattr(Index, "_call", kill)
        with pytest.raises(KeyboardInterrupt):
            index.delete("a.mp4", keep_out=True)
        assert not index.is_deleted("a.mp4")  # so a build goes on to compare it with its file
        monkeypatch.undo()
        assert index.delete("a.mp4", keep_out=True) == 2 and index.is_deleted("a.mp4")


def test_delete_removes_all_segments_of_a_file(database, index):
    index.add("a.mp4", segments(3))
    index.add("b.mp4", segments(2))
    assert index.delete("a.mp4") == 3
    assert index.delete("a.mp4") == index.delete("never.mp4") == 0
    assert index.count() == 2
    assert {hit.path for hit in index.search(segments(1).vectors[0])} == {"b.mp4"}


def test_open_finds_all_that_was_added_before_close(place):
    with Index.open(place, MODEL) as index:
        index.add("a.mp4", segments(3), "x")
        index.add("b.mp4", segments(2))
    with Index.open(place) as index:
        assert index.count() == 5 and index.source("a.mp4") == "x"
        assert index.delete("a.mp4") == 3
    with Index.open(place) as index:
        assert index.count() == 2
        assert index.source("a.mp4") is None


@pytest.mark.slow
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example empties it
)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 5), st.booleans()), max_size=12
    )
)
def test_index_holds_what_a_dict_would_hold(place, steps):
    index, expected = Index.open(place, MODEL), {}
    index.delete(*(file.path for file in index.files()))
    for seed, (path, n, reopen) in enumerate(steps):
        if n == 0:
            assert index.delete(path) == len(expected.pop(path, ()))
        else:
            expected[path] = segments(n, seed).vectors
            index.add(path, segments(n, seed))
        if reopen:
            index.close()
            index = Index.open(place, MODEL)
    stored = {(row["path"], tuple(row["vector"])) for row in rows_of(index)}
    wanted = {(path, tuple(vector)) for path, rows in expected.items() for vector in rows.tolist()}
    assert stored == wanted and index.count() == len(wanted)
    index.close()


@pytest.mark.slow
def test_index_is_shared_by_threads(place, monkeypatch):
    monkeypatch.setattr(milvus, "MIN_INDEXED_ROWS", 40)  # reached on the way
    monkeypatch.setattr(index_module, "MAX_LOG_ROWS", 10)
    make_index = milvus.make_vector_index

    def slowly(*args):
        time.sleep(0.3)
        make_index(*args)

    monkeypatch.setattr(milvus, "make_vector_index", slowly)
    failed = []
    with Index.open(place, MODEL) as index:

        def work(thread):
            try:
                for i in range(10):
                    index.add(f"{thread}-{i}.mp4", segments(3, seed=i))
                    assert len(index.search(segments(1).vectors[0])) >= 3
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert index.count() == len(rows_of(index)) == 120


def test_index_prints_nothing(place, capfd):
    with Index.open(place, MODEL) as index:
        index.add("a.mp4", segments(3))
        with pytest.raises(InputError):
            index.search(segments(1).vectors[0], filter="year >")
    Index.open(place).close()
    assert capfd.readouterr() == ("", "")


# Opening


def test_open_refuses_the_embeddings_of_another_model(place):
    other = Identity("theirs", "1" * 64, DIM)
    Index.open(place, MODEL).close()
    with pytest.raises(InputError, match=r"ours \(weights 0{12}, 24 wide\).* theirs \(weights 1"):
        Index.open(place, other)
    Index.open(place, MODEL._replace(name="ours, by another name")).close()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("file", "is not a Milvus Lite database"),
        ("folder", "is not a Milvus Lite database"),
        ("missing", "there is no database"),
        ("no place", "there is no folder"),
    ],
)
def test_open_refuses_other_files_and_leaves_them_alone(tmp_path, kind, message):
    place = tmp_path / "library.db"
    model = MODEL
    if kind == "file":
        place.write_text("an old one")
    elif kind == "folder":
        (place / "holiday").mkdir(parents=True)
    elif kind == "missing":
        model = None
    else:
        place = tmp_path / "nowhere" / "library.db"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        Index.open(place, model)
    with pytest.raises(InputError, match=r"is not a Milvus Lite database|there is no database"):
        Index.open(place, MODEL, create=False)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("uri", "model", "words"),
    [
        ("a.db", "sample", "model is a str"),
        (None, MODEL, "uri is None"),
        ("", MODEL, "uri is '', expected a path"),
        ("a\0.db", MODEL, "expected a path"),
    ],
)
def test_open_refuses_other_arguments(uri, model, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        Index.open(uri, model)
    assert not list(tmp_path.iterdir())


def test_open_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with Index.open("~/library.db", MODEL) as index:
        index.add("a.mp4", segments(2))
    with Index.open(Path("~", "library.db"), create=False) as index:
        assert index.count() == 2
    assert [path.name for path in tmp_path.iterdir()] == ["library.db"]
    with pytest.raises(InputError, match="there is no database"):
        Index.open("~/none.db", MODEL, create=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        *("partitions/_default/data/*.parquet", "partitions/_default/data", "partitions/_default"),
        *("partitions/_default/delta/*.parquet", "partitions", "schema.json", "manifest.json"),
    ],
)
@pytest.mark.parametrize("model", [MODEL, None])
def test_open_refuses_a_database_that_lacks_files(database, pattern, model):
    with Index.open(database, MODEL) as index:
        for path in ("a.mp4", "b.mp4"):
            index.add(path, segments(3))
        index._flush()
        index.delete("a.mp4")
    (path,) = (database / "collections" / "mdmmt").glob(pattern)
    spare = database.parent / "spare"
    path.rename(spare)
    before = sorted(database.rglob("*"))
    with pytest.raises(InputError, match=r"lacks \d of its files, such as 'collections/mdmmt/"):
        Index.open(database, model)
    assert sorted(database.rglob("*")) == before
    spare.rename(path)
    with Index.open(database, MODEL) as index:
        assert index.count() == 3


# On a full disk


@contextmanager
def full_disk(max_file_size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as if the disk were full."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("when", ["add", "flush", "search", "delete"])
@pytest.mark.parametrize("goes_on", [False, True])
def test_index_keeps_what_was_added_before_the_disk_was_full(database, monkeypatch, when, goes_on):
    """`goes_on`: space is free again before the index is closed, and it is still used."""
    monkeypatch.setattr(index_module, "MAX_LOG_ROWS", 10)
    added = []
    index = Index.open(database, MODEL)
    with full_disk(200_000 if when == "add" else 1 << 30), suppress(InputError):
        for i in range(100 if when == "add" else 5):
            index.add(f"{i}.mp4", segments(20, seed=i), f"{i}")
            added.append(i)
    assert 5 <= len(added) < 100
    with full_disk(100):
        calls = {
            "add": lambda: index.add("new.mp4", segments(5)),
            "flush": index._flush,
            "search": lambda: index.search(segments(1).vectors[0]),
            "delete": lambda: index.delete("0.mp4"),
        }
        with pytest.raises(InputError, match=r"\[[Ee]rrno 27\]"):
            calls[when]()
        if not goes_on:
            index.close()
    if goes_on:
        for call in (*calls.values(), index.count):
            with pytest.raises(InputError, match=r"has failed before .* opened again"):
                call()
        index.close()
    for _ in range(2):
        with Index.open(database, MODEL) as index:
            assert index.count() == len(rows_of(index)) == 20 * len(added)
            for i in added:
                assert np.array_equal(index.segments(f"{i}.mp4").vectors, segments(20, i).vectors)
            assert index.source("new.mp4") is None


def test_close_makes_all_calls_fail(place):
    with Index.open(place, MODEL) as index:
        index.add("a.mp4", segments(2))
    for call in (index.count, lambda: index.add("a.mp4", segments(3)), lambda: index.source("a")):
        with pytest.raises(InputError, match=r"the index '.*library.*' was closed"):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.zeros(DIM - 1)}, r"vectors is \(23,\), expected \(n, 24\)"),
        ({"vectors": np.zeros((1, 1, DIM))}, "expected"),
        ({"k": 0}, "k is 0"),
        ({"k": 20_000}, "16384"),
        ({"k": True}, "k is True"),
        ({"filter": 3}, "filter is a int"),
    ],
)
def test_search_refuses_other_arguments(open_index, change, message):
    with pytest.raises(InputError, match=message):
        open_index.search(**{"vectors": np.zeros(DIM)} | change)


@pytest.fixture(scope="module")
def open_index(tmp_path_factory):
    with Index.open(tmp_path_factory.mktemp("shared") / "library.db", MODEL) as index:
        yield index


# Killed, and in two processes at once


def build(database, log):
    """A build that logs each file once `add` has returned, which means that the rows are stored."""
    index_module.MAX_LOG_BYTES, milvus.MIN_INDEXED_ROWS = 40_000, 300
    with log.open("a") as acknowledged, Index.open(database, MODEL) as index:
        print("open", file=acknowledged, flush=True)
        for version in (0, 1):
            for i in range(150):
                if index.source(f"{i}.mp4") in (f"{version}", "1"):
                    continue
                index.add(f"{i}.mp4", segments_of(i, version), f"{version}")
                print(i, version, file=acknowledged, flush=True)


def segments_of(i: int, version: int) -> Segments:
    return segments(1 + (7 * i + 3 * version) % 9, seed=1000 * version + i)


def fork_builds():
    """Start a build in a process of its own for each line read, so that imports are done once.

    Importing gRPC starts no thread, so a process may be forked after it.
    """
    for module in ("pymilvus", "milvus_lite.adapter.grpc.server"):
        importlib.import_module(module)

    assert threading.active_count() == 1
    for line in sys.stdin:
        database, log = map(Path, line.rstrip("\n").split("\t"))
        child = os.fork()
        if child == 0:
            build(database, log)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


@pytest.fixture(scope="module")
def start_build():
    """Start a build; gives its process id, and a function that waits for its exit status."""
    command = [sys.executable, __file__]
    environment = os.environ | {"PYTHONPATH": str(Path(index_windows.__file__).parent)}
    with subprocess.Popen(
        command, stdin=-1, stdout=-1, text=True, bufsize=1, env=environment
    ) as server:

        def start(database, log):
            print(database, log, sep="\t", file=server.stdin, flush=True)
            return int(server.stdout.readline()), lambda: int(server.stdout.readline())

        yield start
        server.stdin.close()


def wait_until_open(log: Path, times: int) -> None:
    deadline = time.monotonic() + 60
    while log.read_text().count("open") < times:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_add_survives_kills_at_twenty_moments(start_build, tmp_path):
    rng = np.random.default_rng(20)
    database, log = tmp_path / "library.db", tmp_path / "log"
    kills = opened = 0
    while kills < 20:
        if opened == 0:
            log.write_text("")
            shutil.rmtree(database, ignore_errors=True)
        process, wait = start_build(database, log)
        wait_until_open(log, opened + 1)
        time.sleep(rng.uniform(0, 0.4))
        with suppress(ProcessLookupError):  # the build may have ended
            os.kill(process, signal.SIGKILL)
        status = wait()
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        opened = opened + 1 if status else 0  # what was finished is begun anew
        check_rows(database, log)


def check_rows(database: Path, log: Path) -> None:
    lines = [line.split() for line in log.read_text().splitlines() if line != "open"]
    acknowledged = {int(i): int(version) for i, version in lines}
    with Index.open(database, MODEL) as index:
        rows = rows_of(index)
        assert len({row["id"] for row in rows}) == len(rows) == index.count()
        files = {}
        for row in rows:
            files.setdefault(int(row["path"].removesuffix(".mp4")), []).append(row)
        assert acknowledged.keys() <= files.keys()
        for i, of_file in files.items():
            (version,) = {int(row["source"]) for row in of_file}
            assert version >= acknowledged.get(i, 0)
            of_file.sort(key=lambda row: int(row["id"].split("-")[1]))
            vectors = np.array([row["vector"] for row in of_file], dtype=np.float32)
            assert np.array_equal(vectors, segments_of(i, version).vectors)


@pytest.mark.slow
def test_open_refuses_a_database_that_is_open(start_build, tmp_path):
    database, log = tmp_path / "library.db", tmp_path / "log"
    log.touch()
    process, wait = start_build(database, log)
    wait_until_open(log, 1)
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(InputError, match=r"library.db' is open elsewhere"):
        Index.open(database, MODEL)
    os.kill(process, signal.SIGCONT)
    os.kill(process, signal.SIGTERM)
    assert wait() == -signal.SIGTERM
    with Index.open(database, MODEL), pytest.raises(InputError, match="open elsewhere"):
        Index.open(database, MODEL)


def test_open_repairs_rows_that_are_in_log_and_database(database):
    """As a kill leaves them between the writing of the database and the deletion of the log."""
    with Index.open(database, MODEL) as index:
        index.add("a.mp4", segments(4), "x", {"year": 1999})
        (log,) = (database / "collections" / "mdmmt" / "wal").glob("*data*")
        content = log.read_bytes()
        index._flush()
    log.write_bytes(content)
    (database / milvus.UNCLEAN).touch()
    (file,) = database.rglob("*.parquet")
    written = file.stat().st_mtime_ns
    for _ in range(2):
        with Index.open(database, MODEL) as index:
            assert len(rows_of(index)) == index.count() == 4
            hits = index.search(segments(4).vectors[0], filter="year == 1999")
            assert len(hits) == 4 and hits[0].metadata == {"year": 1999}
    assert file.stat().st_mtime_ns == written  # a kill while it is written again would ruin it


def test_add_interrupted_before_its_deletes_leaves_the_new_segments(place, monkeypatch):
    ask = Index._call

    def stopped(self, method, *args, **kwargs):
        if method == "delete":
            raise KeyboardInterrupt
        return ask(self, method, *args, **kwargs)

    with Index.open(place, MODEL) as index:
        index.add("a.mp4", segments(5), "old")
        with monkeypatch.context() as patch:
            patch.setattr(Index, "_call", stopped)
            with pytest.raises(KeyboardInterrupt):
                index.add("a.mp4", segments(2, seed=1), "new")
        assert len(rows_of(index)) == 5
        assert len(index.search(segments(1).vectors[0], 10)) == 2
    with Index.open(place) as index:
        assert len(rows_of(index)) == index.count() == 2


# In Towhee


@pytest.mark.towhee
def test_index_serves_towhee_pipelines(sample_clips, tmp_path):
    from towhee import pipe

    clips = sample_clips(6, 7)[:3]
    model = mdmmt.load("sample")
    with Index.open(tmp_path / "library.db", model) as index:
        insert = (
            pipe.input("path")
            .map("path", "segments", lambda path: model.encode_segments(path))
            .map(("path", "segments"), "done", lambda path, segments: index.add(path, segments))
            .output("path")
        )
        search = (
            pipe.input("text")
            .map("text", "vec", lambda text: model.encode_text(text))
            .map("vec", "hits", lambda vec: index.search(vec, k=2))
            .output("text", "hits")
        )
        insert.batch([str(clip.path) for clip in clips])
        assert index.count() == 3
        colour_and_shape = clips[1].combination[:2]
        text = f"A {' '.join(colour_and_shape)}"
        row = search(text).get()
        best = index.search(model.encode_text(text), k=2)
        assert row == [text, best] and len(best) == 2


if __name__ == "__main__":
    fork_builds()

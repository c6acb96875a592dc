"""`mdmmt batch`: what it refuses before Ray starts; tests/batch/test_on_ray.py has its work."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

import mdmmt
from mdmmt.cli import main
from mdmmt.model import Segments
from mdmmt.sample import NOTICE
from mdmmt.search import Index, milvus
from mdmmt.search.sources import Source
from mdmmt.weights.identity import identity_of

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture(scope="module")
def sample():
    return mdmmt.load("sample", "cpu")


@pytest.fixture
def batch(videos, tmp_path, monkeypatch, capsys):
    """`batch(db)` gives the sentence with which the command refuses a database, if it does.

    `made` tells whether the database is there when the work begins; None: the command refuses it
    before that, and leaves --out alone.
    """
    monkeypatch.setattr("mdmmt.batch.on_ray.import_ray", lambda: None)

    def run(db, made=None):
        seen = []

        def run_on_ray(job):
            seen.append(Path(db).exists())
            return iter(())

        monkeypatch.setattr("mdmmt.batch.on_ray.run_on_ray", run_on_ray)
        out = tmp_path / "out"
        status = main(["batch", str(videos), "--weights=sample", f"--out={out}", f"--db={db}"])
        assert (status, seen) == ((1, []) if made is None else (0, [made]))
        assert out.exists() is (made is not None)
        first, *others = capsys.readouterr().err.splitlines()
        assert first == f"mdmmt: {NOTICE}"
        assert len(others) == (1 if made is None else 0)
        return "".join(others)

    return run


def add(db, model, source=""):
    with Index.open(db, model) as index:
        segments = Segments(np.ones((1, index.dim), np.float32), np.array([[0.0, 1.0]]))
        index.add("/other.mkv", segments, str(source))


def test_a_database_that_can_be_filled_is_left_as_it_was(batch, sample, tmp_path, monkeypatch):
    filled = []
    monkeypatch.setattr(
        "mdmmt.search.fill.fill_index", lambda index, parts: filled.append(index.count()) or 0
    )
    assert batch(tmp_path / "new.db", made=False) == ""
    add(tmp_path / "old.db", sample, Source([], sample.reader.versions_of("a.mkv")[0], "file"))
    assert batch(tmp_path / "old.db", made=True) == ""
    assert filled == [0, 1]


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"dim": 24}])
def test_a_database_of_another_model_is_refused_at_once(batch, sample, tmp_path, change):
    add(tmp_path / "a.db", identity_of(sample.path, sample.config)._replace(**change))
    err = batch(tmp_path / "a.db")
    assert "a.db' holds embeddings of the model" in err


@pytest.mark.parametrize(
    ("versions", "clock", "words"),
    [
        ({"motion": "0, media 1"}, "file", "the expert motion has the version"),
        ({}, "track", "their times go by the clock 'file', and by 'track' for '/other.mkv'"),
    ],
)
def test_a_database_of_other_features_is_refused_at_once(
    batch, sample, videos, tmp_path, versions, clock, words
):
    add(tmp_path / "a.db", sample, Source([], versions, clock))
    err = batch(tmp_path / "a.db")
    assert err.startswith(f"mdmmt: {videos / 'a.mkv'}: its features must not be mixed")
    assert words in err


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("file", "is not a Milvus Lite database"),
        ("folder", "is not a Milvus Lite database"),
        ("no place", "there is no folder"),
    ],
)
def test_a_place_that_can_hold_no_database_is_refused_at_once(batch, tmp_path, kind, words):
    place = tmp_path / "a.db"
    if kind == "file":
        place.write_text("an old one")
    elif kind == "folder":
        (place / "holiday").mkdir(parents=True)
    else:
        place = tmp_path / "nowhere" / "a.db"
    assert words in batch(place)
    assert place.exists() is (kind != "no place")


def test_a_database_that_is_open_elsewhere_is_refused_at_once(batch, sample, tmp_path):
    with Index.open(tmp_path / "a.db", sample):
        assert "a.db' is open elsewhere" in batch(tmp_path / "a.db")


def test_a_server_that_does_not_answer_is_named_at_once(batch, monkeypatch):
    monkeypatch.setattr(milvus, "CONNECT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes a call and says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        err = batch(f"http://me:secret@{address}")
    assert err.startswith(f"mdmmt: 'http://{address}' does not answer, expected a Milvus server")


@pytest.mark.milvus_server
def test_a_server_that_refuses_the_password_is_named_at_once(batch, milvus_server):
    host, name = milvus_server.new_database().split("@")[1].split("/")
    err = batch(f"http://root:wrong-one-2@{host}/{name}")
    assert err.startswith(f"mdmmt: 'http://{host}/{name}' refused the user and the password")
    assert "wrong-one-2" not in err

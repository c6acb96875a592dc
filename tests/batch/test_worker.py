"""The work of one actor, here in this process."""

from __future__ import annotations

import numpy as np
import pytest
from parquet_parts import rows_in

import mdmmt
from mdmmt.batch.parts import Parts
from mdmmt.batch.worker import Work, Worker
from mdmmt.weights.identity import identity_of


@pytest.fixture(scope="module")
def sample():
    return mdmmt.load("sample", "cpu")


@pytest.fixture
def begun(sample, tmp_path):
    """A work, and the mark of its run."""
    identity = identity_of(sample.path, sample.config)
    out = str(tmp_path / "out")
    settings = {"kind": "path", "model": identity._asdict()}
    work = Work("path", {"weight_path": "sample", "device": "cpu"}, identity, out, window_s=1.0)
    return work, Parts(out).begin(settings)


def test_a_portion_becomes_a_part(begun, sample, videos, tmp_path):
    work, mark = begun
    names = [str(videos / "a.mkv"), str(videos / "none.mkv"), str(videos / "silent.mkv")]
    done = Worker(work._replace(features=str(tmp_path / "kept"), root=str(videos)), mark)(names)
    (failure,) = done.failures
    assert (done.items, done.fatal, failure[0]) == (3, None, names[1])
    assert "there is no file" in failure[1]
    rows = {(row["path"], row["start_s"]): row for row in rows_in(tmp_path / "out")}
    for name in (names[0], names[2]):
        vectors, spans_s = sample.encode_segments(name, window_s=1.0)
        for vector, (start_s, _) in zip(vectors, spans_s, strict=True):
            np.testing.assert_array_equal(np.float32(rows[name, start_s]["vector"]), vector)
    assert (tmp_path / "kept" / "a.mkv.safetensors").is_file()
    # A feature file gives the same.
    file = str(tmp_path / "kept" / "a.mkv.safetensors")
    assert Worker(work, mark)([file]).failures == []
    row = {(row["path"], row["start_s"]): row for row in rows_in(tmp_path / "out")}[file, 1.0]
    assert row["vector"] == rows[names[0], 1.0]["vector"]
    assert row["features"] == file


def test_what_ends_a_run_is_told(begun, videos, tmp_path):
    work, mark = begun
    names = [str(videos / "a.mkv")]
    other = work._replace(identity=work.identity._replace(sha256="ab" * 32))
    assert "expected the same everywhere" in Worker(other, mark)(names).fatal
    assert "another `mdmmt batch`" in Worker(work, "an older mark")(names).fatal
    missing = work._replace(load={"weight_path": str(tmp_path / "none"), "device": "cpu"})
    assert "none" in Worker(missing, mark)(names).fatal
    assert not list((tmp_path / "out").glob("*.parquet"))

"""The checks of an index's arguments: each error names its argument, and nothing is stored."""

import numpy as np
import pytest

from mdmmt.errors import InputError
from mdmmt.model import Segments
from mdmmt.search.checks import (
    checked_expert_weights,
    checked_metadata,
    checked_path,
    checked_spans,
    checked_vectors,
)
from mdmmt.search.index import Index
from mdmmt.weights.identity import Identity

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")

DIM = 24
VECTORS = np.random.default_rng(0).standard_normal((2, DIM)).astype(np.float32)
SPANS_S = np.array([[0.0, 1.5], [1.0, 2.5]])


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    model = Identity("ours", "0" * 64, DIM)
    with Index.open(tmp_path_factory.mktemp("shared") / "library.db", model) as index:
        yield index


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.zeros((2, DIM + 1))}, r"vectors is \(2, 25\), expected \(n, 24\)"),
        ({"vectors": np.full((2, DIM), np.nan)}, "NaN"),
        ({"vectors": np.zeros((0, DIM))}, "at least 1"),
        ({"vectors": "words"}, "expected numbers"),
        ({"segments": np.zeros((2, DIM))}, "segments is a ndarray, expected mdmmt.model.Segments"),
        ({"spans_s": [[0, 1]]}, r"expected \(2, 2\)"),
        ({"spans_s": [[0, 1], [2, 1]]}, "start_s <= end_s"),
        ({"spans_s": [[0, 1], [0, np.inf]]}, "start_s <= end_s"),
        ({"path": ""}, "path is '', expected a path"),
        ({"path": b"a.mp4"}, "path"),
        ({"path": "\udcff.mp4"}, "Unicode"),
        ({"path": 3}, "path is 3"),
        ({"source": "x" * 70_000}, "source"),
        ({"source": None}, "source is None"),
        ({"metadata": {"path": "b.mp4"}}, "the name 'path'"),
        ({"metadata": {"$x": 1}}, "the name '\\$x'"),
        ({"metadata": {1: 2}}, "names as keys"),
        ({"metadata": {"x": np.nan}}, "JSON"),
        ({"metadata": {"x": object()}}, "JSON"),
        ({"metadata": {"x": "y" * 70_000}}, "70009 bytes of JSON"),
        ({"metadata": {"x": [{"y": 1 << 63}]}}, "9223372036854775808 has more than 64 bits"),
    ],
)
def test_add_refuses_other_arguments(index, change, message):
    part = Segments(change.pop("vectors", VECTORS), change.pop("spans_s", SPANS_S))
    with pytest.raises(InputError, match=message):
        index.add(**{"path": "a.mp4", "segments": part} | change)
    assert index.count() == 0


def test_checked_vectors_takes_one_vector_or_many():
    for vectors in (VECTORS[0], VECTORS[:1], VECTORS[0].tolist(), VECTORS[0].astype(np.float64)):
        rows = checked_vectors(vectors, DIM, "vectors")
        assert rows.dtype == np.float32 and np.array_equal(rows, VECTORS[:1])


def test_checked_spans_gives_plain_floats():
    assert checked_spans(np.array([[0, 1]]), 1) == [[0.0, 1.0]]


def test_checked_path_takes_a_path(tmp_path):
    assert checked_path(tmp_path) == checked_path(str(tmp_path)) == str(tmp_path)


def test_checked_metadata_gives_a_copy():
    metadata = {"year": 2021, "least": -(1 << 63), "deep": [{"path": None}]}
    copy = checked_metadata(metadata)
    assert copy == metadata and copy is not metadata


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"CLIP": -1}, r"expert_weights\['CLIP'\] is -1, expected 0 to"),
        ({"CLIP": float("nan")}, r"is nan, expected 0 to"),
        ({"CLIP": float("inf")}, r"is inf, expected 0 to"),
        ({"CLIP": True}, "is True, expected a number"),
        ({"CLIP": "2"}, "is '2', expected a number"),
        ({"clip": 2}, "names the expert 'clip', expected some of CLIP, VIDEO"),
        ({"CLIP": 0, "VIDEO": 0.0}, "is 0 for all experts"),
        ([1, 2], "expert_weights is a list, expected a dict"),
    ],
)
def test_checked_expert_weights_refuses(weights, words):
    with pytest.raises(InputError, match=words):
        checked_expert_weights(weights, ("CLIP", "VIDEO"))


def test_checked_expert_weights_keeps_the_order_of_the_blocks():
    weights = checked_expert_weights({"VIDEO": 3, "CLIP": np.float32(0.5)}, ("a", "CLIP", "VIDEO"))
    assert weights.tolist() == [1, 0.5, 3]

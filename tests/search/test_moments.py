"""Distinct moments: which windows merge, and that a search finds as many as there are."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_windows import DIM, MODEL

from mdmmt.errors import InputError
from mdmmt.model import Segments
from mdmmt.search import index as index_module
from mdmmt.search.index import Hit, Index
from mdmmt.search.moments import JOINS, Moments, overlap

QUERY = np.eye(1, DIM, dtype=np.float32)[0]


def window(path: str, start_s: float, end_s: float, score: float) -> Hit:
    return Hit(f"{path}-{start_s}-{end_s}-{score}", path, start_s, end_s, score, {})


def merged(windows: list[Hit], k: int = 100, per_video: int | None = None) -> list[tuple]:
    """The moments of windows: file, times, start of the best window, score."""
    moments = Moments()
    for one in sorted(windows, key=lambda one: -one.score):
        moments.add(one)
    return [
        (hit.path, hit.start_s, hit.end_s, hit.best_window_s[0], hit.score)
        for hit in moments.best(k, per_video)
    ]


def test_windows_that_overlap_or_touch_are_one_moment():
    scene = [window("a", 10, 20, 0.9), window("a", 15, 25, 0.8), window("a", 20, 30, 0.95)]
    assert merged(scene) == [("a", 10, 30, 20, 0.95)]
    apart = [window("a", 30.5, 40, 0.94), window("b", 10, 20, 0.93)]
    assert merged(scene + apart) == [
        ("a", 10, 30, 20, 0.95),
        ("a", 30.5, 40, 30.5, 0.94),
        ("b", 10, 20, 10, 0.93),
    ]


def test_a_weak_neighbour_does_not_lengthen_a_moment():
    weak = JOINS * 0.9 - 0.01
    windows = [window("a", 10, 20, 0.9), window("a", 15, 25, weak), window("a", 20, 30, weak)]
    # What shares time with the better one is left out; what touches it is a hit of its own.
    assert merged(windows) == [("a", 10, 20, 10, 0.9), ("a", 20, 30, 20, weak)]
    assert merged([window("a", 0, 1, -0.1), window("a", 1, 2, -0.11)]) == [
        ("a", 0, 1, 0, -0.1),
        ("a", 1, 2, 1, -0.11),
    ]


def test_each_window_is_compared_with_the_best_and_not_with_its_neighbour():
    slope = [window("a", i, i + 1, 0.9 - 0.05 * i) for i in range(10)]
    assert merged(slope)[0] == ("a", 0, 4, 0, 0.9)  # down to 0.75; 0.7 is less than 0.8 * 0.9


def test_a_window_between_two_moments_joins_them():
    windows = [window("a", 0, 2, 0.9), window("a", 3, 5, 0.85), window("a", 2, 3, 0.8)]
    assert merged(windows) == [("a", 0, 5, 0, 0.9)]
    assert merged(windows, per_video=1) == [("a", 0, 5, 0, 0.9)]


WINDOWS = st.lists(
    st.builds(
        lambda path, start, length, score: window(path, start / 2, (start + length) / 2, score),
        st.sampled_from("ab"),
        st.integers(0, 30),
        st.integers(1, 6),
        st.floats(-1, 1, width=32),
    ),
    max_size=40,
    unique_by=lambda one: one.score,
)


@given(WINDOWS, st.integers(1, 3))
def test_moments_share_no_time_and_have_one_score_throughout(windows, per_video):
    hits = Moments()
    for one in sorted(windows, key=lambda one: -one.score):
        hits.add(one)
    found = hits.best(100)
    assert not any(overlap(one, other) for one in found for other in found if one is not other)
    assert all(one.score > other.score for one, other in pairwise(found))
    for hit in found:
        inside = [
            one
            for one in windows
            if (one.path, True) == (hit.path, hit.start_s <= one.start_s and one.end_s <= hit.end_s)
        ]
        alike = [one for one in inside if one.score >= JOINS * hit.score] or [
            one for one in inside if one.score == hit.score
        ]
        assert max(alike, key=lambda one: one.score).id == hit.id
        # Windows of this score alone cover the moment, without a hole.
        covered = hit.start_s
        for one in sorted(alike, key=lambda one: one.start_s):
            assert one.start_s <= covered
            covered = max(covered, one.end_s)
        assert covered == hit.end_s
    # Every window is in a moment, or shares time with a better one.
    for one in windows:
        assert any(overlap(one, hit) and one.score <= hit.score for hit in found)
    assert hits.best(2) == found[:2]
    counted = hits.best(100, per_video)
    expected = [
        hit
        for i, hit in enumerate(found)
        if sum(other.path == hit.path for other in found[:i]) < per_video
    ]
    assert counted == expected


# In a database


def segments(scores: list[float], stride_s: float = 1.0, length_s: float = 1.5) -> Segments:
    """Windows that have these scores for QUERY."""
    vectors = np.random.default_rng(len(scores)).standard_normal((len(scores), DIM))
    vectors[:, 0] = scores
    starts = stride_s * np.arange(len(scores))
    return Segments(vectors.astype(np.float32), np.stack([starts, starts + length_s], axis=1))


def shown(hits: list[Hit]) -> list[tuple]:
    return [
        (hit.path, hit.start_s, hit.end_s, hit.best_window_s, round(hit.score, 4)) for hit in hits
    ]


@pytest.fixture(scope="module")
def index(new_database):
    pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")
    with Index.open(new_database(), MODEL) as index:
        rng = np.random.default_rng(3)
        # Files with more alike windows than the first step asks for, and others with few.
        index.add("long.mp4", segments(list(rng.uniform(0.81, 1, 150))), metadata={"year": 1999})
        index.add("even.mp4", segments(list(rng.uniform(0.7, 0.8, 150))), metadata={"year": 2020})
        for number in range(12):
            scores = list(rng.uniform(-0.5, 0.7, 9))
            index.add(f"{number}.mp4", segments(scores), metadata={"year": 2000 + number})
        yield index


def expected_moments(index: Index, filter: str | None = None) -> Moments:
    """The moments of all windows of an index."""
    moments = Moments()
    for hit in index.search(QUERY, index.count(), filter):
        moments.add(hit)
    return moments


@pytest.mark.parametrize("filter", [None, "year >= 2005", "start_s < 4 and year < 2019"])
@pytest.mark.parametrize("per_video", [None, 1, 2])
def test_find_moments_finds_what_all_windows_give(index, filter, per_video):
    every = expected_moments(index, filter)
    for k in (1, 3, 10, 1000):
        hits = index.find_moments(QUERY, k, filter, per_video=per_video)
        assert shown(hits) == shown(every.best(k, per_video))
        assert len(hits) == k or k == 1000 or (filter, per_video) != (None, None)
    best = index.find_moments(QUERY, 1)[0]
    assert (best.path, best.start_s, best.end_s) == ("long.mp4", 0, 150.5)
    assert best.best_window_s[1] - best.best_window_s[0] == 1.5
    (again,) = index.search(QUERY, 1, with_vectors=True)
    assert np.array_equal(best.vector, again.vector) and best.metadata == {"year": 1999}


def test_find_moments_gives_the_windows_themselves(index):
    plain = index.search(QUERY, 20, with_vectors=True)
    windows = index.find_moments(QUERY, 20, merge=False)
    assert [hit.id for hit in windows] == [hit.id for hit in plain]
    assert all(hit.best_window_s == (hit.start_s, hit.end_s) for hit in windows)
    two = index.find_moments(QUERY, 10, merge=False, per_video=2)
    assert [hit.path for hit in two[:4]] == ["long.mp4", "long.mp4", "even.mp4", "even.mp4"]
    assert len(two) == 10


@pytest.mark.parametrize("filter", [None, "year != 2003"])
@pytest.mark.parametrize("per_video", [None, 1, 2])
def test_find_moments_goes_on_behind_the_limit_of_a_search(index, monkeypatch, filter, per_video):
    every = expected_moments(index, filter).best(14, per_video)
    monkeypatch.setattr(index_module, "MAX_HITS", 40)
    hits = index.find_moments(QUERY, 14, filter, per_video=per_video)
    assert [hit.path for hit in hits[:2]] == ["long.mp4", "even.mp4"]
    assert shown(hits) == shown(every)


def test_find_moments_stops_to_look_for_neighbours(index, monkeypatch):
    monkeypatch.setattr(index_module, "ENOUGH_WINDOWS", 100)
    counts = []
    rows = Index._rows
    monkeypatch.setattr(
        Index, "_rows", lambda *arguments: counts.append(arguments[2]) or rows(*arguments)
    )
    (hit,) = index.find_moments(QUERY, 1, "year in [1999, 2020]")
    assert counts == [64, 256] and (hit.start_s, hit.end_s) == (0, 150.5)
    monkeypatch.setattr(index_module, "ENOUGH_WINDOWS", 10)
    (hit,) = index.find_moments(QUERY, 1, "year in [1999, 2020]")
    assert counts[2:] == [64] and hit.end_s - hit.start_s < 150


def test_find_moments_multiplies_the_blocks_of_experts(index, monkeypatch):
    monkeypatch.setattr(index, "experts", ("CLIP", "VIDEO", "tf_vggish"))
    weights = {"CLIP": 0.5}
    hits = index.find_moments(QUERY, 3, expert_weights=weights)
    plain = index.find_moments(QUERY, 3)
    assert [hit.score for hit in hits] == pytest.approx([hit.score / 2 for hit in plain])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is 0, expected a whole number from 1 to"),
        ({"per_video": 0}, "per_video is 0, expected a whole number from 1 to"),
        ({"per_video": True}, "per_video is True, expected"),
        ({"vector": np.zeros((2, DIM))}, r"vector is \(2, 24\), expected \(24,\)"),
        ({"vector": np.zeros(3)}, r"vector is \(3,\), expected \(n, 24\)"),
    ],
)
def test_find_moments_refuses_other_arguments(index, change, message):
    with pytest.raises(InputError, match=message):
        index.find_moments(**{"vector": QUERY} | change)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.lists(st.integers(-20, 20), min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(1, 6),
    st.sampled_from([None, 1, 2]),
)
def test_find_moments_of_any_scores(tmp_path_factory, files, k, per_video):
    pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")
    folder = tmp_path_factory.mktemp("moments")
    with Index.open(folder / "library.db", MODEL) as index:
        for number, scores in enumerate(files):
            distinct = [score + 0.01 * i + 0.001 * number for i, score in enumerate(scores)]
            index.add(f"{number}.mp4", segments(distinct))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(index_module, "FIRST_WINDOWS", 2)
            patch.setattr(index_module, "STEP", 2)
            hits = index.find_moments(QUERY, k, per_video=per_video)
        assert shown(hits) == shown(expected_moments(index).best(k, per_video))
    shutil.rmtree(folder)


# More like this


def test_window_is_found_by_its_id_and_by_its_time(index):
    for hit in index.search(QUERY, 3, with_vectors=True):
        window = index.window(hit.id)
        assert window._replace(vector=None, score=0) == hit._replace(vector=None, score=0)
        assert np.array_equal(window.vector, hit.vector)
        assert window.score == pytest.approx(float(hit.vector @ hit.vector))
    # The windows start each second and last 1.5.
    for time_s, start_s in ((3, 3), (3.04, 3), (2.96, 3), (3.4, 3), (3.9, 3), (9.4, 8), (0, 0)):
        assert index.window_at("3.mp4", time_s).start_s == start_s
    with pytest.raises(InputError, match=r"no window of '3\.mp4' .* second 10; .* from 0 to 9\.5"):
        index.window_at("3.mp4", 10)
    with pytest.raises(InputError, match=r"the index has nothing of 'none\.mp4'"):
        index.window_at("none.mp4", 0)
    missing = index_module.segment_id("3.mp4", 9)
    for id_ in ("", "3.mp4", missing, f'{missing}"] or id in ["', None):
        with pytest.raises(InputError, match="the index has no window"):
            index.window(id_)


@pytest.mark.parametrize("merge", [True, False])
def test_find_moments_leaves_out_what_shares_time_with_a_hit(index, merge):
    window = index.window_at("3.mp4", 4)
    hits = index.find_moments(window.vector, 20, merge=merge, besides=window)
    plain = index.find_moments(window.vector, 60, merge=merge)
    assert len(hits) == 20
    others = [hit.id for hit in plain if not overlap(hit, window)]
    assert [hit.id for hit in hits] == others[:20]
    assert not any(hit.path == "3.mp4" and 2.5 < hit.start_s < 5.5 for hit in hits)
    if not merge:  # those that only touch it are there
        three = index.find_moments(window.vector, 300, "path == '3.mp4'", merge=False)
        assert len(three) == 9
        some = index.find_moments(window.vector, 9, "path == '3.mp4'", merge=False, besides=window)
        assert sorted(hit.start_s for hit in some) == [0, 1, 2, 6, 7, 8]


# A text and a video together


def test_combine_counts_each_vector_as_much(index, monkeypatch):
    monkeypatch.setattr(index, "experts", ("CLIP", "VIDEO", "tf_vggish"))
    rng = np.random.default_rng(0)
    units = rng.standard_normal((2, 3, DIM // 3))
    units /= np.linalg.norm(units, axis=2, keepdims=True)
    text = (units[0] * np.array([[0.7], [0.2], [0.1]])).reshape(DIM)
    video = units[1].reshape(DIM)
    combined = index.combine(text, video)
    np.testing.assert_allclose(combined, text / 2 + video / 6, atol=1e-6)
    assert combined.dtype == np.float32 and combined.shape == (DIM,)
    # An expert that a video lacks does not lessen its part.
    without_sound = np.concatenate([video[:16], np.zeros(8)])
    np.testing.assert_allclose(
        index.combine(text, without_sound), text / 2 + without_sound / 4, atol=1e-6
    )
    monkeypatch.setattr(index, "experts", None)
    with pytest.raises(InputError, match="does not name its experts"):
        index.combine(text, video)

"""Ranks against a naive version, ties above all, and metrics, intervals and tests from ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import naive_ranks

from mdmmt import InputError
from mdmmt.evaluation.metrics import METRICS, compare, intervals, make_galleries, ranks, summary


def check(text, video, captions, segments, chunk_size):
    found = make_galleries(captions, segments)
    text_of, segment_of = found.text_of, found.segment_of
    text, video = text[: len(found.texts)], video[: len(found.segments)]
    t2v, v2t = ranks(text, video, text_of, segment_of, chunk_size)
    expected = naive_ranks(text, video, captions, segments, text_of, segment_of)
    assert (t2v.tolist(), v2t.tolist()) == expected
    assert t2v.dtype == v2t.dtype == np.int64


queries = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.integers(0, 6)), min_size=1, max_size=20
)


@pytest.mark.slow
@given(queries, st.integers(0, 2**32 - 1), st.integers(1, 9))
@settings(deadline=None, max_examples=200)
def test_ranks_with_many_ties(queries, seed, chunk_size):
    """Few different whole numbers: captions and segments of all kinds tie."""
    rng = np.random.default_rng(seed)
    text, video = rng.integers(-1, 2, (2, 7, 3)).astype(np.float32)
    check(text, video, *zip(*queries, strict=True), chunk_size)


@pytest.mark.slow
@given(queries, st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([1e-20, 1, 1e12]))
@settings(deadline=None, max_examples=100)
def test_ranks_of_equal_embeddings_tie_in_any_order(queries, seed, chunk_size, size):
    """Float sums of 700 products depend on their order; equal rows must tie for all that."""
    rng = np.random.default_rng(seed)
    text, video = rng.standard_normal((2, 3, 700)).astype(np.float32)
    text, video = (size * text[rng.integers(3, size=7)]), video[rng.integers(3, size=7)]
    check(text, video, *zip(*queries, strict=True), chunk_size)


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 1000])
def test_ranks_do_not_depend_on_the_chunk_size(chunk_size):
    rng = np.random.default_rng(3)
    text, video = rng.standard_normal((150, 96)), rng.standard_normal((40, 96))
    text[75:], video[20:] = text[:75], video[:20]
    text, video = text.astype(np.float32), video.astype(np.float32)
    captions = [f"caption {i}" for i in rng.integers(150, size=300)]
    segments = rng.integers(40, size=300).tolist()
    check(text, video, captions, segments, chunk_size)


def test_ranks_of_equal_scores_are_last():
    n = 9
    t2v, v2t = ranks(np.ones((n, 5)), np.ones((n, 5)), np.arange(n), np.arange(n))
    assert t2v.tolist() == v2t.tolist() == [n] * n
    zeros = ranks(np.zeros((n, 5)), np.zeros((n, 5)), np.arange(n), np.arange(n))
    assert zeros.t2v.tolist() == zeros.v2t.tolist() == [n] * n


def test_ranks_let_captions_of_one_segment_and_segments_of_one_caption_not_compete():
    captions, segments = ["a dog", "a cat", "a dog"], ["x", "x", "y"]
    found = make_galleries(captions, segments)
    assert found.texts == ["a dog", "a cat"]
    assert found.segments == ["x", "y"]
    t2v, v2t = ranks(np.ones((2, 3)), np.ones((2, 3)), found.text_of, found.segment_of)
    assert t2v.tolist() == [1, 2, 1]
    assert v2t.tolist() == [1, 1, 2]


def test_make_galleries_counts_each_caption_by_itself_under_single():
    captions, segments = ["a dog", "a dog", "a cat"], ["x", "y", "z"]
    single = make_galleries(captions, segments, "single")
    assert single.texts == captions
    t2v, v2t = ranks(np.eye(3)[[0, 0, 2]], np.eye(3), single.text_of, single.segment_of)
    assert t2v.tolist() == [
        1,
        3,
        1,
    ]  # the second one's own video is beaten, and ties with the third
    assert v2t.tolist() == [2, 3, 1]
    unique = make_galleries(captions, segments)
    assert unique.texts == ["a dog", "a cat"]
    with pytest.raises(InputError, match="the segment x has several captions"):
        make_galleries(captions, ["x", "y", "x"], "single")
    with pytest.raises(InputError, match="protocol is 'best', expected one of unique, one-"):
        make_galleries(captions, segments, "best")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_ranks_refuses_nan_and_infinity(bad):
    good = np.ones((3, 4), dtype=np.float32)
    broken = good.copy()
    broken[1, 2] = bad
    with pytest.raises(InputError, match="embedding of text 1 holds NaN or infinity"):
        ranks(broken, good, np.arange(3), np.arange(3))
    with pytest.raises(InputError, match="embedding of segment 1 holds NaN or infinity"):
        ranks(good, broken, np.arange(3), np.arange(3))


@pytest.mark.parametrize(
    ("text", "video", "text_of", "segment_of"),
    [
        ((3, 4), (3, 5), [0], [0]),
        ((4,), (3, 4), [0], [0]),
        ((3, 4), (3, 4), [], []),
        ((3, 4), (3, 4), [0, 1], [0]),
        ((3, 4), (3, 4), [3], [0]),
        ((3, 4), (3, 4), [0], [-1]),
    ],
)
def test_ranks_refuses_shapes_and_rows_that_do_not_fit(text, video, text_of, segment_of):
    with pytest.raises(InputError, match=r"expected \(|outside the 3"):
        ranks(np.ones(text), np.ones(video), np.array(text_of, int), np.array(segment_of, int))


def naive_summary(ranks):
    ordered, n = sorted(ranks), len(ranks)
    recalls = [100 * sum(rank <= k for rank in ranks) / n for k in (1, 5, 10, 50)]
    return [*recalls, ordered[(n - 1) // 2], sum(ranks) / n]


@given(st.lists(st.integers(1, 80), min_size=1, max_size=60))
def test_summary_equals_the_naive_metrics(values):
    found = summary(np.array(values))
    assert tuple(found) == METRICS == ("R@1", "R@5", "R@10", "R@50", "MedR", "MeanR")
    assert list(found.values()) == pytest.approx(naive_summary(values))
    assert found["MedR"] == naive_summary(values)[4]


def test_summary_takes_the_lower_median():
    assert summary(np.array([4, 1, 2, 9]))["MedR"] == 2


@pytest.mark.parametrize("bad", [[], [0, 1], [1.5], [[1]]])
def test_summary_refuses_other_than_ranks(bad):
    with pytest.raises(InputError, match="expected whole numbers"):
        summary(np.array(bad))


def skewed(n, seed=0):
    return 1 + np.random.default_rng(seed).geometric(0.08, size=n)


@pytest.mark.slow
def test_intervals_equal_a_plain_bootstrap():
    values = skewed(400)
    rng = np.random.default_rng(1)
    plain = [naive_summary(rng.choice(values, 400).tolist()) for _ in range(2000)]
    low, high = np.quantile(plain, [0.05, 0.95], axis=0)
    found = intervals(values, confidence=0.9)
    spread = np.std(plain, axis=0)
    for i, name in enumerate(METRICS):
        assert found[name] == pytest.approx((low[i], high[i]), abs=max(0.25 * spread[i], 1e-9)), (
            name
        )
    assert found == intervals(values, confidence=0.9)
    assert found != intervals(values, confidence=0.9, seed=1)


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_promise():
    truth = 100 * (1 - 0.92**9)  # R@10 of ranks that are 1 plus a geometric variable
    covered = 0
    for seed in range(200):
        low, high = intervals(skewed(300, seed), confidence=0.9, resamples=200)["R@10"]
        covered += low <= truth <= high
    assert 165 <= covered <= 194


def test_compare_pairs_the_queries():
    first = skewed(500)
    better = np.maximum(first - 1, 1)
    found = compare(first, better, resamples=500)
    assert tuple(found) == METRICS
    mean = found["MeanR"]
    assert mean.first == first.mean()
    assert mean.second == better.mean()
    assert mean.difference == pytest.approx(better.mean() - first.mean())
    assert mean.low <= mean.difference <= mean.high < 0
    assert mean.p_value == 1 / 501
    # Unpaired, so small a difference would be lost in the spread of the ranks.
    apart = compare(first, np.random.default_rng(2).permutation(better), resamples=500)["MeanR"]
    assert apart.low < 0 < apart.high


def test_compare_finds_no_difference_of_a_run_to_itself():
    for one in compare(skewed(50), skewed(50), resamples=100).values():
        assert (one.difference, one.low, one.high, one.p_value) == (0, 0, 0, 1)


@pytest.mark.slow
def test_compare_spreads_p_values_evenly_for_equal_runs():
    rng = np.random.default_rng(7)
    p_values = []
    for seed in range(150):
        pair = 1 + rng.geometric(0.1, size=(2, 60))
        p_values.append(compare(*pair, resamples=99, seed=seed)["MeanR"].p_value)
    assert 0.40 < np.mean(p_values) < 0.60
    assert np.mean(np.array(p_values) <= 0.1) < 0.2


def test_compare_and_intervals_refuse_bad_arguments():
    with pytest.raises(InputError, match="the runs have 3 and 4 ranks"):
        compare(np.array([1, 2, 3]), np.array([1, 2, 3, 4]))
    with pytest.raises(InputError, match="confidence is 95"):
        intervals(np.array([1, 2]), confidence=95, resamples=2)

"""Segments of a video against a naive reading of the rule, and windows that lose nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmmt import InputError
from mdmmt.features import ExpertFeatures
from mdmmt.features.segments import overlaps, select, windows

GRID_S = 0.25  # times on a coarse grid, so that segments often start and end on a border


def expert(*spans, dim=2):
    """Features that hold their own row number, and the given times."""
    n = len(spans)
    values = np.repeat(np.arange(n, dtype=np.float32)[:, None], dim, axis=1)
    return ExpertFeatures(values, np.array(spans, dtype=np.float64).reshape(n, 2))


def rows(selected, name="a"):
    """The row numbers that were selected."""
    return selected[name].values[:, 0].astype(int).tolist()


@st.composite
def experts(draw):
    """One to three experts whose intervals follow each other, touch, or leave gaps."""
    extracted = {}
    for name in "abc"[: draw(st.integers(1, 3))]:
        steps = draw(st.lists(st.integers(0, 6), min_size=2, max_size=16))
        borders = np.cumsum(steps[: len(steps) // 2 * 2]) * GRID_S
        extracted[name] = expert(*borders.reshape(-1, 2))
    return extracted


times_s = st.integers(-2, 60).map(lambda step: step * GRID_S / 2)


def naive_run(spans, start_s, end_s):
    holds_start = [i for i, (a, b) in enumerate(spans) if a <= start_s <= b]
    holds_end = [i for i, (a, b) in enumerate(spans) if a <= end_s <= b]
    before = [i for i, (_, b) in enumerate(spans) if b < start_s]
    after = [i for i, (a, _) in enumerate(spans) if a > end_s]
    first = holds_start[0] if holds_start else before[-1] if before else 0
    last = holds_end[0] if holds_end else after[0] if after else len(spans) - 1
    return list(range(first, last + 1))


@given(experts(), times_s, times_s | st.none())
@settings(deadline=None, max_examples=300)
def test_select_follows_the_rule(extracted, start_s, end_s):
    longest = max(one.times_s[-1, 1] for one in extracted.values())
    stop_s = longest if end_s is None else end_s
    if start_s >= stop_s and not (start_s <= 0 and end_s is None):
        with pytest.raises(InputError, match="no length"):
            select(extracted, start_s, end_s)
        assert not overlaps(extracted, start_s, end_s)
        return
    selected = select(extracted, start_s, end_s)
    assert selected.keys() == extracted.keys()
    for name, one in selected.items():
        run = rows(selected, name)
        if not (start_s <= 0 and end_s is None):
            assert run == naive_run(extracted[name].times_s.tolist(), start_s, stop_s)
        np.testing.assert_array_equal(one.values, extracted[name].values[run])
        np.testing.assert_array_equal(one.times_s, extracted[name].times_s[run])
    touches = [
        not (stop_s < one.times_s[0, 0] or start_s > one.times_s[-1, 1])
        for one in extracted.values()
    ]
    assert overlaps(extracted, start_s, end_s) == any(touches)


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (1.0, 2.0, [0, 1]),  # a border belongs to the first interval that has it
        (1.1, 1.9, [1]),
        (2.5, 2.6, [1, 2]),  # in a gap: the one before and the one after
        (0.0, 2.5, [0, 1, 2]),
        (2.5, 9.0, [1, 2]),
        (8.0, 9.0, [2]),  # outside: the nearest
        (2.0, None, [1, 2]),
        (0.0, None, [0, 1, 2]),
        (1.5, math.inf, [1, 2]),
    ],
)
def test_select_takes_borders_gaps_and_ends_as_the_authors_do(start_s, end_s, expected):
    extracted = {"a": expert((0, 1), (1, 2), (3, 4))}
    assert rows(select(extracted, start_s, end_s)) == expected


def test_select_without_an_end_goes_to_the_end_of_the_longest_expert():
    extracted = {"a": expert((0, 1), (1, 2)), "b": expert((0, 5), (5, 9))}
    assert rows(select(extracted, 3, None)) == [1]
    assert rows(select(extracted, 3, None), "b") == [0, 1]
    assert overlaps(extracted, 8, None)
    assert not overlaps(extracted, 9, None)


def test_overlaps_is_true_if_a_segment_touches_one_expert():
    extracted = {"a": expert((1, 2)), "b": expert((3, 5))}
    assert overlaps(extracted, 5.0, 6.0)
    assert overlaps(extracted, 0.0, 1.0)
    assert not overlaps(extracted, 5.1, 6.0)
    assert not overlaps(extracted, 0.0, 0.9)
    assert not overlaps(extracted, 2.0, 2.0)
    assert not overlaps({}, 0, None)


def test_select_leaves_an_expert_without_features_out():
    extracted = {"a": expert((0, 1)), "b": expert()}
    assert select(extracted, 0, 1).keys() == {"a"}
    assert select(extracted, 0, None).keys() == {"a"}
    assert windows(extracted, 1, 1)[0][1].keys() == {"a"}


def test_select_without_times_takes_the_whole_video_only():
    extracted = {"a": expert((0, 1), (1, 2)), "b": expert((math.nan, math.nan))}
    assert select(extracted, 0, None).keys() == {"a", "b"}
    assert overlaps(extracted, 0, None)
    for cut in (
        lambda: select(extracted, 0, 1),
        lambda: select(extracted, 1, None),
        lambda: overlaps(extracted, 0, 1),
        lambda: windows(extracted, 1, 1),
    ):
        with pytest.raises(InputError, match="expert b have no times"):
            cut()


@pytest.mark.parametrize("spans", [[(1, 2), (0, 1)], [(2, 1)], [(-1, 1)], [(0, 5), (1, 4)]])
def test_select_refuses_times_out_of_order(spans):
    for cut in (select, overlaps, windows):
        with pytest.raises(InputError, match="times of the expert a are negative or out of order"):
            cut({"a": expert(*spans)}, 1, 1 if cut is windows else 2)


def naive_windows(extracted, window_s, stride_s):
    video_end_s = max(one.times_s[-1, 1] for one in extracted.values())
    found, k = [], 0
    while True:
        start_s, end_s = k * stride_s, k * stride_s + window_s
        last = end_s >= video_end_s
        part = {}
        for name, one in extracted.items():
            part[name] = [
                i for i, (a, b) in enumerate(one.times_s)
                if start_s <= (a + b) / 2 and (last or (a + b) / 2 < end_s)
            ]  # fmt: skip
        if any(part.values()):
            found.append(((start_s, min(end_s, video_end_s)), part))
        if last:
            return found
        k += 1


@given(experts(), st.integers(1, 20), st.integers(1, 20))
@settings(deadline=None, max_examples=200)
def test_windows_follow_the_rule(extracted, first, second):
    window_s, stride_s = max(first, second) * GRID_S, min(first, second) * GRID_S
    cut = windows(extracted, window_s, stride_s)
    expected = naive_windows(extracted, window_s, stride_s)
    assert [span for span, _ in cut] == [span for span, _ in expected]
    for (_, part), (_, runs) in zip(cut, expected, strict=True):
        assert {name: rows(part, name) for name in part} == {n: r for n, r in runs.items() if r}


@given(
    st.integers(1, 400),
    st.sampled_from([0.96, 1.0, 1 / 3, 0.1]),
    st.floats(0.05, 40, allow_nan=False),
)
@settings(deadline=None)
def test_windows_side_by_side_hold_each_feature_once(n, hop_s, window_s):
    starts = hop_s * np.arange(n)
    extracted = {"a": expert(*np.stack([starts, starts + hop_s], axis=1))}
    cut = windows(extracted, window_s, window_s)
    assert [row for _, part in cut for row in rows(part)] == list(range(n))
    assert all(a < b for (a, b), _ in cut)


def test_windows_hold_a_middle_on_a_border_once():
    window_s = 0.1  # 2 * 0.1 + 0.1 and 3 * 0.1 are one number, 5 * 0.1 + 0.1 and 6 * 0.1 are not
    middles = window_s * np.arange(60)
    extracted = {"a": expert(*np.stack([middles, middles], axis=1))}
    cut = windows(extracted, window_s, window_s)
    assert [row for _, part in cut for row in rows(part)] == list(range(60))


def test_windows_without_features_are_left_out_and_the_last_ends_with_the_video():
    extracted = {"a": expert((0, 1), (20, 21.5))}
    cut = windows(extracted, 5, 5)
    assert [span for span, _ in cut] == [(0, 5), (20, 21.5)]
    assert windows({}, 5, 5) == []


@pytest.mark.parametrize(
    ("window_s", "stride_s", "message"),
    [
        (0, 1, "window_s is 0, expected a number of seconds above 0"),
        (5, -1, "stride_s is -1, expected"),
        (math.nan, 1, "window_s is nan"),
        (5, math.inf, "stride_s is inf"),
        (5, 5.5, "stride_s is 5.5 and window_s 5, which would leave holes"),
        (5, 1e-9, "expected a longer stride"),
    ],
)
def test_windows_refuse_bad_lengths(window_s, stride_s, message):
    with pytest.raises(InputError, match=message):
        windows({"a": expert((0, 10))}, window_s, stride_s)

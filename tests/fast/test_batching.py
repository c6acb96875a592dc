"""Sequences in batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import pytest
import torch
from fast_towers import CPU, computing_with, is_close, make_video, run_plain_text, run_plain_video
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmmt.fast import batching


@pytest.fixture(params=[1, 2, 3])
def threads(request) -> Iterator[int]:
    with computing_with(request.param):
        yield request.param


def planned_sizes(lengths, min_tokens_per_thread):
    """How many sequences each batch has, and how many batches are computed at once."""
    plan = batching.plan_batches(lengths, CPU, min_tokens_per_thread)
    assert [index for batch in plan.batches for index in batch] == list(range(len(lengths)))
    return list(map(len, plan.batches)), plan.threads


def test_plan_batches_cuts_evenly_what_all_threads_share():
    """A little too much for one batch is not one batch and a small rest."""
    assert planned_sizes([13] * 64, None) == ([32, 32], 1)
    assert planned_sizes([13] * 59, None) == ([59], 1)


def test_plan_batches_gives_each_thread_a_batch(threads):
    each = [18 // threads] * threads
    assert planned_sizes([13] * 18, 8) == (each, threads)
    assert planned_sizes([13] * 18, 80) == (([18], 1) if threads == 3 else (each, threads))
    assert planned_sizes([13] * 120, 8)[0] == {1: [40] * 3, 2: [30] * 4, 3: [40] * 3}[threads]
    assert planned_sizes([13], 8) == ([1], 1)  # nothing to share out
    assert planned_sizes([13, 13, 13, 200], 8) == ([4], 1)  # all would wait for one
    assert threads == 1 or planned_sizes([13, 14, 15] * threads, 8)[1] == threads


@settings(deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.sampled_from([None, 8, 96]))
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_plan_batches_makes_batches_about_equal(threads, lengths, min_tokens):
    with computing_with(threads):
        sizes, at_once = planned_sizes(lengths, min_tokens)
    assert at_once in (1, threads)
    if at_once > 1:
        assert len(sizes) % threads == 0
        assert sum(lengths) >= threads * min_tokens
        ends = list(accumulate(sizes))
        largest = max(sum(lengths[e - n : e]) for e, n in zip(ends, sizes, strict=True))
        assert largest <= batching.MAX_IMBALANCE * sum(lengths) / len(sizes)


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 100])
def test_encode_in_batches_sorts_once_and_restores_the_order(threads, batch_size):
    shapes = [(5, 1), (2, 0), (5, 0), (9, 2), (2, 0), (5, 1), (1, 0)]
    seen = []

    def encode(batch):
        seen.append(batch)
        return torch.tensor([[index, *shapes[index]] for index in batch])

    vectors = batching.encode_in_batches(encode, shapes, CPU, 3, batch_size)
    assert vectors.tolist() == [[index, *shape] for index, shape in enumerate(shapes)]
    assert sorted(index for batch in seen for index in batch) == list(range(len(shapes)))
    assert all([shapes[i] for i in batch] == sorted(shapes[i] for i in batch) for batch in seen)
    if batch_size:
        assert max(map(len, seen)) <= batch_size


@pytest.mark.parametrize("max_tokens", [1, 9, 30])
def test_towers_give_the_same_in_batches_of_any_size(
    tiny, fast_video, fast_text, threads, monkeypatch, max_tokens
):
    videos = [make_video((6, i, 1), i) for i in range(7)]
    ids = [[1] * n for n in (9, 3, 30, 3, 1, 8, 8, 8, 8)]
    monkeypatch.setattr(batching, "MAX_TOKENS", max_tokens)
    for batch_size in (None, 2):
        assert is_close(fast_video(videos, batch_size), run_plain_video(tiny.ours_video, videos))
        assert is_close(fast_text(ids, batch_size), run_plain_text(tiny.ours_text, ids))

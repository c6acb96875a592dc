"""Sequences in batches of similar length."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from multiprocessing import get_context
from threading import current_thread

import pytest
import torch
from fast_towers import CPU, computing_with, is_close, make_video, run_plain_text, run_plain_video
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TINY_VOCABULARY

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


def test_towers_limit_each_thread_to_itself(fast_video, monkeypatch):
    """And no other thread of the process."""
    seen, encode = set(), fast_video.encode

    def spy(*args):
        in_pool = current_thread().name.startswith("mdmmt")
        seen.add((in_pool, torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return encode(*args)

    monkeypatch.setattr(fast_video, "encode", spy)
    with computing_with(3):
        fast_video([make_video((6, 4, 3), i) for i in range(6)])
        assert seen == {(True, 1, True)}
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as another:
            assert another.submit(torch.get_num_threads).result() == 3
        seen.clear()
        fast_video([make_video((6, 4, 3))])
        assert seen == {(False, 3, True)}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_towers_raise_what_a_batch_raises(fast_text, threads):
    with computing_with(threads):
        with pytest.raises(IndexError):
            fast_text([[1, 2, 3]] * 5 + [[1, TINY_VOCABULARY, 3]])
        assert fast_text([[1, 2, 3]] * 6).shape == (6, 72)


def test_towers_serve_many_callers_at_once(tiny, fast_video):
    batches = [[make_video((6, i, 1), 9 * n + i) for i in range(n + 2)] for n in range(6)]
    with computing_with(2), ThreadPoolExecutor(6) as callers:
        results = list(callers.map(fast_video, batches))
    for vectors, videos in zip(results, batches, strict=True):
        assert is_close(vectors, run_plain_video(tiny.ours_video, videos))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_towers_start_new_threads_after_a_fork(fast_text):
    ids = [[1, 2, 3]] * 6
    with computing_with(2):
        wanted = fast_text(ids)
        receiver, sender = get_context("fork").Pipe(duplex=False)
        child = get_context("fork").Process(target=lambda: sender.send(fast_text(ids).numpy()))
        child.start()
        try:
            assert receiver.poll(60)
            assert is_close(torch.from_numpy(receiver.recv()), wanted)
        finally:
            child.kill()
            child.join()

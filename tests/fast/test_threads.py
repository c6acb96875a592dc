"""Threads that compute side by side, each by itself."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from threading import current_thread

import pytest
import torch
from fast_towers import computing_with, is_close, make_video, run_plain_video
from tiny import TINY_VOCABULARY

from mdmmt.fast.threads import run_in_threads


def test_run_in_threads_limits_each_thread_to_itself(fast_video, monkeypatch):
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
def test_run_in_threads_keeps_the_order(threads):
    with computing_with(threads):
        assert run_in_threads(lambda item: item * 2, range(20), threads) == list(range(0, 40, 2))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_run_in_threads_raises_what_a_batch_raises(fast_text, threads):
    with computing_with(threads):
        with pytest.raises(IndexError):
            fast_text([[1, 2, 3]] * 5 + [[1, TINY_VOCABULARY, 3]])
        assert fast_text([[1, 2, 3]] * 6).shape == (6, 72)


def test_run_in_threads_serves_many_callers_at_once(tiny, fast_video):
    batches = [[make_video((6, i, 1), 9 * n + i) for i in range(n + 2)] for n in range(6)]
    with computing_with(2), ThreadPoolExecutor(6) as callers:
        results = list(callers.map(fast_video, batches))
    for vectors, videos in zip(results, batches, strict=True):
        assert is_close(vectors, run_plain_video(tiny.ours_video, videos))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_run_in_threads_starts_new_threads_after_a_fork(fast_text):
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

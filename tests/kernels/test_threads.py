"""Threads that compute side by side, each by itself."""

from threading import Barrier, current_thread

import pytest
import torch
from fast_towers import computing_with

from mdmmt.kernels.threads import run_in_threads


@pytest.mark.parametrize(
    ("threads", "workers", "share"), [(2, 2, 1), (3, 2, 1), (8, 4, 2), (2, 4, 1), (3, 1, 3)]
)
def test_run_in_threads_divides_the_threads_among_workers(threads, workers, share):
    meeting = Barrier(workers)

    def look(_):
        meeting.wait(60)  # so that each worker gets one item
        return current_thread().name, torch.get_num_threads()

    with computing_with(threads):
        names, shares = zip(*run_in_threads(look, range(workers), workers), strict=True)
        assert torch.get_num_threads() == threads
    assert len(set(names)) == workers
    assert shares == (share,) * workers


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_run_in_threads_keeps_the_order(workers):
    with computing_with(workers):
        assert run_in_threads(lambda item: item * 2, range(20), workers) == list(range(0, 40, 2))

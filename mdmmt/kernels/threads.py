"""A pool of workers, each of which computes a batch by itself with its share of torch's threads.

A worker that has a batch to itself waits for no other. Where all threads share one batch, each of
a layer's dozens of operators starts for all of them together, and ends with the slowest.
`torch.set_num_threads(1)` switches this off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Thread
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> list[Result]:
    """Call a function for each item, in this thread for 1, else in a pool of `workers`."""
    if workers == 1:
        return [function(item) for item in items]
    pool = _pool(workers, torch.get_num_threads())
    return list(pool.map(torch.inference_mode()(function), items))


@lru_cache
def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """A shared pool of workers, among which torch's threads are divided."""
    share = max(1, threads // workers)
    return ThreadPoolExecutor(workers, "mdmmt", _limit_threads, (share, threads))


def _limit_threads(share: int, usual: int) -> None:
    """Let the operators of the calling thread use `share` threads, itself among them.

    Torch keeps that number for each thread, and gives a new thread the number that any thread has
    set last. So another thread, which ends at once, sets the usual number again.
    """
    torch.get_num_threads()  # gives this thread its number, which would overwrite a later one
    torch.set_num_threads(share)
    other = Thread(target=torch.set_num_threads, args=(usual,))
    other.start()
    other.join()


def _start_anew() -> None:
    """Forget the parent's threads in a child process, which has none of them.

    OpenMP would wait for the missing threads for ever, so it may use one thread alone. The workers
    of torch's own `DataLoader` do the same.
    """
    _pool.cache_clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)

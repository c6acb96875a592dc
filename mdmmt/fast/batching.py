"""A batch in portions, which the threads of a processor compute side by side.

A thread that has a portion to itself waits for no other. Where all of them share one, each of a
layer's dozens of operators begins for all together, and ends when the slowest is done.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Thread

import torch
from torch import Tensor

from .transfer import upload

TOKENS_AT_ONCE = 768  # what is computed of so many stays in the cache
TOKENS_AT_ONCE_ON_CUDA = 1 << 13  # it computes one portion while the next is put together
UNEVEN = 1.2  # times the mean: a portion so much larger would be waited for too long

Portion = list[int]  # numbers of sequences


def in_portions(
    encode: Callable[[Portion], Tensor],
    shapes: Sequence[tuple[int, int]],
    device: torch.device,
    least: int | None,
) -> Tensor:
    """Encode sequences, those of one shape side by side, and put the rows into their order.

    Args:
        encode: the numbers of some sequences -> their rows.
        shapes: tokens of each, and how many of them are hidden.
        least: tokens that are worth a thread of their own; None: all threads share each portion.
    """
    order = sorted(range(len(shapes)), key=shapes.__getitem__)
    cuts, at_once = portions([shapes[i][0] for i in order], device, least)
    parts = [[order[i] for i in part] for part in cuts]
    with torch.autocast(device.type, enabled=False):  # whatever the caller is within
        rows = torch.cat(side_by_side(encode, parts, at_once))
    result = torch.empty_like(rows)
    result[upload(torch.tensor(order, device="cpu"), device)] = rows
    return result


def portions(
    lengths: Sequence[int], device: torch.device, least: int | None
) -> tuple[list[Portion], int]:
    """Cut a batch, and say how many portions are computed at once.

    They are as many as there are threads, or one, which all threads share.

    Args:
        lengths: tokens of each sequence.
        least: see `in_portions`.
    """
    limit = TOKENS_AT_ONCE if device.type == "cpu" else TOKENS_AT_ONCE_ON_CUDA
    total, threads = sum(lengths), torch.get_num_threads()
    fewest = math.ceil(total / limit)
    if least and threads > 1 and total >= threads * least:
        count = math.ceil(fewest / threads) * threads
        parts = cut(lengths, count)
        largest = max(sum(lengths[i] for i in part) for part in parts)
        if largest <= UNEVEN * total / count:
            return parts, threads
    return cut(lengths, fewest), 1


def cut(lengths: Sequence[int], count: int) -> list[Portion]:
    """So many portions, about equally large; fewer, where a sequence is as large as several."""
    total, before = sum(lengths), 0
    parts: list[Portion] = [[] for _ in range(count)]
    for number, length in enumerate(lengths):
        middle = before + length / 2
        parts[int(middle / total * count)].append(number)
        before += length
    return [part for part in parts if part]


def side_by_side(
    encode: Callable[[Portion], Tensor], parts: Sequence[Portion], at_once: int
) -> list[Tensor]:
    """Encode portions, so many at once, each by a thread of its own."""
    if at_once == 1:
        return [encode(part) for part in parts]
    return list(pool(at_once).map(torch.inference_mode()(encode), parts))


@lru_cache
def pool(threads: int) -> ThreadPoolExecutor:
    """So many threads, of which each computes by itself; all towers share them."""
    return ThreadPoolExecutor(threads, "mdmmt", compute_alone, (threads,))


def compute_alone(usual: int) -> None:
    """Let the operators of this thread take no other.

    Torch keeps that number for each thread, and gives a new one what was last set by any: which is
    why another thread, that ends with it, sets what is usual again.
    """
    torch.get_num_threads()  # gives this thread its number, which would replace what is set before
    torch.set_num_threads(1)
    other = Thread(target=torch.set_num_threads, args=(usual,))
    other.start()
    other.join()


if hasattr(os, "register_at_fork"):  # threads do not go along
    os.register_at_fork(after_in_child=pool.cache_clear)

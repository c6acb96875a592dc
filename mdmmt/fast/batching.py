"""Many sequences as batches of similar length: sort once, cut evenly, restore the order once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels.threads import run_in_threads
from ..kernels.transfer import upload

# Tokens of a batch. On a CPU, the activations of more fall out of its cache; CUDA computes one
# batch while the next one is put together.
MAX_TOKENS, MAX_TOKENS_ON_CUDA = 768, 1 << 13
MAX_IMBALANCE = 1.2  # the largest batch, as a multiple of the mean; threads would wait for more

Batch = list[int]  # indices of sequences


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in the dtypes of the tensors; old releases of torch know no autocast on MPS."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class BatchPlan(NamedTuple):
    """Batches, and the number of threads, each of which computes one batch at a time."""

    batches: list[Batch]
    threads: int  # 1: all threads share each batch


def encode_in_batches(
    encode: Callable[[Batch], Tensor],
    shapes: Sequence[tuple[int, int]],
    device: torch.device,
    min_tokens_per_thread: int | None,
    batch_size: int | None = None,
) -> Tensor:
    """Encode sequences, those of one shape side by side.

    Args:
        encode: indices of sequences -> their vectors [b, d].
        shapes: tokens of each sequence, and how many of them are masked.
        min_tokens_per_thread: see `plan_batches`.
        batch_size: the most sequences that are computed at once; None: all of them.

    Returns:
        [n, d], in the order of `shapes`.
    """
    order = sorted(range(len(shapes)), key=shapes.__getitem__)
    vectors = []
    with no_autocast(device):  # whatever the caller has enabled
        for start in range(0, len(order), batch_size or len(order)):
            chosen = order[start : start + (batch_size or len(order))]
            plan = plan_batches([shapes[i][0] for i in chosen], device, min_tokens_per_thread)
            batches = [[chosen[i] for i in batch] for batch in plan.batches]
            vectors += run_in_threads(encode, batches, plan.threads)
    in_order = torch.cat(vectors)
    result = torch.empty_like(in_order)
    result[upload(torch.tensor(order, device="cpu"), device)] = in_order
    return result


def plan_batches(
    lengths: Sequence[int], device: torch.device, min_tokens_per_thread: int | None
) -> BatchPlan:
    """Cut sequences into batches: one for each thread at a time, or one that all threads share.

    Args:
        lengths: tokens of each sequence.
        min_tokens_per_thread: the tokens from which on a batch gets its own thread. None: all
            threads share each batch.
    """
    limit = MAX_TOKENS if device.type == "cpu" else MAX_TOKENS_ON_CUDA
    total, threads = sum(lengths), torch.get_num_threads()
    min_batches = math.ceil(total / limit)
    if min_tokens_per_thread and threads > 1 and total >= threads * min_tokens_per_thread:
        count = math.ceil(min_batches / threads) * threads
        batches = split_evenly(lengths, count)
        largest = max(sum(lengths[i] for i in batch) for batch in batches)
        if largest <= MAX_IMBALANCE * total / count:
            return BatchPlan(batches, threads)
    return BatchPlan(split_evenly(lengths, min_batches), 1)


def split_evenly(lengths: Sequence[int], count: int) -> list[Batch]:
    """Cut sequences into `count` batches of about equally many tokens.

    There are fewer batches where one sequence is as long as several of them.
    """
    total, before = sum(lengths), 0
    batches: list[Batch] = [[] for _ in range(count)]
    for index, length in enumerate(lengths):
        middle = before + length / 2
        batches[int(middle / total * count)].append(index)
        before += length
    return [batch for batch in batches if batch]

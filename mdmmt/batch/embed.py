"""Many texts or videos in, rows of embeddings out. An item that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..model import BATCH_SIZE, Model, Segments, check_text
from .outcome import Outcome, run_each

VIDEOS_AT_ONCE = 128  # videos whose tokens are in memory; they go through the tower together

Item = TypeVar("Item")


class EmbeddingRow(NamedTuple):
    """A text, a video or a window of a video, with its vector or an error."""

    name: str  # the text itself, or the path as it was given
    vector: NDArray[np.float32] | None
    error: str | None = None
    span_s: tuple[float, float] | None = None  # start and end of a window


def embed_texts(model: Model, texts: Iterable[str]) -> Iterator[EmbeddingRow]:
    """Embed texts, in batches."""

    def checked(text: str) -> str:
        check_text(text, "text")
        return text

    _ = model.text_encoder  # missing weights end the run, they are not each text's own error
    for batch in _batches(texts, BATCH_SIZE):
        outcomes = run_each(zip(batch, batch, strict=True), checked)
        yield from _encode(model.encode_text, outcomes, again=False)


def embed_videos(model: Model, paths: Iterable[str], jobs: int = 1) -> Iterator[EmbeddingRow]:
    """Embed videos and feature files, one embedding each, in batches.

    Args:
        jobs: how many files are read at once, see `run_each`.
    """

    _ = model.video_encoder
    outcomes = run_each(((path, path) for path in paths), model.read_tokens, jobs)
    for first in outcomes:  # the next batch is read ahead while the tower works on this one
        batch = chain([first], islice(outcomes, VIDEOS_AT_ONCE - 1))
        yield from _encode(model.encode_tokens, batch, again=True)


def embed_windows(
    model: Model,
    paths: Iterable[str],
    window_s: float | None,
    stride_s: float | None,
    jobs: int = 1,
) -> Iterator[EmbeddingRow]:
    """Embed the windows of videos and feature files, see `Model.encode_segments`.

    Args:
        jobs: how many files are read at once, see `run_each`.
    """

    def windows(path: str) -> Segments:
        return model.encode_segments(path, window_s=window_s, stride_s=stride_s)

    _ = model.video_encoder
    for outcome in run_each(((path, path) for path in paths), windows, jobs):
        if outcome.result is None:
            yield EmbeddingRow(outcome.name, None, outcome.error)
            continue
        vectors, spans_s = outcome.result
        for (start_s, end_s), vector in zip(spans_s.tolist(), vectors, strict=True):
            yield EmbeddingRow(outcome.name, vector, span_s=(start_s, end_s))


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _encode(
    encode: Callable[[list[Any]], NDArray[np.float32]],
    outcomes: Iterable[Outcome[Any]],
    again: bool,
) -> Iterator[EmbeddingRow]:
    """Embed the results of outcomes together; errors stay in their places.

    If Ctrl-C interrupts the reading, the results so far are embedded before the interruption
    goes on to the caller. A second one goes on at once.

    Args:
        again: whether an interrupted embedding is done again, as if the reading were interrupted;
            for what takes long to read.
    """
    interruption: KeyboardInterrupt | None = None
    read: list[Outcome[Any]] = []
    try:
        for outcome in outcomes:
            read.append(outcome)
    except KeyboardInterrupt as error:
        interruption = error
    outcomes = read
    good = [(outcome.name, outcome.result) for outcome in outcomes if outcome.error is None]
    items = [item for _, item in good]
    embedded: Iterator[Outcome[NDArray[np.float32]]]
    try:
        try:
            vectors = encode(items) if good else ()
        except KeyboardInterrupt as error:
            if interruption is not None or not again:
                raise
            interruption = error
            vectors = encode(items)
        embedded = iter([Outcome(name, v) for (name, _), v in zip(good, vectors, strict=True)])
    except Exception:  # of one item, which is unknown, so each goes through alone
        embedded = run_each(good, lambda item: encode([item])[0])
    for outcome in outcomes:
        outcome = next(embedded) if outcome.error is None else outcome
        yield EmbeddingRow(outcome.name, outcome.result, outcome.error)
    if interruption is not None:
        raise interruption

"""Retrieval metrics, from embeddings alone: the rank of what was sought, and what follows from it.

Ranking follows the authors of MDMMT (github.com/papermsucode/mdmmt, `validate.py`): each caption
is a query in both directions. Text to video (t2v), the segments that carry this caption's text are
set aside, its own included, and the rank is 1 plus the number of the other segments that score at
least as much as its own. Video to text (v2t), the captions of the same segment are set aside, and
the rank is 1 plus the number of the other captions that score at least as much. So ties count
against the model: where all scores are equal, all ranks are last.

Scores must not depend on how the work is cut up, or equal embeddings would not tie: float sums
depend on their order, and matrix products choose it by the shape of the matrices. So embeddings
are first rounded to whole multiples of a step that is 2^-26 of a power of two above the longest
norm. Products and sums of those are whole numbers below 2^53, which float64 holds exactly, in
whatever order they are added. What is ranked are the rounded embeddings, to the last bit; the
rounding is as fine as that of float32 arithmetic.

Shape notation: t texts, s segments, d width of the embeddings, q queries, p pairs of a text and a
segment that it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

UNIQUE, ONE_PER_VIDEO, SINGLE = "unique", "one-per-video", "single"
PROTOCOLS = {
    UNIQUE: "unique segments against unique captions, every caption a query; as MDMMT's authors "
    "for MSR-VTT and LSMDC",
    ONE_PER_VIDEO: "one caption drawn of each video, unique segments against unique captions; as "
    "MDMMT's authors for ActivityNet",
    SINGLE: "one caption a segment, every caption counted by itself; as for MSR-VTT 1k-A",
}
RECALL_AT = (1, 5, 10, 50)
NAMES = (*(f"R@{k}" for k in RECALL_AT), "MedR", "MeanR")
GRID_BITS = 26  # two numbers of so many bits have a product, and sums of products, below 2^53
CHUNK_SIZE = 1024  # texts that are scored at once
RESAMPLES = 2000
CONFIDENCE = 0.95


class Galleries(NamedTuple):
    """What is searched, and which of it each query is about."""

    texts: list[str]
    segments: list[Hashable]
    text_of: NDArray[np.int64]  # (q,) row of the query's text in `texts`
    segment_of: NDArray[np.int64]  # (q,) row of its segment in `segments`


class Ranks(NamedTuple):
    """The rank of each query in both directions; 1 is the best."""

    t2v: NDArray[np.int64]  # (q,)
    v2t: NDArray[np.int64]  # (q,)


class Difference(NamedTuple):
    """How one metric differs between two runs."""

    first: float
    second: float
    difference: float  # second - first
    low: float  # bounds of the confidence interval of the difference
    high: float
    p_value: float  # how often a difference at least as large comes by chance


def galleries(
    captions: Sequence[str], segments: Sequence[Hashable], protocol: str = UNIQUE
) -> Galleries:
    """What the queries of a protocol are ranked in.

    Args:
        captions: q texts; of 'one-per-video' those that were drawn.
        segments: that which each of them is about; what is equal is the same segment.
        protocol: of `PROTOCOLS`.

    Raises:
        InputError: an unknown protocol, or with 'single' a segment with several captions.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol is {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    unique_segments = {segment: row for row, segment in enumerate(dict.fromkeys(segments))}
    segment_of = np.array([unique_segments[segment] for segment in segments], dtype=np.int64)
    if protocol != SINGLE:
        unique_texts = {text: row for row, text in enumerate(dict.fromkeys(captions))}
        text_of = np.array([unique_texts[text] for text in captions], dtype=np.int64)
        return Galleries(list(unique_texts), list(unique_segments), text_of, segment_of)
    if len(unique_segments) < len(segments):
        again = next(one for row, one in enumerate(segments) if unique_segments[one] != row)
        raise InputError(
            f"the segment {again} has several captions, expected one with the protocol {SINGLE!r}; "
            f"{UNIQUE!r} takes them all"
        )
    return Galleries(list(captions), list(unique_segments), np.arange(len(captions)), segment_of)


def ranks(
    text: NDArray[np.floating],
    video: NDArray[np.floating],
    text_of: NDArray[np.integer],
    segment_of: NDArray[np.integer],
    chunk_size: int = CHUNK_SIZE,
) -> Ranks:
    """Rank what each query seeks by inner products, as the module's text says.

    Args:
        text: (t, d) embeddings of the texts.
        video: (s, d) embeddings of the segments.
        text_of, segment_of: (q,) the rows that each query is about.
        chunk_size: texts that are scored at once, which takes 16 * chunk_size * s bytes; it makes
            no difference to the ranks.

    Raises:
        InputError: NaN or infinity, or shapes and rows that do not fit together.
    """
    text, video, text_of, segment_of = map(np.asarray, (text, video, text_of, segment_of))
    if text.ndim != 2 or video.ndim != 2 or text.shape[1] != video.shape[1]:
        raise InputError(
            f"text embeddings are {text.shape} and those of the segments {video.shape}, expected "
            "(t, d) and (s, d)"
        )
    if text_of.ndim != 1 or text_of.shape != segment_of.shape or not len(text_of):
        raise InputError(
            f"text_of is {text_of.shape} and segment_of {segment_of.shape}, expected (q,) for both "
            "with a query at least"
        )
    for what, rows, size in (
        ("text_of", text_of, len(text)),
        ("segment_of", segment_of, len(video)),
    ):
        if rows.min() < 0 or rows.max() >= size:
            raise InputError(f"{what} has a row outside the {size} embeddings")

    text_exponent, video_exponent = _exponent(text, "text"), _exponent(video, "segment")
    segments = _on_grid(video, video_exponent)
    # All occurrences of a caption in a segment have one rank. Pairs are in the order of texts.
    pairs, pair_of = np.unique(
        text_of.astype(np.int64) * len(video) + segment_of, return_inverse=True
    )
    pair_text, pair_segment = np.divmod(pairs, len(video))
    thresholds = np.concatenate(
        [
            np.einsum(
                "pd,pd->p",
                _on_grid(text[pair_text[first : first + chunk_size]], text_exponent),
                segments[pair_segment[first : first + chunk_size]],
            )
            for first in range(0, len(pairs), chunk_size)
        ]
    )
    by_text = _Groups(pair_text, len(text))
    by_segment = _Groups(pair_segment, len(video))
    t2v, v2t = np.ones((2, len(pairs)), dtype=np.int64)
    for first in range(0, len(text), chunk_size):
        scores = _on_grid(text[first : first + chunk_size], text_exponent) @ segments.T  # (c, s)
        stop = first + len(scores)
        # What t2v sets aside are the segments of the same text, what v2t does are the texts of the
        # same segment: both are the pairs.
        own = slice(*np.searchsorted(pair_text, (first, stop)))
        scores[pair_text[own] - first, pair_segment[own]] = -math.inf
        for row in range(first, stop):
            same_text = by_text[row]
            t2v[same_text] += _at_least(scores[row - first], thresholds[same_text])
        columns = np.ascontiguousarray(scores.T)
        for row in range(len(video)):
            same_segment = by_segment[row]
            v2t[same_segment] += _at_least(columns[row], thresholds[same_segment])
    return Ranks(t2v[pair_of], v2t[pair_of])


def summary(ranks: NDArray[np.integer]) -> dict[str, float]:
    """R@1, R@5, R@10 and R@50 in percent, MedR (the lower median) and MeanR of some ranks.

    Raises:
        InputError: no ranks, or a rank below 1.
    """
    ranks = _checked(ranks)
    values, counts = np.unique(ranks, return_counts=True)
    return _named(_totals(values, counts) * _scale(len(ranks)))


def intervals(
    ranks: NDArray[np.integer],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Confidence intervals of each metric: percentiles of a bootstrap over the queries.

    Captions of one video are taken for independent, which makes the intervals somewhat narrow
    where a video has many.

    Args:
        confidence: the share of the resamples' metrics that lies within the bounds.
        resamples: how many; 2000 take some seconds for 60,000 queries.
        seed: the same one gives the same bounds.
    """
    ranks = _checked(ranks)
    values, counts = np.unique(ranks, return_counts=True)
    rng = np.random.default_rng(seed)
    share = counts / len(ranks)
    totals = [_totals(values, rng.multinomial(len(ranks), share)) for _ in range(resamples)]
    low, high = _bounds(np.array(totals), confidence) * _scale(len(ranks))
    return dict(zip(NAMES, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def compare(
    first: NDArray[np.integer],
    second: NDArray[np.integer],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compare two runs by their ranks of the same queries, in the same order.

    The interval is a paired bootstrap over the queries. The p-value is that of a permutation test:
    were the runs alike, each query's two ranks could as well be swapped.

    Raises:
        InputError: runs of different sizes, or ranks as in `summary`.
    """
    first, second = _checked(first), _checked(second)
    n = len(first)
    if len(second) != n:
        raise InputError(
            f"the runs have {n} and {len(second)} ranks, expected those of the same queries"
        )
    values, codes = np.unique(np.stack([first, second]), return_inverse=True)
    codes = codes.reshape(2, n)
    rng = np.random.default_rng(seed)

    def totals(codes: NDArray[np.integer]) -> NDArray[np.int64]:
        return _totals(values, np.bincount(codes, minlength=len(values)))

    of_first, of_second = totals(codes[0]), totals(codes[1])
    resampled, swapped = np.empty((2, resamples, len(NAMES)), dtype=np.int64)
    for i in range(resamples):
        drawn = codes[:, rng.integers(n, size=n)]
        resampled[i] = totals(drawn[1]) - totals(drawn[0])
        swap = rng.integers(2, size=n, dtype=bool)
        swapped[i] = totals(np.where(swap, *codes)) - totals(np.where(swap, *codes[::-1]))
    difference = of_second - of_first
    # Whole numbers, so what is as large is exactly as large. The runs as they are count as one way.
    as_large = (np.abs(swapped) >= np.abs(difference)).sum(axis=0)
    p_values = (1 + as_large) / (1 + resamples)
    scale = _scale(n)
    columns = (
        *(of_first * scale, of_second * scale, difference * scale),
        *(_bounds(resampled, confidence) * scale),
        p_values,
    )
    rows = np.stack(columns, axis=1).tolist()
    return {name: Difference(*row) for name, row in zip(NAMES, rows, strict=True)}


class _Groups:
    """The pairs of each text, or of each segment."""

    def __init__(self, keys: NDArray[np.int64], n: int) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._bounds = np.searchsorted(keys[self._order], np.arange(n + 1))

    def __getitem__(self, key: int) -> NDArray[np.int64]:
        return self._order[self._bounds[key] : self._bounds[key + 1]]


def _at_least(scores: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the scores are not below each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def _exponent(embeddings: NDArray, what: str) -> int:
    """The power of two above the longest norm."""
    longest = 0.0
    for first in range(0, len(embeddings), CHUNK_SIZE):
        rows = embeddings[first : first + CHUNK_SIZE].astype(np.float64)
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        bad = np.flatnonzero(~np.isfinite(norms))
        if len(bad):
            raise InputError(
                f"the embedding of {what} {first + bad[0]} holds NaN or infinity, expected finite "
                "numbers"
            )
        longest = max(longest, norms.max())
    return math.frexp(longest)[1]


def _on_grid(embeddings: NDArray, exponent: int) -> NDArray[np.float64]:
    """Embeddings as whole numbers of steps."""
    return np.rint(np.ldexp(embeddings.astype(np.float64), GRID_BITS - exponent))


def _checked(ranks: NDArray[np.integer]) -> NDArray[np.integer]:
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or ranks.dtype.kind not in "iu" or not len(ranks) or ranks.min() < 1:
        raise InputError(
            f"ranks are {ranks.dtype} {ranks.shape}, expected whole numbers (q,) from 1 on, and "
            "one at least"
        )
    return ranks


def _totals(values: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """The metrics as whole numbers: hits of each recall, lower median, sum.

    Args:
        values: ranks in ascending order.
        counts: how often each of them occurs.
    """
    middle = (counts.sum() + 1) // 2
    hits = [counts[: np.searchsorted(values, k, side="right")].sum() for k in RECALL_AT]
    median = values[np.searchsorted(np.cumsum(counts), middle)]
    return np.array([*hits, median, values @ counts], dtype=np.int64)


def _scale(n: int) -> NDArray[np.float64]:
    """What makes totals of n ranks into metrics."""
    return np.array([*(100 / n for _ in RECALL_AT), 1, 1 / n])


def _bounds(samples: NDArray[np.int64], confidence: float) -> NDArray[np.float64]:
    """The lower and upper bound (2, metrics) that hold this share of the samples (n, metrics)."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence:g}, expected a share between 0 and 1")
    return np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)


def _named(metrics: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(NAMES, metrics.tolist(), strict=True))

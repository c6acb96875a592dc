"""Retrieval metrics from embeddings alone: ranks, recall at k, medians, bootstrap intervals.

The ranking is that of MDMMT's authors (github.com/papermsucode/mdmmt, `validate.py`). Each caption
is a query in both directions. From text to video (t2v), the segments that carry the text of the
caption compete with the others, but not with each other: the rank is 1 plus the number of other
segments that score at least as much as the caption's own. From video to text (v2t), the captions of
one segment likewise do not compete with each other: the rank is 1 plus the number of other captions
that score at least as much. So ties count against the model: if all scores are equal, all ranks are
last.

Scores must not depend on the order in which they are computed, or equal embeddings would not tie:
float sums depend on their order, and a matrix product chooses the order by the shapes of its
matrices. So embeddings are first rounded to multiples of a step, which is 2^-26 of a power of two
above the longest norm. In units of the step all products and sums are whole numbers below 2^53,
which float64 holds exactly in any order. The ranks are exact for the rounded embeddings, and the
rounding is as fine as that of float32 arithmetic.

Shape notation: t texts, s segments, d width of the embeddings, q queries, p pairs of a text and a
segment that it describes.
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
    ONE_PER_VIDEO: "one caption drawn from each video, unique segments against unique captions; as "
    "MDMMT's authors for ActivityNet",
    SINGLE: "one caption for each segment, every caption counted by itself; as for MSR-VTT 1k-A",
}
RECALL_AT = (1, 5, 10, 50)
METRICS = (*(f"R@{k}" for k in RECALL_AT), "MedR", "MeanR")
GRID_BITS = 26  # products of two numbers of 26 bits, and sums of these, stay below 2^53
CHUNK_SIZE = 1024  # texts scored at once
RESAMPLES = 2000
CONFIDENCE = 0.95


class Galleries(NamedTuple):
    """The texts and segments that are ranked, and those that belong to each query."""

    texts: list[str]
    segments: list[Hashable]
    text_of: NDArray[np.int64]  # (q,) row of each query's text in `texts`
    segment_of: NDArray[np.int64]  # (q,) row of each query's segment in `segments`


class Ranks(NamedTuple):
    """The rank of each query in both directions; 1 is the best."""

    t2v: NDArray[np.int64]  # (q,)
    v2t: NDArray[np.int64]  # (q,)


DIRECTIONS = Ranks._fields


class Difference(NamedTuple):
    """The difference of one metric between two runs."""

    first: float
    second: float
    difference: float  # second - first
    low: float  # lower bound of the difference's confidence interval
    high: float  # upper bound
    p_value: float  # how often chance makes a difference at least as large


def make_galleries(
    captions: Sequence[str], segments: Sequence[Hashable], protocol: str = UNIQUE
) -> Galleries:
    """Collect the texts and segments in which the queries of a protocol are ranked.

    Args:
        captions: q texts; with 'one-per-video', one that was drawn from each video.
        segments: q keys, the segment that each caption describes; equal keys are one segment.
        protocol: one of `PROTOCOLS`.

    Raises:
        InputError: an unknown protocol, or a segment with several captions under 'single'.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol is {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    segment_rows = {segment: row for row, segment in enumerate(dict.fromkeys(segments))}
    segment_of = np.array([segment_rows[segment] for segment in segments], dtype=np.int64)
    if protocol != SINGLE:
        text_rows = {text: row for row, text in enumerate(dict.fromkeys(captions))}
        text_of = np.array([text_rows[text] for text in captions], dtype=np.int64)
        return Galleries(list(text_rows), list(segment_rows), text_of, segment_of)
    if len(segment_rows) < len(segments):
        repeated = next(key for row, key in enumerate(segments) if segment_rows[key] != row)
        raise InputError(
            f"the segment {repeated} has several captions, expected one with the protocol "
            f"{SINGLE!r}; {UNIQUE!r} takes several"
        )
    return Galleries(list(captions), list(segment_rows), np.arange(len(captions)), segment_of)


def ranks(
    text: NDArray[np.floating],
    video: NDArray[np.floating],
    text_of: NDArray[np.integer],
    segment_of: NDArray[np.integer],
    chunk_size: int = CHUNK_SIZE,
) -> Ranks:
    """Rank the target of each query by inner products, as the module's docstring says.

    Args:
        text: (t, d) embeddings of the texts.
        video: (s, d) embeddings of the segments.
        text_of, segment_of: (q,) rows of each query's text and segment.
        chunk_size: texts scored at once, which needs 16 * chunk_size * s bytes; the ranks do not
            depend on it.

    Raises:
        InputError: NaN or infinity, or shapes and rows that do not fit together.
    """
    text, video = np.asarray(text), np.asarray(video)
    text_of, segment_of = np.asarray(text_of), np.asarray(segment_of)
    if text.ndim != 2 or video.ndim != 2 or text.shape[1] != video.shape[1]:
        raise InputError(
            f"text embeddings are {text.shape} and segment embeddings {video.shape}, expected "
            "(t, d) and (s, d)"
        )
    if text_of.ndim != 1 or text_of.shape != segment_of.shape or not len(text_of):
        raise InputError(
            f"text_of is {text_of.shape} and segment_of {segment_of.shape}, expected (q,) for "
            "both, with at least one query"
        )
    for name, rows, size in (
        ("text_of", text_of, len(text)),
        ("segment_of", segment_of, len(video)),
    ):
        if rows.min() < 0 or rows.max() >= size:
            raise InputError(f"{name} has a row outside the {size} embeddings")

    text_exponent, video_exponent = _exponent(text, "text"), _exponent(video, "segment")
    segments = _round_to_grid(video, video_exponent)
    # A text that describes a segment several times has one rank there. Pairs are sorted by text.
    pairs, pair_of = np.unique(
        text_of.astype(np.int64) * len(video) + segment_of, return_inverse=True
    )
    pair_text, pair_segment = np.divmod(pairs, len(video))
    thresholds = np.concatenate(
        [
            np.einsum(
                "pd,pd->p",
                _round_to_grid(text[pair_text[first : first + chunk_size]], text_exponent),
                segments[pair_segment[first : first + chunk_size]],
            )
            for first in range(0, len(pairs), chunk_size)
        ]
    )
    by_text = _PairsOf(pair_text, len(text))
    by_segment = _PairsOf(pair_segment, len(video))
    t2v, v2t = np.ones((2, len(pairs)), dtype=np.int64)
    for first in range(0, len(text), chunk_size):
        chunk = _round_to_grid(text[first : first + chunk_size], text_exponent)
        scores = chunk @ segments.T  # (chunk, s)
        stop = first + len(scores)
        # In t2v a text's own segments do not compete, in v2t a segment's own texts: in both cases
        # the scores of the pairs.
        own = slice(*np.searchsorted(pair_text, (first, stop)))
        scores[pair_text[own] - first, pair_segment[own]] = -math.inf
        for row in range(first, stop):
            same_text = by_text[row]
            t2v[same_text] += _count_at_least(scores[row - first], thresholds[same_text])
        columns = np.ascontiguousarray(scores.T)
        for row in range(len(video)):
            same_segment = by_segment[row]
            v2t[same_segment] += _count_at_least(columns[row], thresholds[same_segment])
    return Ranks(t2v[pair_of], v2t[pair_of])


def summary(ranks: NDArray[np.integer]) -> dict[str, float]:
    """Summarise ranks (q,): R@1, R@5, R@10 and R@50 in percent, MedR (lower median) and MeanR.

    Raises:
        InputError: no ranks, or a rank below 1.
    """
    ranks = _checked(ranks)
    values, counts = np.unique(ranks, return_counts=True)
    metrics = _metric_totals(values, counts) * _metric_scale(len(ranks))
    return dict(zip(METRICS, metrics.tolist(), strict=True))


def intervals(
    ranks: NDArray[np.integer],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Confidence interval of each metric: percentiles of a bootstrap over the queries.

    The bootstrap treats the captions of one video as independent, so the intervals are somewhat
    too narrow for videos with many captions.

    Args:
        ranks: (q,) ranks from 1 on.
        confidence: the share of the resampled metrics that lies within the bounds.
        resamples: number of resamples.
        seed: seed of the resampling; the same seed gives the same bounds.

    Returns:
        the lower and the upper bound of each of `METRICS`.

    Raises:
        InputError: ranks as in `summary`, or a confidence that is not between 0 and 1.
    """
    ranks = _checked(ranks)
    values, counts = np.unique(ranks, return_counts=True)
    rng = np.random.default_rng(seed)
    shares = counts / len(ranks)
    totals = [_metric_totals(values, rng.multinomial(len(ranks), shares)) for _ in range(resamples)]
    low, high = _bounds(np.array(totals), confidence) * _metric_scale(len(ranks))
    return dict(zip(METRICS, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def compare(
    first: NDArray[np.integer],
    second: NDArray[np.integer],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compare two runs by their ranks (q,) of the same queries, in the same order.

    The interval is that of a paired bootstrap over the queries. The p-value is that of a
    permutation test: if the runs were alike, the two ranks of any query could be swapped.

    Args:
        confidence, resamples, seed: as in `intervals`.

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
        return _metric_totals(values, np.bincount(codes, minlength=len(values)))

    first_totals, second_totals = totals(codes[0]), totals(codes[1])
    resampled, swapped = np.empty((2, resamples, len(METRICS)), dtype=np.int64)
    for i in range(resamples):
        drawn = codes[:, rng.integers(n, size=n)]
        resampled[i] = totals(drawn[1]) - totals(drawn[0])
        swap = rng.integers(2, size=n, dtype=bool)
        one_way = totals(np.where(swap, codes[0], codes[1]))
        swapped[i] = one_way - totals(np.where(swap, codes[1], codes[0]))
    difference = second_totals - first_totals
    # Totals are whole numbers, so the comparison is exact. The runs as given are one permutation.
    as_large = (np.abs(swapped) >= np.abs(difference)).sum(axis=0)
    p_values = (1 + as_large) / (1 + resamples)
    scale = _metric_scale(n)
    columns = (
        *(first_totals * scale, second_totals * scale, difference * scale),
        *(_bounds(resampled, confidence) * scale),
        p_values,
    )
    rows = np.stack(columns, axis=1).tolist()
    return {name: Difference(*row) for name, row in zip(METRICS, rows, strict=True)}


class _PairsOf:
    """Look up pairs by their text, or by their segment: `_PairsOf(keys, n)[key]`.

    Args:
        keys: (p,) the text, or the segment, of each pair.
        n: the number of texts or segments; keys are below it.
    """

    def __init__(self, keys: NDArray[np.int64], n: int) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._bounds = np.searchsorted(keys[self._order], np.arange(n + 1))

    def __getitem__(self, key: int) -> NDArray[np.int64]:
        """The indices of the pairs that have this key."""
        return self._order[self._bounds[key] : self._bounds[key + 1]]


def _count_at_least(
    scores: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Count, for each threshold, the scores that are not below it."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def _exponent(embeddings: NDArray[np.floating], kind: str) -> int:
    """The exponent of the power of two above the longest norm."""
    longest = 0.0
    for first in range(0, len(embeddings), CHUNK_SIZE):
        rows = embeddings[first : first + CHUNK_SIZE].astype(np.float64)
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        bad = np.flatnonzero(~np.isfinite(norms))
        if len(bad):
            raise InputError(
                f"the embedding of {kind} {first + bad[0]} holds NaN or infinity, expected finite "
                "numbers"
            )
        longest = max(longest, norms.max())
    return math.frexp(longest)[1]


def _round_to_grid(embeddings: NDArray[np.floating], exponent: int) -> NDArray[np.float64]:
    """Round embeddings to multiples of 2^(exponent - GRID_BITS), and return the multiples."""
    return np.rint(np.ldexp(embeddings.astype(np.float64), GRID_BITS - exponent))


def _checked(ranks: NDArray[np.integer]) -> NDArray[np.integer]:
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or ranks.dtype.kind not in "iu" or not len(ranks) or ranks.min() < 1:
        raise InputError(
            f"ranks are {ranks.dtype} {ranks.shape}, expected whole numbers (q,) from 1 on, at "
            "least one"
        )
    return ranks


def _metric_totals(values: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """The metrics of n ranks before their division by n, as whole numbers: (metrics,).

    They are the number of ranks up to k for each recall at k, the lower median, and the sum of the
    ranks. `_metric_scale` makes metrics of them.

    Args:
        values: the different ranks in ascending order.
        counts: how often each of them occurs.
    """
    middle = (counts.sum() + 1) // 2
    hits = [counts[: np.searchsorted(values, k, side="right")].sum() for k in RECALL_AT]
    median = values[np.searchsorted(np.cumsum(counts), middle)]
    return np.array([*hits, median, values @ counts], dtype=np.int64)


def _metric_scale(n: int) -> NDArray[np.float64]:
    """The factors (metrics,) by which the totals of n ranks become metrics."""
    return np.array([*(100 / n for _ in RECALL_AT), 1, 1 / n])


def _bounds(samples: NDArray[np.int64], confidence: float) -> NDArray[np.float64]:
    """The bounds (2, metrics) between which this share of the samples (n, metrics) lies."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence:g}, expected a share between 0 and 1")
    return np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)

"""Near-duplicates: segments of two sets of videos that show the same content.

They are found by the features of the experts, second by second. A copy may be encoded anew, be a
little cropped, or be cut out of a longer file at any time of it.

1. The features of each expert are centred and whitened, so that what all videos share counts
   little, and averaged over windows of one second: one window a second in the first set, four in
   the second set, as a copy may begin between two seconds.
2. The similarity of two windows is the cosine of their features, averaged over the experts that
   both have. The look counts twice. Products of matrices, block by block, find the very similar
   pairs.
3. Each of these pairs has a difference in time. Along all windows of its two videos with this
   difference, a similarity of 1 counts as one second, one of 0.5 as nothing, and less counts
   against. A run that counts for at least a threshold is a duplicate.

A window of an expert that resembles those of many videos, such as black or silence, says nothing
and is left out. So are windows of which only the sound is known in both videos.

Shape notation: n features of one expert, d their width, k their width when whitened; w windows of
a set, c numbers that describe a window, e experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..experts import LIGHT_EXPERTS, PRETRAINED_EXPERTS, expert_classes
from ..features.files import FeatureFolder
from ..features.provenance import Provenance
from ..features.types import ExpertFeatures, VideoFeatures
from ..media.specs import AudioSpec
from .duplicate_lists import Duplicate, Segment

THRESHOLD_S = 1.2  # what a run must count for; see docs/evaluation.md and benchmarks/duplicates.py
WINDOW_S = 1.0
PHASES = 4  # windows a second in the second set
NEUTRAL = 0.5  # the similarity that counts neither for nor against
SEED = 0.7  # a run has at least one pair of windows that is so similar
LOOK_WEIGHT = 2.0  # of experts that see one frame; a clip of many depends on where it begins

KEPT_WIDTH = 64  # k, at most
RIDGE = 0.1  # of the mean variance, added in whitening; keeps noise from counting as much as looks
SAMPLED_VIDEOS = 1000  # of each set, from which the whitening is made
SAMPLED_FEATURES = 20_000  # of these, of each set

COMMON_COSINE = 0.9
COMMON_VIDEOS = 20  # a window that resembles windows of more other videos says nothing
COMMON_SAMPLE = 2000  # windows of each set among which these are counted

ROWS_A, ROWS_B = 1024, 16_384  # of one block of products
DIAGONALS = 32  # differences in time that are followed for two videos, those with most seeds
FAR = 1 << 24  # windows; more than any difference in time

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
VideoSet = Mapping[str, VideoFeatures]


def find_duplicates(
    a: VideoSet,
    b: VideoSet,
    *,
    threshold_s: float = THRESHOLD_S,
    experts: Sequence[str] | None = None,
    progress: Progress = lambda items, total, unit: items,
) -> list[Duplicate]:
    """Find the near-duplicates between two sets of videos, or within one.

    Args:
        a, b: the features of the videos of each set by their names, such as two
            `mdmmt.features.FeatureFolder`. If both are the same object, each two different videos
            in it are compared once.
        threshold_s: what a run must count for, in seconds of a perfect copy. A lower one finds
            more duplicates, and takes more for duplicates that are none.
        experts: those that are compared; None for all that both sets have.
        progress: see `mdmmt.evaluation.evaluate`.

    Returns:
        The duplicates, those that count most first, with `test` in `a` and `train` in `b`. Times
        are exact to about half a second.

    Raises:
        InputError: the sets have no expert in common, or the features of a video have no times,
            another width or version than those before, or numbers that are not finite.
    """
    _check_versions(a, b)
    whitenings = _whitenings(a, b, experts)
    first = _describe(a, whitenings, 1, progress)
    second = _describe(b, whitenings, PHASES, progress)
    _mute_common([first, second], whitenings)
    runs: list[_Run] = []
    for pair, offsets in _seeded_pairs(first, second, a is b, progress):
        runs += _runs(first, second, pair, offsets, threshold_s)
    runs.sort(key=lambda run: (-run.counts_s, run.duplicate))
    return [run.duplicate for run in runs]


@dataclass(frozen=True)
class _Whitening:
    """Of one expert: features (n, d) -> (n, k), centred and of about equal variance."""

    expert: str
    weight: float  # of its cosine
    is_sound: bool
    mean: NDArray[np.float32]  # (d)
    matrix: NDArray[np.float32]  # (d, k)
    part: slice  # of the c numbers of a window

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.matmul(values - self.mean, self.matrix)


@dataclass(frozen=True)
class _Windows:
    """The windows of a set, video after video."""

    names: Sequence[str]
    durations_s: NDArray[np.float64]  # of each video
    first: NDArray[np.int64]  # the first window of each video, and the number of all
    video: NDArray[np.int64]  # (w), of each window
    phases: int  # windows a second
    vectors: NDArray[np.float32]  # (w, c), the experts' unit vectors, by the root of their weight
    roots: NDArray[np.float32]  # (w, e), the root of an expert's weight; 0: it says nothing
    sees: NDArray[np.bool_]  # (e), whether an expert counts on its own: sound beside others not

    def of(self, video: int) -> slice:
        """The windows of a video."""
        return slice(self.first[video], self.first[video + 1])


class _Run(NamedTuple):
    counts_s: float
    duplicate: Duplicate


def _names(videos: VideoSet) -> list[str]:
    return videos.videos() if isinstance(videos, FeatureFolder) else list(videos)


def _check_versions(*sets: VideoSet) -> None:
    """Raise if an expert's features are of several versions, where the versions are known."""
    provenance = Provenance()
    for videos in sets:
        if not isinstance(videos, FeatureFolder):
            continue
        for video in videos.videos():
            if mixture := provenance.difference(video, videos.header(video).versions):
                other, difference = mixture
                raise InputError(
                    f"the features of {video!r} and {other!r} must not be compared: {difference}; "
                    "expected features of one version"
                )


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spread."""
    at = np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)
    return [items[i] for i in at]


# Whitening.


def _whitenings(a: VideoSet, b: VideoSet, experts: Sequence[str] | None) -> list[_Whitening]:
    """The whitening of each expert that is compared, made from features of both sets."""
    sampled = [_sampled_features(videos) for videos in ([a] if a is b else [a, b])]
    shared = set.intersection(*(set(one) for one in sampled))
    if experts is not None and (missing := [name for name in experts if name not in shared]):
        raise InputError(
            f"the sets do not both have features of {', '.join(missing)}, expected some of the "
            f"experts that they share: {', '.join(sorted(shared)) or 'none'}"
        )
    names = sorted(shared if experts is None else set(experts))
    if not names:
        had = " and ".join(", ".join(sorted(one)) or "no expert" for one in sampled)
        raise InputError(
            f"the sets have features of {had}, expected at least one expert that both have"
        )
    whitenings: list[_Whitening] = []
    for name in names:
        rows = [one[name] for one in sampled]
        widths = {part.shape[1] for part in rows}
        if len(widths) > 1:
            raise InputError(
                f"the features of the expert {name} are {' and '.join(map(str, sorted(widths)))} "
                "wide in the two sets, expected features of one version of it"
            )
        weight, is_sound = _kind(name)
        mean, matrix = _whiten(np.concatenate(rows))
        begin = whitenings[-1].part.stop if whitenings else 0
        part = slice(begin, begin + matrix.shape[1])
        whitenings.append(_Whitening(name, weight, is_sound, mean, matrix, part))
    return whitenings


def _sampled_features(videos: VideoSet) -> dict[str, NDArray[np.float32]]:
    """Features of some videos of a set, by expert."""
    names = _spread(_names(videos), SAMPLED_VIDEOS)
    each = max(1, SAMPLED_FEATURES // max(1, len(names)))
    rows: dict[str, list[NDArray[np.float32]]] = {}
    for name in names:
        for expert, one in videos[name].items():
            if len(one):
                known = rows.setdefault(expert, [])
                one.check((known or [one.values])[0].shape[1], _where(name, expert))
                at = np.linspace(0, len(one) - 1, min(each, len(one))).astype(int)
                known.append(np.asarray(one.values[at]))
    return {expert: np.concatenate(parts) for expert, parts in rows.items()}


def _whiten(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean (d) of rows (n, d), and a matrix (d, k) that whitens their main directions."""
    mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / len(rows))
    variances = variances.clip(0)
    kept = np.argsort(-variances)[:KEPT_WIDTH]
    scale = np.sqrt(variances[kept] + RIDGE * variances.mean())
    matrix = directions[:, kept] / np.maximum(scale, np.finfo(np.float32).tiny)
    narrow: Callable[[Any], NDArray[np.float32]] = np.float32
    return narrow(mean), narrow(matrix)


def _kind(expert: str) -> tuple[float, bool]:
    """The weight of an expert, and whether it hears."""
    if expert not in LIGHT_EXPERTS + PRETRAINED_EXPERTS:
        return 1.0, False
    spec = expert_classes([expert])[expert].spec
    if isinstance(spec, AudioSpec):
        return 1.0, True
    return (LOOK_WEIGHT if spec.clip_frames == 1 else 1.0), False


# Windows.


def _describe(
    videos: VideoSet, whitenings: Sequence[_Whitening], phases: int, progress: Progress
) -> _Windows:
    """The windows of all videos of a set."""
    names = _names(videos)
    width = whitenings[-1].part.stop
    vectors, roots, durations_s = [], [], []
    for name in progress(names, len(names), "video"):
        features = videos[name]
        cut = {}
        for one in whitenings:
            if expert_features := features.get(one.expert):
                _check(expert_features, len(one.mean), _where(name, one.expert))
                cut[one.expert] = _windows_of(expert_features, one(expert_features.values), phases)
        count = max((len(values) for values, _ in cut.values()), default=0)
        of_video = np.zeros((count, width), np.float32)
        its_roots = np.zeros((count, len(whitenings)), np.float32)
        for at, one in enumerate(whitenings):
            if one.expert in cut:
                values, known = cut[one.expert]
                norms = np.linalg.norm(values, axis=1, keepdims=True)
                root = np.sqrt(one.weight) * (known[:, None] & (norms > 0))
                of_video[: len(values), one.part] = values / np.maximum(norms, 1e-12) * root
                its_roots[: len(values), at] = root[:, 0]
        vectors.append(of_video)
        roots.append(its_roots)
        ends = [features[one.expert].times_s[-1, 1] for one in whitenings if one.expert in cut]
        durations_s.append(max(ends, default=0.0))
    counts = [len(one) for one in vectors]
    sees = np.array([not one.is_sound for one in whitenings])
    return _Windows(
        names,
        np.array(durations_s),
        np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        np.repeat(np.arange(len(names)), counts),
        phases,
        np.concatenate([*vectors, np.zeros((0, width), np.float32)]),
        np.concatenate([*roots, np.zeros((0, len(whitenings)), np.float32)]),
        sees if sees.any() else ~sees,
    )


def _check(features: ExpertFeatures, dim: int, where: str) -> None:
    features.check(dim, where)
    starts_s, ends_s = features.times_s.T
    in_order = (starts_s <= ends_s).all() and (np.diff(features.times_s, axis=0) >= 0).all()
    if not in_order or not np.isfinite(features.times_s).all() or starts_s[0] < 0:
        raise InputError(
            f"{where}: the times of the features are unknown, negative or out of order, expected "
            "0 <= start <= end, each at or after the one before"
        )


def _where(video: str, expert: str) -> str:
    return f"the video {video!r}, expert {expert}"


def _windows_of(
    features: ExpertFeatures, values: NDArray[np.float32], phases: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The averages of values (n, k) over windows (w, k), and in which windows there are any.

    A feature counts from the middle between it and the one before to the middle between it and
    the next. At least half of a window must have features.
    """
    middles_s = features.times_s.mean(axis=1)
    between_s = (middles_s[1:] + middles_s[:-1]) / 2
    bounds_s = np.concatenate([features.times_s[:1, 0], between_s, features.times_s[-1:, 1]])
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values * np.diff(bounds_s)[:, None], axis=0, out=sums[1:])
    count = max(1, int((bounds_s[-1] - WINDOW_S / 2) * phases + 1e-6) + 1)
    starts_s = np.arange(count) / phases

    def sum_until(t_s: NDArray[np.float64]) -> NDArray[np.float64]:
        at = (np.searchsorted(bounds_s, t_s, side="right") - 1).clip(0, len(values) - 1)
        return sums[at] + values[at] * (t_s - bounds_s[at])[:, None]

    begin_s = starts_s.clip(bounds_s[0], bounds_s[-1])
    end_s = (starts_s + WINDOW_S).clip(bounds_s[0], bounds_s[-1])
    lengths_s = end_s - begin_s
    means = (sum_until(end_s) - sum_until(begin_s)) / np.maximum(lengths_s, 1e-9)[:, None]
    return means.astype(np.float32), lengths_s >= WINDOW_S / 2 - 1e-6


def _mute_common(sets: Sequence[_Windows], whitenings: Sequence[_Whitening]) -> None:
    """Take out the experts' windows that resemble windows of too many videos."""
    sampled = [np.array(_spread(range(len(one.video)), COMMON_SAMPLE), int) for one in sets]
    common = []
    for one in sets:
        counts = np.zeros((len(one.video), len(whitenings)), int)
        for other, rows in zip(sets, sampled, strict=True):
            if not len(rows):
                continue
            begins = np.flatnonzero(np.diff(other.video[rows], prepend=-1))  # of each video
            for at, whitening in enumerate(whitenings):
                part, floor = whitening.part, COMMON_COSINE * whitening.weight
                theirs = other.vectors[rows, part].T
                for block in range(0, len(one.video), ROWS_A):
                    its = slice(block, block + ROWS_A)
                    alike = one.vectors[its, part] @ theirs >= floor
                    counts[its, at] += np.logical_or.reduceat(alike, begins, axis=1).sum(axis=1)
        common.append(counts > COMMON_VIDEOS)
    for one, is_common in zip(sets, common, strict=True):
        one.roots[is_common] = 0
        for at, whitening in enumerate(whitenings):
            one.vectors[is_common[:, at], whitening.part] = 0


# Pairs and runs.


def _seeded_pairs(
    a: _Windows, b: _Windows, within: bool, progress: Progress
) -> Iterator[tuple[tuple[int, int], NDArray[np.int64]]]:
    """Yield each two videos that have very similar windows, and the offsets of these.

    An offset is the window of `b` that falls on the first window of `a`; it may be negative.
    """
    # One product gives the sum of the weighted cosines, less SEED times the sum of the weights.
    left = np.concatenate([a.vectors, -SEED * a.roots], axis=1)
    right = np.concatenate([b.vectors, b.roots], axis=1)
    keys, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    blocks = range(0, len(left), ROWS_A)
    for block in progress(blocks, len(blocks), "block"):
        seeds = [np.zeros(0, np.int64)]
        for begin in range(0, len(right), ROWS_B):
            products = left[block : block + ROWS_A] @ right[begin : begin + ROWS_B].T
            rows, columns = np.divmod(np.flatnonzero(products > 0), products.shape[1])
            rows, columns = rows + block, columns + begin
            of_a, of_b = a.video[rows], b.video[columns]
            offsets = (columns - b.first[of_b]) - (rows - a.first[of_a]) * b.phases
            key = (of_a * len(b.names) + of_b) * 2 * FAR + offsets + FAR
            seeds.append(key[of_a < of_b] if within else key)
        new, how_often = np.unique(np.concatenate(seeds), return_counts=True)
        keys.append(new)
        counts.append(how_often)
    # A video of several blocks has the same offset in several of them.
    seeded, at = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(at, np.concatenate(counts), minlength=len(seeded))
    pairs, offsets = seeded // (2 * FAR), seeded % (2 * FAR) - FAR
    bounds = [*np.flatnonzero(np.diff(pairs, prepend=-1)).tolist(), len(pairs)]
    for start, stop in pairwise(bounds):
        most = np.argsort(-total[start:stop], kind="stable")[:DIAGONALS]
        yield divmod(int(pairs[start]), len(b.names)), offsets[start:stop][most]


def _runs(
    a: _Windows,
    b: _Windows,
    pair: tuple[int, int],
    offsets: NDArray[np.int64],
    threshold_s: float,
) -> list[_Run]:
    """The duplicates of two videos, that which counts most first. No two share a window of `a`."""
    in_a, in_b = a.of(pair[0]), b.of(pair[1])
    length_a, length_b = in_a.stop - in_a.start, in_b.stop - in_b.start
    columns = offsets[:, None] + np.arange(length_a) * b.phases  # (offsets, windows of a)
    exists = (columns >= 0) & (columns < length_b)
    columns = columns.clip(0, length_b - 1) + in_b.start
    counts_s = np.full(columns.shape, -np.inf)
    for row, (own, there) in enumerate(zip(columns, exists, strict=True)):
        counts_s[row, there] = _counts_s(a, b, np.arange(length_a)[there] + in_a.start, own[there])
    runs: list[_Run] = []
    while True:
        row, begin, end, best_s = _best_run(counts_s)
        if best_s < threshold_s:
            return runs
        counts_s[:, begin:end] = -np.inf
        start_in_b_s = (offsets[row] + begin * b.phases) / b.phases
        runs.append(
            _Run(
                best_s,
                Duplicate(
                    _segment(a, pair[0], begin, end - begin),
                    _segment(b, pair[1], start_in_b_s, end - begin),
                ),
            )
        )


def _counts_s(
    a: _Windows, b: _Windows, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How many seconds of a perfect copy each pair of windows counts for, from 1 downwards."""
    weights = a.roots[rows] * b.roots[columns]
    seen = weights[:, a.sees].any(axis=1)
    dots = np.einsum("ij,ij->i", a.vectors[rows], b.vectors[columns])
    similarity = dots / np.where(seen, weights.sum(axis=1), 1)
    return np.where(seen, (similarity - NEUTRAL) / (1 - NEUTRAL), 0.0) * WINDOW_S


def _best_run(counts_s: NDArray[np.float64]) -> tuple[int, int, int, float]:
    """The run of columns of one row (rows, columns) with the greatest sum.

    Returns:
        the row, the first column, the one after the last, and the sum.
    """
    best = np.zeros(len(counts_s))  # of a run that ends here
    begin = np.zeros(len(counts_s), int)
    top = (0, 0, 0, -np.inf)
    for column, here in enumerate(counts_s.T):
        goes_on = best > 0
        begin = np.where(goes_on, begin, column)
        best = np.where(goes_on, best, 0) + here
        row = int(best.argmax())
        if best[row] > top[3]:
            top = (row, int(begin[row]), column + 1, float(best[row]))
    return top


def _segment(one: _Windows, video: int, start_s: float, length_s: float) -> Segment:
    end_s = min(start_s + length_s * WINDOW_S, float(one.durations_s[video]))
    return Segment(one.names[video], start_s, end_s)

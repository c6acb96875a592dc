"""Evaluation runs: embed the segments and texts of captions, and rank them.

Captions and segments are treated as MDMMT's authors do. Runs of white space in a caption become one
space. The start and end of a caption select features, see `mdmmt.features.select`. Of these, the
first `max_tokens` of each expert are embedded, as in training; no warning tells what is left out.
Captions whose segment has no length or lies outside its video are left out. The module
`mdmmt.evaluation.metrics` describes the ranking.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..datasets import Caption
from ..errors import InputError, warn
from ..features.files import FeatureFolder
from ..features.provenance import Provenance
from ..features.reader import check_experts
from ..features.segments import duration_s, overlaps, select
from ..features.tokens import VideoTokens, tokens_of_checked
from ..features.types import VideoFeatures
from ..model import Model
from ..storage.text import counted
from .metrics import ONE_PER_VIDEO, UNIQUE, make_galleries, ranks
from .results import Result

DRAW_SEED = 42  # of the draw under 'one-per-video'; the generator starts anew at each video
BATCH = 256  # segments, and likewise texts, that are held and embedded at once
MAX_NAMED = 5  # captions that an error message names

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
Experts = tuple[str, ...]
SegmentKey = tuple[str, float, float | None]  # video, start and end in seconds; None: unknown end


def evaluate(
    model: Model,
    captions: Sequence[Caption],
    features: Mapping[str, VideoFeatures],
    protocol: str = UNIQUE,
    experts: Sequence[str] | None = None,
    skip_missing: bool = False,
    progress: Progress = lambda items, total, unit: items,
) -> Result:
    """Evaluate a model in both directions, text to video and video to text.

    Args:
        captions: the captions, see `mdmmt.datasets.read_captions`.
        features: the features of each video by its name, such as a
            `mdmmt.features.FeatureFolder`. Experts that the model does not have are ignored, and
            so are an expert's features of a segment beyond its `max_tokens`.
        protocol: one of `mdmmt.evaluation.PROTOCOLS`.
        experts: the experts whose features are used, None for all of the model's. The model treats
            the others as absent.
        skip_missing: leave out captions whose video has no features, and list them in the result;
            otherwise they are an error.
        progress: wraps an iterable to show progress. It is called with the iterable, the number of
            its items and the name of one, and returns an iterable of the same items.

    Raises:
        InputError: an unknown protocol or expert, features that do not fit the model, captions
            whose video has no features, or no caption left to evaluate.
    """
    known = tuple(expert.name for expert in model.config.video.experts)
    if experts is not None:
        experts = check_experts(experts, known)
    subset = tuple(name for name in known if experts is None or name in experts)
    return _run(model, captions, features, protocol, [subset], skip_missing, progress)[0]


def ablate(
    model: Model,
    captions: Sequence[Caption],
    features: Mapping[str, VideoFeatures],
    protocol: str = UNIQUE,
    skip_missing: bool = False,
    progress: Progress = lambda items, total, unit: items,
) -> list[Result]:
    """Evaluate a model with all its experts, with each expert alone, and with each left out.

    All evaluations have the same queries. Arguments and errors are those of `evaluate`.
    """
    names = tuple(expert.name for expert in model.config.video.experts)
    alone = [(name,) for name in names]
    left_out = [tuple(other for other in names if other != name) for name in names]
    subsets = [subset for subset in dict.fromkeys([names, *alone, *left_out]) if subset]
    return _run(model, captions, features, protocol, subsets, skip_missing, progress)


class _NumberedCaption(NamedTuple):
    position: int  # in the caller's list
    caption: Caption


class _Query(NamedTuple):
    """A caption that is evaluated."""

    position: int  # of the caption in the caller's list
    text: str
    segment: SegmentKey


class _Embeddings(NamedTuple):
    """The embeddings of all segments, made with some of the experts."""

    vectors: NDArray[np.float32]  # (s, d), in the order in which the segments were gathered
    empty_segments: int  # segments without features of these experts


def _run(
    model: Model,
    captions: Sequence[Caption],
    features: Mapping[str, VideoFeatures],
    protocol: str,
    subsets: Sequence[Experts],
    skip_missing: bool,
    progress: Progress,
) -> list[Result]:
    """Evaluate a model with several sets of experts; each video's features are read once."""
    # This raises on captions that the protocol forbids before the videos are embedded.
    make_galleries(
        [caption.text for caption in captions],
        [(caption.video, caption.start_s, caption.end_s) for caption in captions],
        protocol,
    )
    gathered = _Gathered(model, captions, features, protocol, skip_missing)
    segments, embeddings = _embed_segments(model, gathered.read_segments(progress), subsets)
    if not gathered.queries:
        raise InputError("all captions were left out, so nothing can be evaluated")
    without_features = sorted(set().union(*subsets) - gathered.experts)
    if without_features:
        warn(
            f"these videos have no features of {', '.join(without_features)}, so the results are "
            "those of the other experts"
        )
    return _rank(model, gathered, segments, embeddings, protocol, progress)


class _Gathered:
    """The captions to evaluate and to leave out, which `read_segments` sorts as it reads videos."""

    def __init__(
        self,
        model: Model,
        captions: Sequence[Caption],
        features: Mapping[str, VideoFeatures],
        protocol: str,
        skip_missing: bool,
    ) -> None:
        self.queries: list[_Query] = []
        self.outside: list[_NumberedCaption] = []
        self.missing: list[_NumberedCaption] = []
        self._provenance = Provenance()
        self.experts: set[str] = set()  # those with features of at least one video
        self._model = model
        self._captions = captions
        self._features = features
        self._protocol = protocol
        self._skip_missing = skip_missing

    def read_segments(self, progress: Progress) -> Iterator[tuple[SegmentKey, VideoTokens]]:
        """Read and check the features of each video once, and yield each segment's tokens once."""
        experts = self._model.config.video.experts
        by_video: dict[str, list[_NumberedCaption]] = {}
        for position, caption in enumerate(self._captions):
            by_video.setdefault(caption.video, []).append(_NumberedCaption(position, caption))
        present = {video: own for video, own in by_video.items() if video in self._features}
        self._leave_out(
            [one for video, own in by_video.items() if video not in present for one in own]
        )
        seen: set[SegmentKey] = set()
        for video, captions in progress(present.items(), len(present), "video"):
            features = _features_of_model(self._model, self._features[video], video)
            self._check_stamp(video)
            if not features:
                self._leave_out(captions)
                continue
            self.experts |= features.keys()
            for query in self._choose_queries(captions, features):
                self.queries.append(query)
                if query.segment not in seen:
                    seen.add(query.segment)
                    caption = self._captions[query.position]
                    segment = select(features, caption.start_s, caption.end_s)
                    yield query.segment, tokens_of_checked(segment, experts)

    def _check_stamp(self, video: str) -> None:
        """Raise if a video's features are of another clock or version than those before."""
        if not isinstance(self._features, FeatureFolder):
            return
        header = self._features.header(video)
        known = [expert.name for expert in self._model.config.video.experts]
        versions = {name: one for name, one in header.versions.items() if name in known}
        if mixture := self._provenance.difference(video, versions, header.clock):
            other, difference = mixture
            raise InputError(
                f"the features of {video!r} and {other!r} must not be mixed: {difference}; "
                "expected features of one run of `mdmmt extract`"
            )

    def _choose_queries(
        self, captions: Sequence[_NumberedCaption], features: VideoFeatures
    ) -> list[_Query]:
        """The queries among the captions of one video."""
        queries = []
        for numbered in captions:
            position, caption = numbered
            if overlaps(features, caption.start_s, caption.end_s):
                text = " ".join(caption.text.split())
                queries.append(_Query(position, text, _segment_key(caption, features)))
            else:
                self.outside.append(numbered)
        if queries and self._protocol == ONE_PER_VIDEO:
            return [queries[np.random.RandomState(DRAW_SEED).choice(len(queries))]]
        return queries

    def _leave_out(self, captions: Sequence[_NumberedCaption]) -> None:
        """Note captions whose video has no features, or raise if they may not be left out."""
        if captions and not self._skip_missing:
            rest = len(captions) - MAX_NAMED
            raise InputError(
                "there are no features of the model's experts for the video of "
                + "; ".join(_describe(captions[:MAX_NAMED]))
                + (f"; and of {counted(rest, 'more caption')}" if rest > 0 else "")
            )
        self.missing += captions


def _features_of_model(model: Model, features: VideoFeatures, video: str) -> VideoFeatures:
    """The features of the model's experts, checked against the model."""
    present = {}
    for expert in model.config.video.experts:
        expert_features = features.get(expert.name)
        if expert_features:
            expert_features.check(expert.dim, f"the video {video!r}, expert {expert.name}")
            present[expert.name] = expert_features
    return present


def _segment_key(caption: Caption, features: VideoFeatures) -> SegmentKey:
    end_s = duration_s(features) if caption.end_s is None else caption.end_s
    return caption.video, caption.start_s, None if math.isnan(end_s) else end_s


def _embed_segments(
    model: Model,
    segments: Iterator[tuple[SegmentKey, VideoTokens]],
    subsets: Sequence[Experts],
) -> tuple[list[SegmentKey], dict[Experts, _Embeddings]]:
    """Embed segments with each set of experts, batch by batch, while their features are read."""
    keys: list[SegmentKey] = []
    batches: dict[Experts, list[_Embeddings]] = {subset: [] for subset in subsets}
    while batch := list(islice(segments, BATCH)):
        keys += [key for key, _ in batch]
        for subset in subsets:
            batches[subset].append(_embed_batch(model, [one for _, one in batch], subset))
    return keys, {
        subset: _Embeddings(
            np.concatenate([one.vectors for one in parts]),
            sum(one.empty_segments for one in parts),
        )
        for subset, parts in batches.items()
        if parts
    }


def _embed_batch(model: Model, segments: Sequence[VideoTokens], experts: Experts) -> _Embeddings:
    """Embed segments with some of the experts.

    A segment without features of these experts gets the embedding zero. Leaving it out would make
    the gallery easier; zero matches no caption, and ties count against the model.
    """
    present = [{name: one[name] for name in experts if name in one} for one in segments]
    rows = [row for row, tokens in enumerate(present) if tokens]
    vectors = np.zeros((len(segments), model.config.video.embedding_dim), dtype=np.float32)
    if rows:
        vectors[rows] = model.encode_tokens([present[row] for row in rows])
    return _Embeddings(vectors, len(segments) - len(rows))


def _rank(
    model: Model,
    gathered: _Gathered,
    segments: Sequence[SegmentKey],
    embeddings: Mapping[Experts, _Embeddings],
    protocol: str,
    progress: Progress,
) -> list[Result]:
    """Embed the texts of the queries, and rank the galleries of each set of experts.

    Args:
        segments: the keys of the segments, in the order of their embeddings.
    """
    queries = sorted(gathered.queries)  # in the order of the caller's captions
    galleries = make_galleries(
        [query.text for query in queries], [query.segment for query in queries], protocol
    )
    chunks = [galleries.texts[i : i + BATCH] for i in range(0, len(galleries.texts), BATCH)]
    text_vectors = np.concatenate(
        [model.encode_text(chunk) for chunk in progress(chunks, len(chunks), "batch of texts")]
    )
    rows: dict[Hashable, int] = {segment: row for row, segment in enumerate(segments)}
    order = [rows[segment] for segment in galleries.segments]
    return [
        Result(
            protocol=protocol,
            experts=experts,
            texts=len(galleries.texts),
            segments=len(galleries.segments),
            empty_segments=embedded.empty_segments,
            outside=_describe(gathered.outside),
            missing=_describe(gathered.missing),
            queries=_digest(queries),
            ranks=ranks(
                text_vectors, embedded.vectors[order], galleries.text_of, galleries.segment_of
            ),
        )
        for experts, embedded in embeddings.items()
    ]


def _digest(queries: Sequence[_Query]) -> str:
    digest = hashlib.sha256()
    for query in queries:
        digest.update(json.dumps([query.text, *query.segment]).encode() + b"\n")
    return digest.hexdigest()


def _describe(captions: Sequence[_NumberedCaption]) -> tuple[str, ...]:
    """Name captions for messages, in the order of the caller's list."""
    names = []
    for _, caption in sorted(captions, key=lambda numbered: numbered.position):
        end = "the end" if caption.end_s is None else f"{caption.end_s:g}"
        name = f"{caption.text[:60]!r} ({caption.video!r}, {caption.start_s:g} to {end})"
        names.append(f"{caption.where}: {name}" if caption.where else name)
    return tuple(names)

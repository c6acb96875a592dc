"""How well a model finds the video of a caption, and the captions of a video.

    captions = mdmmt.datasets.annotations.read_captions("MSRVTT_JSFUSION_test.csv")
    features = mdmmt.features.files.FeatureFolder("features/")
    result = evaluate(model, captions, features, "single")
    print(mdmmt.evaluation.results.table([result]))

Captions and segments are treated as the authors of MDMMT do: runs of white space in a caption are
one space, its start and end select features as `select` in `mdmmt.features.segments` says, and what
has no length or lies outside its video is left out. They are ranked as `mdmmt.evaluation.metrics`
says.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..datasets.annotations import Caption
from ..errors import InputError, warn
from ..features.reader import check_experts
from ..features.segments import duration_s, overlaps, select
from ..features.tokens import tokens_of
from ..features.types import VideoFeatures
from .metrics import ONE_PER_VIDEO, UNIQUE, make_galleries, ranks
from .results import Result

if TYPE_CHECKING:
    from ..model import Model

DRAW_SEED = 42  # of the one caption; the generator starts anew at each video
BATCH = 256  # segments, and likewise texts, that are held and embedded at once
NAMED = 5  # of a long list of captions, in a message

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


def evaluate(
    model: Model,
    captions: Sequence[Caption],
    features: Mapping[str, VideoFeatures],
    protocol: str = UNIQUE,
    experts: Sequence[str] | None = None,
    skip_missing: bool = False,
    progress: Progress = lambda items, total, unit: items,
) -> Result:
    """Evaluate a model.

    Args:
        captions: from `mdmmt.datasets.annotations.read_captions`.
        features: of each video; those of experts that the model does not have are not used.
        protocol: of `mdmmt.evaluation.metrics.PROTOCOLS`.
        experts: those of the model's whose features are used; the others are absent. None: all.
        skip_missing: whether captions whose video has no features are left out, and listed.
        progress: is given an iterable, the number of its items, and what one of them is called,
            and gives the items back.

    Raises:
        InputError: an unknown protocol or expert, features that are not the model's, captions
            whose video has no features, or nothing left to evaluate.
    """
    names = [expert.name for expert in model.config.video.experts]
    if experts is not None:
        check_experts(experts, names)
    subset = tuple(name for name in names if experts is None or name in experts)
    return _run(model, captions, features, protocol, [subset], skip_missing, progress)[0]


def ablate(
    model: Model,
    captions: Sequence[Caption],
    features: Mapping[str, VideoFeatures],
    protocol: str = UNIQUE,
    skip_missing: bool = False,
    progress: Progress = lambda items, total, unit: items,
) -> list[Result]:
    """Evaluate a model with all its experts, with each alone, and with each left out.

    The queries are the same in all of them. Arguments and errors are those of `evaluate`.
    """
    names = tuple(expert.name for expert in model.config.video.experts)
    alone = [(name,) for name in names]
    left_out = [tuple(other for other in names if other != name) for name in names]
    subsets = [subset for subset in dict.fromkeys([names, *alone, *left_out]) if subset]
    return _run(model, captions, features, protocol, subsets, skip_missing, progress)


class _Query(NamedTuple):
    text: str
    segment: tuple[str, float, float | None]  # video, start and end in seconds


class _Kept(NamedTuple):
    """A caption of which there are features."""

    index: int
    caption: Caption
    query: _Query


def _run(
    model: Model,
    captions: Sequence[Caption],
    features: Mapping[str, VideoFeatures],
    protocol: str,
    subsets: Sequence[tuple[str, ...]],
    skip_missing: bool,
    progress: Progress,
) -> list[Result]:
    """Evaluate a model with some sets of experts at once; each video's features are read once."""
    # What the protocol does not allow is better said before the videos are embedded.
    make_galleries(
        [c.text for c in captions], [(c.video, c.start_s, c.end_s) for c in captions], protocol
    )
    by_video: dict[str, list[tuple[int, Caption]]] = {}
    for index, caption in enumerate(captions):
        by_video.setdefault(caption.video, []).append((index, caption))
    missing = [one for video, its in by_video.items() if video not in features for one in its]
    _check_missing(missing, skip_missing)
    present = {video: its for video, its in by_video.items() if video in features}
    kept: list[_Kept] = []
    outside: list[tuple[int, Caption]] = []
    segments: dict[tuple[str, float, float | None], int] = {}
    embedded: dict[tuple[str, ...], list[NDArray[np.float32]]] = {one: [] for one in subsets}
    empty = dict.fromkeys(subsets, 0)
    waiting: list[VideoFeatures] = []
    found_by: set[str] = set()

    def embed() -> None:
        for subset in subsets:
            vectors, nothing = _embed_videos(model, waiting, subset)
            embedded[subset].append(vectors)
            empty[subset] += nothing
        waiting.clear()

    for video, its in progress(present.items(), len(present), "video"):
        extracted = _of_model(model, features[video], video)
        if not extracted:
            _check_missing(its, skip_missing)
            missing += its
            continue
        found_by |= extracted.keys()
        there = []
        for index, caption in its:
            if overlaps(extracted, caption.start_s, caption.end_s):
                there.append(_Kept(index, caption, _query(caption, extracted)))
            else:
                outside.append((index, caption))
        if there and protocol == ONE_PER_VIDEO:
            there = [there[np.random.RandomState(DRAW_SEED).choice(len(there))]]
        kept += there
        for _, caption, query in there:
            if query.segment not in segments:
                segments[query.segment] = len(segments)
                waiting.append(select(extracted, caption.start_s, caption.end_s))
                if len(waiting) == BATCH:
                    embed()
    if waiting:
        embed()
    unseen = sorted(set().union(*subsets) - found_by)
    if kept and unseen:
        warn(
            f"the features of these videos have nothing of {', '.join(unseen)}: what is "
            "found is found by the other experts"
        )
    if not kept:
        raise InputError("there is no caption to evaluate: all of them were left out")

    queries = [one.query for one in sorted(kept)]
    found = make_galleries([q.text for q in queries], [q.segment for q in queries], protocol)
    chunks = [found.texts[i : i + BATCH] for i in range(0, len(found.texts), BATCH)]
    text = np.concatenate(
        [model.encode_text(chunk) for chunk in progress(chunks, len(chunks), "batch of texts")]
    )
    order = [segments[segment] for segment in found.segments]
    return [
        Result(
            protocol=protocol,
            experts=subset,
            texts=len(found.texts),
            segments=len(found.segments),
            empty_segments=empty[subset],
            outside=_called(outside),
            missing=_called(missing),
            queries=_digest(queries),
            ranks=ranks(
                text,
                np.concatenate(embedded[subset])[order],
                found.text_of,
                found.segment_of,
            ),
        )
        for subset in subsets
    ]


def _of_model(model: Model, extracted: VideoFeatures, video: str) -> VideoFeatures:
    """The features of the model's experts, checked."""
    present = {}
    for expert in model.config.video.experts:
        features = extracted.get(expert.name)
        if features:
            features.check(expert.dim, f"the video {video!r}, expert {expert.name}")
            present[expert.name] = features
    return present


def _query(caption: Caption, extracted: VideoFeatures) -> _Query:
    end_s = duration_s(extracted) if caption.end_s is None else caption.end_s
    segment = caption.video, caption.start_s, None if math.isnan(end_s) else end_s
    return _Query(" ".join(caption.text.split()), segment)


def _embed_videos(
    model: Model, videos: Sequence[VideoFeatures], experts: Sequence[str]
) -> tuple[NDArray[np.float32], int]:
    """Embeddings of some videos by some experts, and in how many these found nothing.

    To leave such videos out would make the gallery easier. Their embedding is zero: it says nothing
    of any caption, and ties count against the model.
    """
    config = model.config.video
    parts = [{name: video[name] for name in experts if name in video} for video in videos]
    rows = [row for row, part in enumerate(parts) if part]
    vectors = np.zeros((len(parts), len(config.experts) * config.same_dim), dtype=np.float32)
    if rows:
        vectors[rows] = model.encode_tokens([tokens_of(parts[row], config.experts) for row in rows])
    return vectors, len(parts) - len(rows)


def _digest(queries: Sequence[_Query]) -> str:
    digest = hashlib.sha256()
    for query in queries:
        digest.update(json.dumps([query.text, *query.segment]).encode() + b"\n")
    return digest.hexdigest()


def _check_missing(captions: Sequence[tuple[int, Caption]], skip_missing: bool) -> None:
    if captions and not skip_missing:
        more = f"; and of {len(captions) - NAMED} captions more" if len(captions) > NAMED else ""
        raise InputError(
            "there are no features of the model's experts for the video of "
            + "; ".join(_called(captions[:NAMED]))
            + more
        )


def _called(captions: Iterable[tuple[int, Caption]]) -> tuple[str, ...]:
    """How messages call captions, in the order in which they were given."""
    names = []
    for _, one in sorted(captions, key=lambda numbered: numbered[0]):
        end = "the end" if one.end_s is None else f"{one.end_s:g}"
        name = f"{one.text[:60]!r} ({one.video!r}, {one.start_s:g} to {end})"
        names.append(f"{one.where}: {name}" if one.where else name)
    return tuple(names)

"""Narrower times of hits: their best windows are searched again, in steps of half a clip.

The features must be kept, as feature files. No expert runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..features import VideoFeatures, overlaps
from ..features.files import SUFFIX, FeatureFolder, read_features
from ..model import Model
from ..storage.files import sha256_of
from .build import matching_feature_files
from .index import Hit, Index
from .moments import Moments
from .sources import Source

MOST_STEPS = 500  # of one hit; a longer one is searched in longer steps


class Refined(NamedTuple):
    """Hits with narrower times."""

    hits: list[Hit]  # all, in the order and with the scores that they had
    without_features: list[str]  # files whose hits have kept their times


def refine_hits(
    index: Index,
    model: Model,
    query: NDArray[np.float32],
    hits: Sequence[Hit],
    features: FeatureFolder | None = None,
) -> Refined:
    """Narrow the times of hits to the part that fits the query.

    Each hit is cut into pieces as long as the longest clip of its experts, each half a clip after
    the one before, and the model embeds them. The pieces are merged as windows are, and the best
    moment among them gives the times. Scores and vectors stay those of the windows in the index.

    Args:
        model: the one that has made the embeddings of the index, see `Index.check_model`.
        query: (D,), which the hits were found for.
        hits: of `Index.find_moments`.
        features: feature files of the videos. Those that were indexed themselves need no folder.
    """
    refined: list[Hit] = []
    without: list[str] = []
    for hit in hits:
        kept = _kept_features(index, hit.path, features)
        best = None if kept is None else _best_part(model, query, hit, kept)
        if best is not None:
            hit = hit._replace(start_s=best.start_s, end_s=best.end_s, best_s=best.best_s)
        elif hit.path not in without:
            without.append(hit.path)
        refined.append(hit)
    return Refined(refined, without)


def _kept_features(index: Index, path: str, folder: FeatureFolder | None) -> VideoFeatures | None:
    """The features that the windows of a file were made from; None if they are not kept."""
    source = Source.parse(index.source(path) or "")
    if source is None:
        return None  # another program has added the file
    content, _, _, experts = source.facts
    try:
        if path.endswith(SUFFIX):
            files = [Path(path)] if sha256_of(Path(path)) == content else []
        else:
            given = folder.files_of(os.path.basename(path)) if folder else []
            files = list(matching_feature_files(given, content, experts))
        for file in files:
            one = read_features(file)
            versions = {name: one.versions[name] for name in experts if name in one.versions}
            if versions == source.versions and one.clock == source.clock:
                return {name: each for name, each in one.features.items() if name in experts}
    except (InputError, OSError):  # a file that is gone or damaged is not kept
        return None
    return None


def _best_part(
    model: Model, query: NDArray[np.float32], hit: Hit, features: VideoFeatures
) -> Hit | None:
    """The part of a hit that fits the query; None if there are no features of its time."""
    clips_s = [np.median(np.diff(one.times_s)) for one in features.values() if len(one)]
    step_s = max(max(clips_s, default=0) / 2, (hit.end_s - hit.start_s) / MOST_STEPS)
    starts = hit.start_s + step_s * np.arange(MOST_STEPS)
    spans = [
        (float(start_s), min(float(start_s) + 2 * step_s, hit.end_s))
        for start_s in starts
        if start_s + step_s < hit.end_s or start_s == hit.start_s
    ]
    spans = [span for span in spans if overlaps(features, *span)]
    if not spans:
        return None
    vectors = model.encode_segments(features, spans).vectors
    scores = vectors @ query
    moments = Moments()
    for i in np.argsort(-scores, kind="stable"):
        moments.add(Hit(str(i), hit.path, spans[i][0], spans[i][1], float(scores[i]), {}))
    return moments.best(1)[0]

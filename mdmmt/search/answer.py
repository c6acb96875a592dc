"""The answer to one query: the hits, and the share of each expert in their scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..model import Model, Similarity
from .index import Hit, Index


def answer(
    index: Index,
    model: Model,
    query: NDArray[np.float32],
    k: int = 10,
    filter: str | None = None,
    expert_weights: Mapping[str, float] | None = None,
    per_video: int | None = None,
    merge: bool = True,
    besides: Hit | None = None,
) -> tuple[list[Hit], Similarity | None]:
    """Search for one query, (D,), with the arguments of `Index.find_moments`.

    Returns:
        The hits, and the similarity of the query and the hits, (1, hits); None if there are no
        hits.

    Raises:
        InputError, InputTypeError: see `Index.find_moments`.
    """
    if expert_weights is not None:
        query = index.weigh(query, expert_weights)
    hits = index.find_moments(query, k, filter, per_video=per_video, merge=merge, besides=besides)
    vectors = [hit.vector for hit in hits if hit.vector is not None]
    return hits, model.similarity(query, np.stack(vectors)) if hits else None

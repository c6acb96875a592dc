"""The answer to one query: the hits, and the share of each expert in their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

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
) -> tuple[list[Hit], Similarity | None]:
    """Search for one query, (D,), with the arguments of `Index.search`.

    Returns:
        The hits, with their vectors, and the similarity of the query and the hits, (1, hits); None
        if there are no hits.

    Raises:
        InputError, InputTypeError: see `Index.search`.
    """
    if expert_weights is not None:
        query = index.weigh(query, expert_weights)
    hits = cast("list[Hit]", index.search(query, k, filter, with_vectors=True))
    vectors = [hit.vector for hit in hits if hit.vector is not None]
    return hits, model.similarity(query, np.stack(vectors)) if hits else None

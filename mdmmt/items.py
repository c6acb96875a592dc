"""What counts as several texts or videos: a list, and whatever else gives its items in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

import numpy as np

ONE_ITEM = (str, bytes, PathLike, Mapping, set, frozenset)
TEXT_KINDS = "OTU"  # of NumPy's types: objects and both kinds of strings


def as_items(value: Any) -> list[Any] | None:
    """The items of a list, a tuple, an iterator, a column of pandas, or an array of strings.

    None stands for everything else: one text or path, a dict, an array of numbers, a table. A set
    counts among them, since it has no order in which embeddings could come back.
    """
    if isinstance(value, ONE_ITEM) or not isinstance(value, Iterable):
        return None
    if getattr(value, "ndim", 1) != 1:
        return None
    if isinstance(value, np.ndarray) and value.dtype.kind not in TEXT_KINDS:
        return None
    return list(value)

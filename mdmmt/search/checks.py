"""Checks of the values that an index is given, with errors that name the argument."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, InputTypeError
from .milvus import FIELDS, MAX_BYTES

MAX_EXPERT_WEIGHT = 1_000_000  # so that no product of float32 overflows
MAX_DEPTH = 100  # of lists and objects in metadata; Milvus ends in Python's own errors at about 900


def checked_path(path: object, name: str = "path") -> str:
    """A path, as a str.

    Raises:
        InputError, InputTypeError: it is not a path, empty, or cannot be stored.
    """
    text = checked_storable_text(os.fspath(path) if isinstance(path, os.PathLike) else path, name)
    if not text or "\0" in text:
        raise InputError(f"{name} is {text!r}, expected a path")
    return text


def checked_storable_text(text: object, name: str) -> str:
    """A text that Milvus can store.

    Raises:
        InputError, InputTypeError: it is not a str, not valid Unicode, or too long.
    """
    if not isinstance(text, str):
        raise InputTypeError(f"{name} is {text!r}, expected a str")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"{name} is {text!r}, expected Unicode (it has a surrogate)") from error
    if size > MAX_BYTES:
        raise InputError(f"{name} is {size} bytes long, expected up to {MAX_BYTES}")
    return text


def checked_vectors(vectors: object, dim: int, name: str) -> NDArray[np.float32]:
    """Vectors as (n, dim) float32; a single one, (dim,), becomes (1, dim).

    Raises:
        InputError, InputTypeError: they are not finite numbers, or have another shape.
    """
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{name} is {type(vectors).__name__}, expected numbers") from error
    rows = np.atleast_2d(array)
    if rows.ndim != 2 or rows.shape[1] != dim or len(rows) == 0:
        raise InputError(f"{name} is {array.shape}, expected (n, {dim}) with n at least 1")
    if not np.isfinite(rows).all():
        raise InputError(f"{name} holds NaN or infinity, expected finite numbers")
    return rows


def checked_expert_weights(weights: object, experts: tuple[str, ...] | None) -> NDArray[np.float32]:
    """The weight of each expert, 1 for those that are not named.

    Raises:
        InputError, InputTypeError: it is not a dict of numbers by expert, a number is negative or
            too large, or no expert is left.
    """
    if not isinstance(weights, Mapping):
        raise InputTypeError(
            f"expert_weights is a {type(weights).__name__}, expected a dict of numbers by expert"
        )
    if experts is None:
        raise InputError(
            "an older version of mdmmt has made this database, which does not name its experts; "
            "expected the model as well: Index.open(uri, model)"
        )
    for name, weight in weights.items():
        if name not in experts:
            raise InputError(
                f"expert_weights names the expert {name!r}, expected some of {', '.join(experts)}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number):
            raise InputTypeError(f"expert_weights[{name!r}] is {weight!r}, expected a number")
        if not 0 <= weight <= MAX_EXPERT_WEIGHT:
            raise InputError(
                f"expert_weights[{name!r}] is {weight!r}, expected 0 to {MAX_EXPERT_WEIGHT}"
            )
    checked = np.array([weights.get(name, 1) for name in experts], dtype=np.float32)
    if not checked.any():
        raise InputError("expert_weights is 0 for all experts, expected one above 0")
    return checked


def checked_spans(spans_s: Any, n: int) -> list[list[float]]:
    """The n spans of segments, in seconds, as lists of start and end.

    Raises:
        InputError: another shape, or a span that is not finite, negative, or ends before it starts.
    """
    rows = np.asarray(spans_s, dtype=np.float64)
    if rows.shape != (n, 2) or not (
        np.isfinite(rows).all() and (rows[:, 0] >= 0).all() and (rows[:, 0] <= rows[:, 1]).all()
    ):
        raise InputError(
            f"segments.spans_s is {rows.shape}, expected ({n}, 2) with 0 <= start_s <= end_s"
        )
    spans: list[list[float]] = rows.tolist()
    return spans


def checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the metadata of a file.

    Raises:
        InputError, InputTypeError: it is not a dict by name, a name is reserved, or Milvus
            cannot store it as JSON.
    """
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InputTypeError(f"metadata is {metadata!r}, expected a dict with names as keys")
    reserved = [key for key in metadata if key in FIELDS or key.startswith("$")]
    if reserved:
        raise InputError(
            f"metadata has the name {reserved[0]!r}, expected none with a $ in front and none of "
            f"{', '.join(FIELDS)}"
        )
    try:
        _check_depth(dict(metadata), MAX_DEPTH)
        text = json.dumps(dict(metadata), allow_nan=False)
        json.loads(text, parse_int=_int64)
        size = len(text.encode())
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata cannot be stored as JSON ({error})") from error
    if size > MAX_BYTES:
        raise InputError(f"metadata is {size} bytes of JSON, expected up to {MAX_BYTES}")
    return dict(metadata)


def _check_depth(value: object, levels: int) -> None:
    if isinstance(value, Mapping | list | tuple):
        if levels == 0:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        for part in value.values() if isinstance(value, Mapping) else value:
            _check_depth(part, levels - 1)


def _int64(digits: str) -> int:
    number = int(digits)
    if not -(1 << 63) <= number < 1 << 63:
        shown = digits if len(digits) <= 40 else f"{digits[:40]}..."
        raise ValueError(f"{shown} has more than 64 bits")
    return number

"""Checked access to the fields of a record; each error names the place in the file."""

from __future__ import annotations

import math
from typing import Any

from ..errors import InputError


def get_field(record: Any, name: str, where: str) -> Any:
    """Return a field of a JSON object.

    Args:
        where: the place of the record, with which error messages start, as in all functions here.

    Raises:
        InputError: the record is not an object, or has no such field.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: is a {type(record).__name__}, expected an object")
    if name not in record:
        raise InputError(f"{where}: has no {name}, but {', '.join(record) or 'nothing'}")
    return record[name]


def get_list(record: Any, name: str, where: str) -> list[Any]:
    """Return a field of a JSON object that must be a list."""
    value = get_field(record, name, where)
    if not isinstance(value, list):
        raise InputError(f"{where}: {name} is a {type(value).__name__}, expected a list")
    return value


def get_text(record: Any, name: str, where: str) -> str:
    """Return a field of a JSON object that must be a text, see `checked_text`."""
    return checked_text(get_field(record, name, where), name, where)


def checked_text(value: Any, name: str, where: str) -> str:
    """Return a text without the white space around it; an empty one is an error."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {name} is {value!r}, expected a text")
    return value.strip()


def checked_seconds(value: Any, name: str, where: str) -> float:
    """Return a finite number of seconds, given as a number or as its text."""
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"{where}: {name} is {value!r}, expected seconds")
    return seconds

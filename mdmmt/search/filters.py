"""Metadata as a filter in Milvus' language can name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Words that mean something to Milvus, in lower case. So do all that start with st_.
OPERATORS = ("and", "or", "not", "in", "like", "is", "null", "exists", "iso", "interval")
FUNCTIONS = (
    *(f"{kind}_contains{which}" for kind in ("json", "array") for which in ("", "_all", "_any")),
    *("array_length", "text_match", "phrase_match", "random_sample"),
)
RESERVED_WORDS = frozenset((*OPERATORS, *FUNCTIONS, "true", "false", "_seq", "_partition"))
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def fields_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that are stored as fields of their own, by which Milvus Lite filters faster.

    A list or an object is not among them: as a field it would make Milvus Lite refuse every filter
    with `in` by this name, whatever the other files have.
    """
    return {name: value for name, value in metadata.items() if not isinstance(value, list | dict)}


def spell_name(name: str, value: object) -> str:
    """Write the name of a value in the metadata as a filter names it."""
    lower = name.lower()
    plain = WORD.fullmatch(name) and lower not in RESERVED_WORDS and not lower.startswith("st_")
    if plain and name in fields_of({name: value}):
        return name
    return f"metadata[{quote(name)}]"


def quote(text: str) -> str:
    """Write a text as a filter has it."""
    return f'"{"".join(ESCAPES.get(char, char) for char in text)}"'

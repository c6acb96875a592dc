"""The sources of the windows of a file, as an index keeps them with the file.

A search compares all windows of an index. So their features must be of the same versions of the
experts, and their times of one clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import InputError, warn
from .filters import quote
from .index import Index

OURS = '{"facts": '  # how the text of a source begins
CLOCK = "clock"
JSON_ESCAPE = re.compile(r"\\(u....|.)")


class Source(NamedTuple):
    """The sources from which the windows of a file were made."""

    facts: list[Any]  # equal facts mean equal windows
    versions: Mapping[str, str] | None  # of the experts; None: not known
    clock: str | None  # of the times, see `mdmmt.features.extract`; None: not known

    @classmethod
    def parse(cls, text: str) -> Source | None:
        """Read the text that an index keeps; None if another program has written it."""
        try:
            stored = json.loads(text)
            # An older version of this package kept no clock, and not always the versions.
            return cls(stored["facts"], stored["versions"], stored.get(CLOCK))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def __str__(self) -> str:
        return json.dumps(self._asdict())


class MixtureCheck:
    """Refuses features that must not be mixed with those of an index."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._agreed: set[str] = set()  # the index holds nothing that contradicts these
        self._is_first = True

    def check(self, path: str, source: Source) -> None:
        """Refuse to add a file, or to replace the one with the same path.

        Raises:
            InputError: another file in the index is of another version or clock; says of which.
        """
        if self._is_first:
            self._is_first = False
            self._warn_of_unknown()
        mark = self._mark(source)
        if mark in self._agreed:
            return
        contradicts = _contradiction_filter(source)
        found = self._index.find_file(contradicts)
        if found is None:
            self._agreed.add(mark)
            return
        if found[0] == path:  # it is to be replaced
            found = self._index.find_file(f"path != {quote(path)} and ({contradicts})")
        if found is not None and (stored := Source.parse(found[1])):
            raise InputError(_describe_mixture(source, found[0], stored))

    def note_added(self, source: Source) -> None:
        """Take note that the index now holds a file that was added with this source."""
        self._agreed &= {self._mark(source)}

    @staticmethod
    def _mark(source: Source) -> str:
        return json.dumps([source.versions, source.clock], sort_keys=True)

    def _warn_of_unknown(self) -> None:
        unknown = f"{_like(OURS, start=True)} and not ({_like(_key(CLOCK))})"
        found = self._index.find_file(unknown)
        if found is not None:
            warn(
                f"the index holds files such as {found[0]!r}, which an older version of mdmmt has "
                "added without the clock and the versions of the experts, so they are not compared "
                "with those of new files; build another database to be sure that all are the same"
            )


def _contradiction_filter(source: Source) -> str:
    """A filter for files with another version of one of these experts, or with another clock."""
    marks = {**(source.versions or {}), CLOCK: source.clock}
    others = (
        f"({_like(_key(name))} and not ({_like(_key(name) + json.dumps(mark))}))"
        for name, mark in marks.items()
    )
    return f"{_like(OURS, start=True)} and ({' or '.join(others)})"


def _describe_mixture(source: Source, other: str, stored: Source) -> str:
    versions, theirs = source.versions or {}, stored.versions or {}
    for name, version in versions.items():
        if theirs.get(name, version) != version:
            return (
                f"its features must not be mixed with those in the index: the expert {name} has "
                f"the version {version!r}, and {theirs[name]!r} for {other!r}, which the index "
                "holds; expected one version: extract the features again if these are the older "
                "ones, or build another database of all files if those in the index are"
            )
    return (
        f"its features must not be mixed with those in the index: their times go by the clock "
        f"{source.clock!r}, and by {stored.clock!r} for {other!r}, which the index holds; expected "
        f"one clock: extract the features again with `mdmmt extract --clock {stored.clock}`, or "
        "build another database"
    )


def _key(name: str) -> str:
    """How a name appears in the text of a source, before its value."""
    return f"{json.dumps(name)}: "


def _like(part: str, start: bool = False) -> str:
    """A filter for sources that have a part of JSON in them, or at their start.

    Milvus Lite finds no backslash, so the filter takes any characters for those that JSON escapes.
    """
    pattern = "%".join(
        literal.replace("%", r"\%").replace("_", r"\_")
        for literal in JSON_ESCAPE.sub("\0", part).split("\0")
    )
    return f"source like {quote(f'{pattern}%' if start else f'%{pattern}%')}"

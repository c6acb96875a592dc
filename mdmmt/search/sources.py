"""The sources of the windows of a file, as an index keeps them with the file.

A search compares all windows of an index. So their features must be of the same versions of the
experts, and their times of one clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import InputError, warn
from .index import Index

CLOCK = "clock"


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
        # For each mark in the index, a source of it and up to two of its files. None: to be read.
        self._stored: dict[str, tuple[Source, list[str]]] | None = None
        self._is_first = True

    def check(self, path: str, source: Source) -> None:
        """Refuse to add a file, or to replace the one with the same path.

        Raises:
            InputError: another file in the index is of another version or clock; says of which.
        """
        if self._stored is None:
            self._stored = self._read()
        for stored, paths in self._stored.values():
            others = [other for other in paths if other != path]  # that one is to be replaced
            if others and _contradict(source, stored):
                raise InputError(_describe_mixture(source, others[0], stored))

    def note_added(self, source: Source) -> None:
        """Take note that the index now holds a file that was added with this source."""
        if self._stored is not None and self._stored.keys() != {_mark(source)}:
            self._stored = None  # the file may have replaced one of another mark

    def _read(self) -> dict[str, tuple[Source, list[str]]]:
        found: dict[str, tuple[Source, list[str]]] = {}
        for path, text in self._index.sources():
            if (source := Source.parse(text)) is not None:
                _, paths = found.setdefault(_mark(source), (source, []))
                if len(paths) < 2:
                    paths.append(path)
        unknown = [paths[0] for source, paths in found.values() if source.clock is None]
        if unknown and self._is_first:
            warn(
                f"the index holds files such as {unknown[0]!r}, which an older version of mdmmt "
                "has added without the clock and the versions of the experts, so they are not "
                "compared with those of new files; build another database to be sure that all are "
                "the same"
            )
        self._is_first = False
        return found


def _mark(source: Source) -> str:
    """What two sources have in common that contradict the same others."""
    return json.dumps([source.versions, source.clock], sort_keys=True)


def _contradict(source: Source, stored: Source) -> bool:
    """Whether an expert has another version in each, or the clock is another one."""
    versions, theirs = source.versions or {}, stored.versions or {}
    if any(theirs[name] != versions[name] for name in versions.keys() & theirs.keys()):
        return True
    return stored.clock not in (None, source.clock)


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

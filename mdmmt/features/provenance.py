"""Whether the features of several videos may be used together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Provenance:
    """Tells features of different origins: of two clocks, or of two versions of an expert."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[Any, str]] = {}  # the clock or an expert -> video and mark

    def difference(
        self, video: Any, versions: Mapping[str, str], clock: str | None = None
    ) -> tuple[Any, str] | None:
        """Compare a video with the videos before it.

        Args:
            video: its name or its feature file.
            versions: those of its experts that are compared.
            clock: None compares no clocks.

        Returns:
            The video before that differs, and the difference in words; None if there is none.
        """
        marks = {f"the expert {name}": version for name, version in versions.items()}
        if clock is not None:
            marks["the clock"] = clock
        for what, mark in marks.items():
            other, before = self._first.setdefault(what, (video, mark))
            if mark != before:
                return other, f"{what} is {mark!r} and {before!r}"
        return None

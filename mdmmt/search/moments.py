"""Distinct moments: the windows of one file that show the same scene are one hit."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from typing import TYPE_CHECKING

from .filters import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .index import Hit

# The share of the best score that a window must have to join; docs/search.md tells what it does.
JOINS = 0.8


def overlap(one: Hit, other: Hit) -> bool:
    """Whether two hits share time of one file."""
    return one.path == other.path and one.start_s < other.end_s and other.start_s < one.end_s


class Moments:
    """Merges the windows of a search, which come best first.

    The moments of one file share no time.
    """

    def __init__(self, merge: bool = True) -> None:
        self._merge = merge
        self._of_file: dict[str, list[Hit]] = {}  # in the order of their times
        self._order: dict[str, int] = {}  # id of a window that began a moment -> its rank

    def add(self, window: Hit) -> None:
        """Add a window whose score is at most that of each window before it."""
        window = window._replace(best_s=window.best_window_s)
        moments = self._of_file.setdefault(window.path, [])
        near = self._near(window, moments) if self._merge else []
        joined = [moment for moment in near if window.score >= JOINS * moment.score]
        others = [moment for moment in near if window.score < JOINS * moment.score]
        if any(overlap(window, moment) for moment in others):
            return  # it shows in part what a better hit shows
        self._order[window.id] = len(self._order)
        if joined:
            for moment in joined:
                moments.remove(moment)
            best = min(joined, key=self._rank)
            together = [window, *joined]
            window = best._replace(
                start_s=min(hit.start_s for hit in together),
                end_s=max(hit.end_s for hit in together),
            )
        insort(moments, window, key=lambda hit: (hit.start_s, hit.end_s))

    def best(self, k: int, per_video: int | None = None, besides: Hit | None = None) -> list[Hit]:
        """The k best moments so far, best first, and at most `per_video` of one file.

        Args:
            besides: moments that share time with this hit do not count.
        """
        ranked = sorted((hit for hits in self._of_file.values() for hit in hits), key=self._rank)
        if besides is not None:
            ranked = [hit for hit in ranked if not overlap(hit, besides)]
        if per_video is not None:
            counts = Counter[str]()
            kept = []
            for hit in ranked:
                counts[hit.path] += 1
                if counts[hit.path] <= per_video:
                    kept.append(hit)
            ranked = kept
        return ranked[:k]

    def are_final(self, hits: Sequence[Hit], score: float) -> bool:
        """Whether no window with at most this score can join these moments, the last of `best`."""
        return not self._merge or score < JOINS * hits[-1].score

    def filter_of_known(self, hits: Sequence[Hit], per_video: int | None, score: float) -> str:
        """A filter for windows with at most this score that change nothing about these hits.

        They lie in moments, or in files that have all the hits that they may have.
        """
        counts = Counter(hit.path for hit in hits)
        parts = []
        for path, moments in self._of_file.items():
            same_file = f"path == {quote(path)}"
            last = [hit for hit in hits if hit.path == path][-1:]
            if counts[path] == per_video and self.are_final(last, score):
                parts.append(same_file)
            elif self._merge:
                parts += [
                    f"({same_file} and start_s >= {moment.start_s} and end_s <= {moment.end_s})"
                    for moment in moments
                ]
        return " or ".join(parts)

    def _rank(self, moment: Hit) -> int:
        return self._order[moment.id]

    @staticmethod
    def _near(window: Hit, moments: Sequence[Hit]) -> Sequence[Hit]:
        """The moments that overlap or touch a window."""
        first = bisect_left(moments, window.start_s, key=lambda hit: hit.end_s)
        return moments[first : bisect_right(moments, window.end_s, key=lambda hit: hit.start_s)]

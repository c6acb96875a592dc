"""Lists of duplicates: segments of a test set that a training set has too.

The lists have the format of MDMMT's authors, `duplicate_lists/lists/<test set>_<training set>.lst`
of github.com/papermsucode/mdmmt: six columns separated by tabs, which are the file name of the test
video, a start and an end in seconds, and the same of the training video.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import InputError
from ..features.files import VIDEO_SUFFIXES
from ..storage.files import atomic_file
from ..storage.text import counted, numbered_lines, read_text
from .fields import checked_seconds, checked_text

COLUMNS = "test video, start, end, training video, start, end"
MARGIN_S = 10.0  # the authors warn that their times may be 5 to 10 seconds off
YOUTUBE_ID = 11  # characters; ActivityNet puts `v_` before it


class Segment(NamedTuple):
    """A stretch of a video, named as a list or a folder of features names it."""

    video: str
    start_s: float
    end_s: float


class Duplicate(NamedTuple):
    """Two segments that show the same content."""

    test: Segment
    train: Segment


def read_duplicates(path: str | os.PathLike[str]) -> list[Duplicate]:
    """Read a list of duplicates, such as one of the authors' or of `write_duplicates`.

    Raises:
        InputError: the file cannot be read, or has a line, which is named, of another layout.
    """
    path = Path(path)
    found = []
    for line, where in numbered_lines(path, read_text(path)):
        columns = line.split("\t")
        if len(columns) != 6:
            raise InputError(
                f"{where}: has {counted(len(columns), 'column')}, expected 6 separated by tabs: "
                f"{COLUMNS}"
            )
        found.append(
            Duplicate(_segment(columns[:3], "test", where), _segment(columns[3:], "train", where))
        )
    return found


def write_duplicates(path: str | os.PathLike[str], duplicates: Iterable[Duplicate]) -> None:
    """Write a list of duplicates, which appears whole or not at all.

    Raises:
        InputError: the name of a video has a tab or a line break, which the format cannot hold.
    """
    with atomic_file(Path(path)) as part:
        part.write_text("".join(f"{format_duplicate(one)}\n" for one in duplicates), "utf-8")


def format_duplicate(duplicate: Duplicate) -> str:
    """The line of a list, without its end."""
    for video in (duplicate.test.video, duplicate.train.video):
        if any(mark in video for mark in "\t\n\r"):
            raise InputError(
                f"the name {video!r} has a tab or a line break, which a list of duplicates cannot "
                "hold; expected another name of the video"
            )
    segments = (duplicate.test, duplicate.train)
    return "\t".join(f"{one.video}\t{one.start_s:g}\t{one.end_s:g}" for one in segments)


class Exclusions:
    """The segments of training videos that a list of duplicates names.

    Two names mean one video if they agree in all folders that both give. The suffix of a video
    file counts for nothing, nor does the `v_` of ActivityNet before an id of YouTube. So
    `videos/a.mp4` is `a`, and is not `others/a.mp4`.
    """

    def __init__(self, duplicates: Iterable[Duplicate], margin_s: float = MARGIN_S) -> None:
        """Gather the training segments.

        Args:
            duplicates: see `read_duplicates`.
            margin_s: how far the times of the list may be off, in seconds.
        """
        self.margin_s = margin_s
        self._segments: dict[str, list[tuple[tuple[str, ...], Segment]]] = {}
        for one in duplicates:
            folders, name = _split(one.train.video)
            self._segments.setdefault(name, []).append((folders, one.train))

    def excluded(self, video: str, start_s: float, end_s: float | None) -> bool:
        """Whether a segment of a training video overlaps a duplicate, or nearly does.

        Args:
            video: its name, with or without folders and suffix.
            start_s, end_s: the segment in seconds; an end of None is that of the video.
        """
        return any(
            start_s < one.end_s + self.margin_s
            and (end_s is None or one.start_s - self.margin_s < end_s)
            for one in self._of(video)
        )

    def names(self, video: str) -> bool:
        """Whether the list names this training video at all."""
        return any(True for _ in self._of(video))

    def _of(self, video: str) -> list[Segment]:
        folders, name = _split(video)
        return [
            segment
            for others, segment in self._segments.get(name, ())
            if all(a == b for a, b in zip(reversed(folders), reversed(others), strict=False))
        ]


def read_exclusions(path: str | os.PathLike[str]) -> Exclusions:
    """Read the segments that training leaves out. Errors are those of `read_duplicates`."""
    return Exclusions(read_duplicates(path))


def _segment(columns: list[str], which: str, where: str) -> Segment:
    video = checked_text(columns[0], f"the {which} video", where)
    start_s = checked_seconds(columns[1], f"the start in the {which} video", where)
    end_s = checked_seconds(columns[2], f"the end in the {which} video", where)
    if not 0 <= start_s < end_s:
        raise InputError(
            f"{where}: the segment of the {which} video is {start_s:g} to {end_s:g}, expected "
            "0 <= start < end in seconds"
        )
    return Segment(video, start_s, end_s)


def _split(video: str) -> tuple[tuple[str, ...], str]:
    """The folders of a video's name, and the rest of it without what counts for nothing."""
    *folders, name = PurePosixPath(video.replace(os.sep, "/")).parts or ("",)
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in VIDEO_SUFFIXES:
        name = stem
    if name.startswith("v_") and len(name) == len("v_") + YOUTUBE_ID:
        name = name.removeprefix("v_")
    return tuple(folders), name

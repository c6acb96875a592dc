"""Lists that come with datasets: the videos of a split, and duplicates between two datasets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..storage.text import numbered_lines, read_text
from .fields import checked_seconds, checked_text

DUPLICATE_COLUMNS = 6


class Segment(NamedTuple):
    """A part of a video."""

    video: str
    start_s: float
    end_s: float


class Duplicate(NamedTuple):
    """Two segments that show the same, or nearly the same."""

    test: Segment
    training: Segment


def read_video_list(path: str | os.PathLike[str]) -> list[str]:
    """Read a list of videos, one name on each line, as the authors' `lists/*/*.vids`.

    Raises:
        InputError: the file cannot be read.
    """
    path = Path(path)
    return [line.strip() for line, _ in numbered_lines(path, read_text(path))]


def read_duplicates(path: str | os.PathLike[str]) -> list[Duplicate]:
    """Read a list of the segments that a test set shares with a training set.

    No command needs it yet. Training does: a model must not be tested on videos that it has seen.

    Args:
        path: `<test set>_<training set>.lst` of github.com/papermsucode/mdmmt, `duplicate_lists/`:
            lines of six tab-separated columns, twice a video's file name, a start and an end in
            seconds. The authors warn that the times may be some seconds off.

    Raises:
        InputError: the file cannot be read, or one of its lines, which the message names, has other
            columns.
    """
    path = Path(path)
    duplicates = []
    for line, where in numbered_lines(path, read_text(path)):
        values = line.split("\t")
        if len(values) != DUPLICATE_COLUMNS:
            raise InputError(
                f"{where}: {len(values)} columns, expected {DUPLICATE_COLUMNS} separated by tabs"
            )
        duplicates.append(Duplicate(_segment(values[:3], where), _segment(values[3:], where)))
    return duplicates


def _segment(values: list[str], where: str) -> Segment:
    video, start, end = values
    return Segment(
        checked_text(video, "video", where),
        checked_seconds(start, "start", where),
        checked_seconds(end, "end", where),
    )

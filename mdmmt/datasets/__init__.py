"""Annotation files of datasets -> captions, for evaluation and for training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import lazy
from .annotations import Caption, read_captions
from .lists import read_video_list

if TYPE_CHECKING:
    from .caption_indexes import CaptionIndex, IndexedCaption, read_caption_indexes
    from .duplicate_lists import (
        Duplicate,
        Exclusions,
        Segment,
        read_duplicates,
        read_exclusions,
        write_duplicates,
    )
    from .duplicates import find_duplicates
else:  # spares the other readers torch, which reads features
    __getattr__, __dir__ = lazy.names_of(
        __name__,
        {
            ".caption_indexes": ("CaptionIndex", "IndexedCaption", "read_caption_indexes"),
            ".duplicate_lists": (
                *("Duplicate", "Exclusions", "Segment"),
                *("read_duplicates", "read_exclusions", "write_duplicates"),
            ),
            ".duplicates": ("find_duplicates",),
        },
    )

__all__ = [
    "Caption",
    "CaptionIndex",
    "Duplicate",
    "Exclusions",
    "IndexedCaption",
    "Segment",
    "find_duplicates",
    "read_caption_indexes",
    "read_captions",
    "read_duplicates",
    "read_exclusions",
    "read_video_list",
    "write_duplicates",
]

"""Annotation files of datasets -> captions, for evaluation and for training."""

from .annotations import Caption, read_captions
from .lists import Duplicate, Segment, read_duplicates, read_video_list

__all__ = [
    "Caption",
    "Duplicate",
    "Segment",
    "read_captions",
    "read_duplicates",
    "read_video_list",
]

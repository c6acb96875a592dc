"""Annotation files of datasets -> captions, for evaluation and for training."""

from .annotations import Caption, read_captions
from .caption_indexes import CaptionIndex, IndexedCaption, read_caption_indexes
from .lists import read_video_list

__all__ = [
    "Caption",
    "CaptionIndex",
    "IndexedCaption",
    "read_caption_indexes",
    "read_captions",
    "read_video_list",
]

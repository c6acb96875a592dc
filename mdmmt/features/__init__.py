"""The features of a video: the output of the experts, in memory and on disk."""

from .extraction import extract
from .files import (
    FeatureFile,
    FeatureFolder,
    FeatureHeader,
    SourceVideo,
    read_features,
    write_features,
)
from .listing import find_videos_or_features
from .reader import Span, VideoInput
from .segments import duration_s, overlaps, select, windows
from .tokens import InputDict, Tokens, VideoTokens
from .types import ExpertFeatures, VideoFeatures

__all__ = [
    "ExpertFeatures",
    "FeatureFile",
    "FeatureFolder",
    "FeatureHeader",
    "InputDict",
    "SourceVideo",
    "Span",
    "Tokens",
    "VideoFeatures",
    "VideoInput",
    "VideoTokens",
    "duration_s",
    "extract",
    "find_videos_or_features",
    "overlaps",
    "read_features",
    "select",
    "windows",
    "write_features",
]

"""The features of a video: the output of the experts, in memory and on disk."""

from .extraction import extract
from .files import FeatureFile, FeatureFolder, SourceVideo, read_features, write_features
from .segments import duration_s, overlaps, select, windows
from .types import ExpertFeatures, VideoFeatures

__all__ = [
    "ExpertFeatures",
    "FeatureFile",
    "FeatureFolder",
    "SourceVideo",
    "VideoFeatures",
    "duration_s",
    "extract",
    "overlaps",
    "read_features",
    "select",
    "windows",
    "write_features",
]

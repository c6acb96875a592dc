"""Feature files for tests."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np

from mdmmt.features.files import (
    FeatureFile,
    SourceVideo,
)
from mdmmt.features.types import ExpertFeatures


def content(name="a.mkv", n=3):
    rng = np.random.default_rng(0)
    spans = np.stack([np.arange(n), np.arange(n) + 1.0], axis=1)
    features = {"frame": ExpertFeatures(rng.normal(size=(n, 102)), spans)}
    return FeatureFile(features, SourceVideo(name, 5, "ab" * 32), {"frame": "1", "sound": "1"})


def same(a, b) -> bool:
    return list(a) == list(b) and all(
        np.array_equal(x, y) and x.dtype == y.dtype
        for name in a
        for x, y in zip(astuple(a[name]), astuple(b[name]), strict=True)
    )

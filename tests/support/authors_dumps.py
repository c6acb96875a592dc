"""Dumps as the program of MDMMT's authors writes them."""

from __future__ import annotations

import struct

import numpy as np

from mdmmt.features.types import ExpertFeatures

RNG = np.random.default_rng(5)


def make_features(n, dim, hop_s=1.0):
    """Random features of one expert, one after the other from second 0 on."""
    starts = hop_s * np.arange(n)
    return ExpertFeatures(
        RNG.standard_normal((n, dim)),
        np.stack([starts, starts + hop_s], axis=1).round(2),
    )


def write_pair(prefix, videos):
    """Write one pair of files; return where each video begins in the two files."""
    emb, idx, places = b"", "", {}
    for path, features in videos.items():
        places[path] = len(emb), len(idx) + len(f"VIDEO\t{path}\n")
        for row in features.values:
            emb += struct.pack(f"<{len(row)}f", *row)
        idx += f"VIDEO\t{path}\n" + "".join(f"{a:.2f}\t{b:.2f}\n" for a, b in features.times_s)
    prefix.with_name(prefix.name + ".emb").write_bytes(emb)
    prefix.with_name(prefix.name + ".idx").write_text(idx, encoding="utf-8")
    return places


def assert_same(features, expected):
    assert features.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(features[name].values, expected[name].values)
        np.testing.assert_array_equal(features[name].times_s, expected[name].times_s)

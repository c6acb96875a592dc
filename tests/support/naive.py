"""Ten-line versions of what the package does faster."""

from __future__ import annotations

import math


def naive_ranks(text, video, captions, segments, text_of, segment_of):
    """Both ranks of each query, one by one, from sums that no order changes."""
    score = [[math.fsum((t * v).tolist()) for v in video.astype(float)] for t in text.astype(float)]
    t2v, v2t = [], []
    for caption, segment, row, column in zip(captions, segments, text_of, segment_of, strict=True):
        own = score[row][column]
        same_text = {s for c, s in zip(captions, segment_of, strict=True) if c == caption}
        same_segment = {t for t, s in zip(text_of, segments, strict=True) if s == segment}
        others = set(range(len(video))) - same_text
        t2v.append(1 + sum(score[row][s] >= own for s in others))
        others = set(range(len(text))) - same_segment
        v2t.append(1 + sum(score[t][column] >= own for t in others))
    return t2v, v2t

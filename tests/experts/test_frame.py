"""The frame expert tells colours and shapes."""

import numpy as np
from media import block

from mdmmt.experts.frame import BRIGHTNESSES, DIRECTIONS, HUES, FrameExpert

FRAME = FrameExpert()


def similar(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_frame_tells_colour_and_shape_wherever_they_are():
    y, x = np.mgrid[:64, :64]
    disc = block(0, 0, side=0)
    disc[(x - 40) ** 2 + (y - 20) ** 2 < 64] = (220, 40, 40)
    bar = block(0, 0, side=0)
    bar[10:50, 30:36] = (220, 40, 40)
    pictures = [block(5, 10), block(40, 45), block(5, 10, colour=(40, 60, 220)), disc, bar]
    features = FRAME.features(np.stack(pictures)[:, None])
    hues, edges = features[:, :HUES], features[:, HUES + BRIGHTNESSES :][:, :DIRECTIONS]
    assert similar(hues[0], hues[1]) > 0.99 and similar(edges[0], edges[1]) > 0.99
    assert similar(hues[0], hues[2]) < 0.1
    assert similar(edges[0], edges[3]) < 0.9
    outline = features[:, HUES + BRIGHTNESSES + DIRECTIONS : -4]
    assert similar(outline[0], outline[1]) > 0.95 and similar(outline[0], outline[4]) < 0.8

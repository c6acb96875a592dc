"""The clips that the sample model is trained on."""

from __future__ import annotations

from collections import Counter

import av
import pytest

from mdmmt.sample.clips import TONES, Combination, draw

BALL = Combination("red", "circle", "right", "same", "rise")


@pytest.mark.slow
@pytest.mark.parametrize("tone", TONES)
def test_draw_writes_h264_and_aac(tmp_path, tone):
    kinds = Counter()
    for seed in range(8 if tone == "silent" else 2):
        path = tmp_path / f"{seed}.mp4"
        draw(path, BALL._replace(tone=tone), (seed,))
        with av.open(str(path)) as container:
            assert 1.9 <= container.duration / av.time_base <= 4.2
            codecs = {s.type: s.codec.name for s in container.streams}
        assert codecs["video"] == "h264" and codecs.get("audio", "aac") == "aac"
        kinds["audio" in codecs] += 1
    assert kinds[True] and (kinds[False] > 0) == (tone == "silent")


@pytest.mark.slow
def test_draw_gives_one_clip_for_one_seed(tmp_path):
    for name, seed in (("a", (1, 2)), ("b", (1, 2)), ("c", (1, 3))):
        draw(tmp_path / f"{name}.mp4", BALL, seed)
    a, b, c = ((tmp_path / f"{name}.mp4").read_bytes() for name in "abc")
    assert a == b != c

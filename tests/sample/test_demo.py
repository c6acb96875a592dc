"""`mdmmt demo`, in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mdmmt
from mdmmt.sample import demo


@pytest.mark.slow
@pytest.mark.towhee
def test_demo_writes_clips_embeddings_and_a_picture(demo_folder: Path) -> None:
    clips = sorted((demo_folder / "clips").iterdir())
    assert len(clips) == demo.CLIPS
    videos = np.load(demo_folder / "video_embeddings.npy")
    texts = np.load(demo_folder / "text_embeddings.npy")
    assert videos.shape[0] == demo.CLIPS and texts.shape == (demo.QUERIES, videos.shape[1])
    model = mdmmt.load("sample", "cpu")
    np.testing.assert_allclose(model.encode_video(clips), videos, atol=1e-5)
    with Image.open(demo_folder / "found.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert demo.RIGHT_COLOUR in colours and demo.OTHER_COLOUR in colours


@pytest.mark.slow
@pytest.mark.towhee
def test_demo_prints_a_ranked_table(tmp_path: Path, demo_folder: Path) -> None:
    vectors = np.load(demo_folder / "video_embeddings.npy")[:5]
    model = mdmmt.load("sample", "cpu")
    similarity = model.similarity(np.load(demo_folder / "text_embeddings.npy")[0], vectors)
    found = np.argsort(-similarity.score[0]).tolist()
    paths = sorted((demo_folder / "clips").iterdir())
    table = demo.format_result(demo.SearchResult("a query", 0, found, similarity), paths)
    title, header, *rows = table.splitlines()
    assert title == '"a query"'
    assert header.split() == ["rank", "score", *similarity.experts, "clip"]
    for row in rows:
        *_, score, frame, motion, sound, name = row.split()
        assert float(score) == pytest.approx(float(frame) + float(motion) + float(sound), abs=0.002)
        assert name in {path.name for path in paths}
    scores = [float(row.split()[-5]) for row in rows]
    assert scores == sorted(scores, reverse=True)

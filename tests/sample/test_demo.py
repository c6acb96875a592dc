"""`mdmmt demo`, in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pages import ROOT
from PIL import Image

import mdmmt
from mdmmt.media.stills import LOW_CONTRAST, contrast
from mdmmt.sample import NOTHING_FOUND, THRESHOLD, demo
from mdmmt.sample.clips import CLIPS, Combination, draw


@pytest.mark.slow
@pytest.mark.towhee
def test_demo_writes_clips_embeddings_and_a_picture(demo_folder: Path) -> None:
    clips = sorted((demo_folder / "clips").iterdir())
    assert len(clips) == CLIPS
    videos = np.load(demo_folder / "video_embeddings.npy")
    texts = np.load(demo_folder / "text_embeddings.npy")
    assert videos.shape[0] == CLIPS and texts.shape == (demo.QUERIES, videos.shape[1])
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


@pytest.mark.slow
@pytest.mark.parametrize("change", ["blink", "same", "grow"])
def test_frames_shown_show_a_blinking_shape_there_and_away(tmp_path: Path, change: str) -> None:
    combination = Combination("blue", "star", "round", change, "fall")
    for seed in range(3):
        draw(tmp_path / "clip.mp4", combination, (seed,))
        frames = demo.frames_shown(tmp_path / "clip.mp4")
        there = [contrast(frame) > LOW_CONTRAST for frame in frames]
        assert there == [True, change != "blink"] * 2 + [True]


def test_label_lines_name_the_clip_and_its_sound() -> None:
    similarity = mdmmt.Similarity(np.array([[0.25, 0.75]]), np.zeros((1, 2, 3)), ("a", "b", "c"))
    result = demo.SearchResult("a query", 0, [1, 0], similarity)
    path = Path("01-red-star-left-grow-pulse.mp4")
    assert demo.label_lines(result, 0, path) == ["1.  0.750", path.name, "Sound: a pulsing tone"]


@pytest.mark.parametrize("best, found", [(THRESHOLD - 0.01, False), (THRESHOLD + 0.01, True)])
def test_format_result_says_when_nothing_is_found(best: float, found: bool) -> None:
    similarity = mdmmt.Similarity(np.array([[-1.0, best]]), np.zeros((1, 2, 3)), ("a", "b", "c"))
    result = demo.SearchResult("a dog", 0, [1, 0], similarity)
    table = demo.format_result(result, [Path("x.mp4"), Path("y.mp4")])
    assert (NOTHING_FOUND in table) is not found


@pytest.mark.slow
@pytest.mark.towhee
def test_page_prints_what_the_demo_prints(demo_folder: Path) -> None:
    model = mdmmt.load("sample", "cpu")
    videos = np.load(demo_folder / "video_embeddings.npy")
    text = np.load(demo_folder / "text_embeddings.npy")[2]
    paths = sorted((demo_folder / "clips").iterdir())
    similarity = model.similarity(text, videos)
    ranking = np.argsort(-similarity.score[0])[: demo.SHOWN].tolist()
    page = (ROOT / "docs" / "index.md").read_text()
    query = page.split('```\n"', 1)[1].split('"\n', 1)[0]
    result = demo.SearchResult(query, 2, ranking, similarity)
    printed = demo.format_result(result, paths)
    shown = f'"{query}"' + page.split(f'"{query}"', 1)[1].split("```", 1)[0].rstrip()
    assert [line.split() for line in shown.splitlines()] == [
        line.split() for line in printed.splitlines()
    ]

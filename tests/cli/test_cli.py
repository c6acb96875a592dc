"""The command line, as a user's shell calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mdmmt
from mdmmt.batch.embed import embed_texts
from mdmmt.cli import main
from mdmmt.sample import demo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `mdmmt demo` has written, here in this process and quietly."""
    folder = tmp_path_factory.mktemp("demo run") / "demo"
    results = demo.run(folder)
    assert [result.ranking[0] for result in results].count(0) <= 1  # not one clip for everything
    right = sum(result.ranking[0] == result.target for result in results)
    assert right >= demo.QUERIES - 1, [(r.query, r.target, r.ranking) for r in results]
    return folder


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


def test_embed_texts_as_npy(tmp_path: Path) -> None:
    out = tmp_path / "texts.npy"
    texts = ["a red ball", "there is silence"]
    arguments = [part for text in texts for part in ("--text", text)]
    assert main(["embed", *arguments, "--weights", "sample", "--device=cpu", f"--out={out}"]) == 0
    expected = mdmmt.load("sample", "cpu").encode_text(texts)
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)
    assert np.load(out).dtype == np.float32


def test_a_refused_text_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mdmmt.load("sample", "cpu")
    texts = [f"a red ball {i}" for i in range(64)]
    expected = model.encode_text(texts)
    texts[5], texts[40] = " ", ""
    passes, encode = [], model.encode_text
    monkeypatch.setattr(model, "encode_text", lambda given: passes.append(given) or encode(given))
    rows = list(embed_texts(model, texts))
    assert [row.name for row in rows] == texts
    assert {i: row.error for i, row in enumerate(rows) if row.error} == {
        5: "text is ' ', expected some words",
        40: "text is '', expected some words",
    }
    for i in (0, 4, 6, 63):
        np.testing.assert_allclose(rows[i].vector, expected[i], atol=1e-5)
    assert len(passes) < 30  # not each by itself


@pytest.mark.slow
@pytest.mark.towhee
def test_embed_videos_as_jsonl_in_a_real_process(demo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "videos.jsonl"
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video" * 100)
    good = sorted((demo_folder / "clips").iterdir())[:2]
    command = [sys.executable, "-m", "mdmmt", "embed", good[0], broken, good[1]]
    command += ["--weights", "sample", "--out", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(broken) in done.stderr and "2 of 3" in done.stdout
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["path"] for record in records] == [str(path) for path in good]
    vectors = np.array([record["embedding"] for record in records], dtype=np.float32)
    np.testing.assert_allclose(
        vectors, np.load(demo_folder / "video_embeddings.npy")[:2], atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.towhee
def test_embed_marks_the_row_of_a_broken_file_in_npy(demo_folder: Path, tmp_path: Path) -> None:
    good = min((demo_folder / "clips").iterdir())
    out = tmp_path / "videos.npy"
    command = ["embed", str(tmp_path / "none.mp4"), str(good)]
    assert main([*command, "--weights=sample", f"--out={out}"]) == 1
    rows = np.load(out)
    assert np.isnan(rows[0]).all() and np.isfinite(rows[1]).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--text", "x", "--weights", "sample", "--out", "OUT.txt"], "ends in .npy or .jsonl"),
        (
            ["--text", " ", "--weights", "sample", "--out", "OUT.npy"],
            "mdmmt: text is ' ', expected some words",
        ),
        (["--text", "x", "--weights", "nowhere.pth", "--out", "OUT.npy"], "nowhere.pth"),
        (["--text", "x", "--weights", "sample", "--device", "tpu", "--out", "OUT.npy"], "tpu"),
    ],
)
def test_embed_says_what_is_wrong_and_keeps_what_was_there(
    arguments: list[str], sentence: str, tmp_path: Path, capsys
) -> None:
    for name in ("OUT.txt", "OUT.npy"):
        (tmp_path / name).write_text("mine")
    assert main(["embed", *(str(tmp_path / a) if "OUT" in a else a for a in arguments)]) == 1
    assert sentence in capsys.readouterr().err
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "command",
    [
        ["extract", "none.mp4", "--experts=frame", "--out", "OUT"],
        ["index", "build", "none.mp4", "--weights=sample", "--db", "OUT"],
        ["search", "red", "--weights=sample", "--db", "none.db", "--html", "OUT"],
        ["convert", "none.pth", "OUT"],
        ["export", "text", "--weights=none.pth", "OUT"],
        ["dumps", "read", "CLIP=none", "--out", "OUT"],
        ["dumps", "write", "none.safetensors", "--out", "OUT"],
        ["demo", "--out", "OUT"],
        ["hub-folder", "OUT"],
    ],
    ids=lambda command: "-".join(command[:2]),
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "file").write_text("mine")
    for place, words in ((tmp_path / "file" / "out", "file"), (tmp_path / "out", "written into")):
        assert main([str(place) if part == "OUT" else part for part in command]) == 1
        error = capsys.readouterr().err
        assert error.startswith("mdmmt: ") and error.count("\n") == 1 and "Errno" not in error
        assert str(tmp_path) in error and words in error and "none" not in error
        monkeypatch.setattr(os, "access", lambda *_: False)  # what it is to root says nothing
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1

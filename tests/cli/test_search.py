"""`mdmmt index` and `mdmmt search`, from video files to the results of a sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import mdmmt
from mdmmt.cli import main
from mdmmt.sample.captions import caption
from mdmmt.search import Index
from mdmmt.storage.paths import SAMPLE_FOLDER
from mdmmt.weights import identity, layout

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")

SEED = 7
CLIPS = 6


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


@pytest.fixture(scope="module")
def clips(sample_clips) -> Path:
    return sample_clips(CLIPS, SEED)[0].path.parent


@pytest.fixture(scope="module")
def query(sample_clips) -> str:
    """A caption of the first clip."""
    return caption(sample_clips(CLIPS, SEED)[0].combination, np.random.default_rng(SEED))


@pytest.fixture(scope="module")
def database(clips, tmp_path_factory) -> str:
    """Of all clips, with their number as metadata; built by the command."""
    folder = tmp_path_factory.mktemp("database")
    lines = [json.dumps({"path": str(clips / f"{i}.mp4"), "number": i}) for i in range(CLIPS)]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    db = str(folder / "library.db")
    command = ["index", "build", str(clips), "--db", db, "--weights=sample", "--device=cpu"]
    assert main([*command, "--metadata", str(folder / "metadata.jsonl")]) == 0
    return db


def search(database: str, *arguments: str, capsys) -> list[dict]:
    capsys.readouterr()
    command = ["search", *arguments, "--db", database, "--weights=sample", "--device=cpu"]
    assert main([*command, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_search_command_finds_the_clip_of_a_sentence(database, clips, query, model, capsys):
    hits = search(database, query, "-k", "3", capsys=capsys)
    assert hits[0]["path"] == str(clips / "0.mp4") and len(hits) == 3
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    best = hits[0]
    assert sum(best["by_expert"].values()) == pytest.approx(best["score"], abs=1e-5)
    assert (best["start_s"], best["metadata"]) == (0.0, {"number": 0})
    vector = model.encode_segments(clips / "0.mp4").vectors[0]
    assert float(model.encode_text(query) @ vector) == pytest.approx(best["score"], abs=1e-5)


def test_search_command_filters_by_metadata(database, query, capsys):
    hits = search(database, query, "--filter", "number >= 2 and number < 4", capsys=capsys)
    assert {hit["metadata"]["number"] for hit in hits} == {2, 3}
    command = ["search", query, "--db", database, "--weights=sample", "--filter", "number >"]
    assert main(command) == 1
    assert "number >" in capsys.readouterr().err
    assert search(database, query, "--filter", "nmber >= 2", capsys=capsys) == []
    assert main([*command[:-1], "nmber >= 2"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "nothing was found\n"
    assert printed.err == "mdmmt: names in the metadata are number\n"


def test_search_command_finds_a_video_by_itself(database, clips, capsys):
    hits = search(database, "--video", str(clips / "4.mp4"), capsys=capsys)
    assert hits[0]["path"] == str(clips / "4.mp4") and len(hits) == CLIPS
    assert hits[0]["score"] == pytest.approx(3, abs=1e-4)


def test_search_command_prints_a_table_and_writes_a_page(database, query, tmp_path, capsys):
    out = tmp_path / "found.html"
    command = ["search", query, "--db", database, "--weights=sample", "--html", str(out)]
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr()
    header, *rows = printed.out.splitlines()
    columns = ["rank", "score", "frame", "motion", "sound", "from", "to", "file"]
    assert header.split() == columns
    assert len(rows) == CLIPS and rows[0].endswith("0.mp4") and str(out) in printed.err
    assert out.read_text().count("<video") == CLIPS


def test_index_and_search_commands_name_the_error(clips, database, model, tmp_path, capsys):
    weights = ["--weights=sample", "--device=cpu"]
    missing = str(tmp_path / "none.mp4")
    assert main(["index", "build", missing, "--db", str(tmp_path / "a.db"), *weights]) == 1
    assert missing in capsys.readouterr().err
    assert main(["search", "red", "--db", str(tmp_path / "b.db"), *weights]) == 1
    assert "b.db" in capsys.readouterr().err and not (tmp_path / "b.db").exists()
    build = ["index", "build", str(clips / "0.mp4"), "--db", database, *weights]
    assert main([*build, "--window=2", "--stride=3"]) == 1
    assert "holes" in capsys.readouterr().err
    assert main([*build, f"--features={tmp_path / 'slip'}"]) == 1
    assert f"no feature file (.safetensors) in '{tmp_path / 'slip'}'" in capsys.readouterr().err
    (tmp_path / "about.jsonl").write_text('{"path": "other.mp4", "number": 7}\n')
    assert (
        main([*build, f"--metadata={tmp_path / 'about.jsonl'}", f"--db={tmp_path / 'c.db'}"]) == 1
    )
    assert "other.mp4, which is not among" in capsys.readouterr().err
    assert main(["index", "delete", "nothing.mp4", "--db", database]) == 1
    assert "nothing.mp4" in capsys.readouterr().err
    with Index.open(database, model) as index:
        index.add("relative.mp4", model.encode_segments(clips / "0.mp4"))
    assert main(["index", "delete", "relative.mp4", "--db", database]) == 0


def test_search_command_reads_the_text_tower_alone(database, clips, query, tmp_path, monkeypatch):
    """Once the hash of the weights is kept, a search by a sentence reads no video tower."""
    folder = shutil.copytree(SAMPLE_FOLDER, tmp_path / "model")
    os.utime(folder / "model.safetensors", (1.6e9, 1.6e9))
    monkeypatch.setattr(identity, "MIN_AGE_S", 0.0)
    read: list[tuple[str, ...]] = []
    read_tower = layout.read_tower

    def record(path, prefixes):
        read.append(prefixes)
        return read_tower(path, prefixes)

    for module in (identity, mdmmt.model):
        monkeypatch.setattr(module, "read_tower", record)

    def run(*arguments: str) -> list[tuple[str, ...]]:
        read.clear()
        command = ["search", *arguments, "--db", database, f"--weights={folder}", "--device=cpu"]
        assert main(command) == 0
        return list(read)

    video, text = layout.VIDEO_PREFIXES, layout.TEXT_PREFIXES
    assert run(query) == [video, text, text]  # hashed, then read to embed the sentence
    assert run(query) == [text]
    assert run("--video", str(clips / "0.mp4")) == [video]

"""`mdmmt index` and `mdmmt search`, from video files to what a sentence finds among them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from media import flat, write_video

import mdmmt
from mdmmt.cli import main
from mdmmt.errors import InputError
from mdmmt.features.files import read_features, write_features
from mdmmt.sample.captions import caption
from mdmmt.sample.clips import COMBINATIONS, draw
from mdmmt.search.build import index_files, read_metadata
from mdmmt.search.index import Index

SEED = 7
CLIPS = 6


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    chosen = np.random.default_rng(SEED).choice(len(COMBINATIONS), CLIPS, replace=False)
    for i, at in enumerate(chosen):
        draw(folder / f"{i}.mp4", COMBINATIONS[at], seed=(SEED, i))
    return folder


@pytest.fixture(scope="module")
def query() -> str:
    """A caption of the first clip."""
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(len(COMBINATIONS), CLIPS, replace=False)
    return caption(COMBINATIONS[chosen[0]], rng)


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


def test_a_sentence_finds_its_clip(database, clips, query, model, capsys):
    found = search(database, query, "-k", "3", capsys=capsys)
    assert found[0]["path"] == str(clips / "0.mp4") and len(found) == 3
    scores = [hit["score"] for hit in found]
    assert scores == sorted(scores, reverse=True)
    best = found[0]
    assert sum(best["by_expert"].values()) == pytest.approx(best["score"], abs=1e-5)
    assert (best["start_s"], best["metadata"]) == (0.0, {"number": 0})
    vector = model.encode_segments(clips / "0.mp4").vectors[0]
    assert float(model.encode_text(query) @ vector) == pytest.approx(best["score"], abs=1e-5)


def test_a_filter_leaves_others_out(database, query, capsys):
    found = search(database, query, "--filter", "number >= 2 and number < 4", capsys=capsys)
    assert {hit["metadata"]["number"] for hit in found} == {2, 3}
    command = ["search", query, "--db", database, "--weights=sample", "--filter", "number >"]
    assert main(command) == 1
    assert "number >" in capsys.readouterr().err
    assert search(database, query, "--filter", "nmber >= 2", capsys=capsys) == []
    assert main([*command[:-1], "nmber >= 2"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "nothing was found\n"
    assert printed.err == "mdmmt: names in the metadata are number\n"


def test_a_video_finds_itself_first(database, clips, capsys):
    found = search(database, "--video", str(clips / "4.mp4"), capsys=capsys)
    assert found[0]["path"] == str(clips / "4.mp4") and len(found) == CLIPS
    assert found[0]["score"] == pytest.approx(3, abs=1e-4)


def test_a_table_and_a_page(database, query, tmp_path, capsys):
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


def test_a_second_run_only_adds_what_is_new(clips, tmp_path, model, monkeypatch):
    film = write_video(tmp_path / "film.mkv", flat(range(0, 200, 10)), 10)
    embedded = []
    real = model.encode_segments
    monkeypatch.setattr(
        model, "encode_segments", lambda path, **how: embedded.append(path) or real(path, **how)
    )
    paths = [str(clips / "0.mp4"), str(film), str(tmp_path / "none.mp4")]
    with Index.open(tmp_path / "a.db", model) as index:

        def run(*how, **more) -> list[str]:
            embedded.clear()
            outcomes = list(index_files(index, model, paths, *how, **more))
            assert [bool(outcome.error) for outcome in outcomes] == [False, False, True]
            return list(embedded)

        assert run() == paths[:2]
        assert run() == []
        assert list(index_files(index, model, paths))[2].error == "there is no such file"
        write_video(film, flat([9, 8, 7] * 20), 10)  # another film of the same name
        assert run() == [str(film)]
        assert index.count() == 2
        assert run(2.0) == paths[:2]  # other windows take the place of the old ones
        assert index.count() == 5
        assert run(2.0, metadata={str(film): {"year": 2021}}) == []  # no expert is run for that
        hits = index.search(real(film).vectors[0], 9, "year == 2021")
        assert {hit.path for hit in hits} == {str(film)} and len(hits) == 3
        # What is known of a file stays, unless something else is said of it.
        assert run(2.0) == [] and index.metadata(film) == {"year": 2021}
        write_video(film, flat([1, 2, 3] * 20), 10)
        assert run(2.0, metadata={paths[0]: {"year": 3}}) == [str(film)]
        assert [index.metadata(path) for path in paths] == [{"year": 3}, {"year": 2021}, {}]
        assert run(2.0, metadata={str(film): {}}) == [] and index.metadata(film) == {}
        hits = index.search(real(film).vectors[0], 9, with_vectors=True)
        mine = sorted((hit for hit in hits if hit.path == str(film)), key=lambda hit: hit.start_s)
        expected = real(film, window_s=2.0)
        np.testing.assert_allclose([hit.vector for hit in mine], expected.vectors, atol=1e-6)


def test_feature_files_of_equal_names_are_different_files(clips, tmp_path, model):
    for folder, clip in (("a", "1.mp4"), ("b", "2.mp4")):
        (tmp_path / "videos" / folder).mkdir(parents=True)
        shutil.copy(clips / clip, tmp_path / "videos" / folder / "x.mp4")
    out = tmp_path / "features"
    assert main(["extract", str(tmp_path / "videos"), f"--out={out}", "--experts=frame"]) == 0
    files = [str(out / folder / "x.mp4.safetensors") for folder in ("a", "b")]
    with Index.open(tmp_path / "a.db", model) as index:
        assert [one.windows for one in index_files(index, model, files)] == [1, 1]
        assert index.count() == 2
        assert all(one.kept for one in index_files(index, model, files))
        hits = index.search(model.encode_text("a red ball"), 9)
        assert {hit.path for hit in hits} == set(files)
        command = ["extract", str(tmp_path / "videos"), f"--out={out}"]
        assert main([*command, "--experts=frame,motion,sound"]) == 0
        assert not any(one.kept for one in index_files(index, model, files))  # made by others


def test_features_made_before_spare_running_the_experts(clips, tmp_path, model, monkeypatch):
    assert main(["extract", str(clips), f"--out={tmp_path}", "--experts=frame,motion,sound"]) == 0
    embedded = []
    real = model.encode_segments
    monkeypatch.setattr(
        model, "encode_segments", lambda path, **how: embedded.append(path) or real(path, **how)
    )
    path = str(clips / "3.mp4")
    with Index.open(tmp_path / "a.db", model) as index:
        (outcome,) = index_files(index, model, [path], features=tmp_path)
        assert outcome.windows == 1 and embedded == [tmp_path / "3.mp4.safetensors"]
        (hit,) = index.search(real(path).vectors[0], 1)
        assert hit.path == path and hit.score == pytest.approx(3, abs=1e-4)
        file = tmp_path / "3.mp4.safetensors"  # to which an expert of another model is added
        made = read_features(file)
        clip = np.ones((1, 512), np.float32), np.array([[0.0, 1.0]])
        write_features(file, made.with_experts({"CLIP": clip}, {"CLIP": "1"}))
        (outcome,) = index_files(index, model, [path], features=tmp_path)
        assert outcome.kept
        assert [one.kept for one in index_files(index, model, [path])] == [True]  # and without it
        write_features(file, made.with_experts({}, {"frame": "2"}))
        (outcome,) = index_files(index, model, [path], features=tmp_path)
        assert not outcome.kept and embedded.pop() == file
        file.write_bytes(b"cut short")
        (outcome,) = index_files(index, model, [path], features=tmp_path)
        assert outcome.kept
        other = tmp_path / "3.mp4"  # of the name, and of another content
        write_video(other, flat([1, 2, 3]))
        (outcome,) = index_files(index, model, [str(other)], features=tmp_path)
        assert outcome.windows == 1 and embedded[1:] == [str(other)]


def test_the_commands_name_what_is_wrong(clips, database, model, tmp_path, capsys):
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


@pytest.mark.parametrize(
    "line",
    [
        *(b"no json", b"[]", b'{"year": 3}', b'{"path": ["a"]}', b'{"path": "a.mp4"}', b"\xff"),
        *(b'{"path": "b.mp4", "id": 2}', b'{"path": "b.mp4", "x": 1e999}'),
        b'{"path": "b.mp4", "x": 9223372036854775808}',
    ],
)
def test_bad_metadata_is_named_with_its_line(line, tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'{"path": "a.mp4"}\n' + line + b"\n")
    with pytest.raises(InputError, match=r"m\.jsonl, line 2"):
        read_metadata(tmp_path / "m.jsonl")

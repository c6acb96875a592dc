"""`mdmmt index` and `mdmmt search`, from video files to the results of a sentence."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from index_windows import MODEL, segments
from safetensors.numpy import load_file, save_file

import mdmmt
from mdmmt.cli import main
from mdmmt.sample import NOTHING_FOUND, NOTICE
from mdmmt.sample.captions import caption
from mdmmt.search import Index
from mdmmt.storage import facts
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
def database(clips, new_database, tmp_path_factory) -> str:
    """Of all clips, with their number as metadata; built by the command."""
    folder = tmp_path_factory.mktemp("database")
    lines = [json.dumps({"path": str(clips / f"{i}.mp4"), "number": i}) for i in range(CLIPS)]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    db = new_database()
    command = ["index", "build", str(clips), "--db", db, "--weights=sample", "--device=cpu"]
    assert main([*command, "--metadata", str(folder / "metadata.jsonl")]) == 0
    return db


def search(database: str, *arguments: str, capsys) -> list[dict]:
    capsys.readouterr()
    command = ["search", *arguments, "--db", database, "--device=cpu"]
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


def test_index_export_and_import_move_a_database(database, query, tmp_path, capsys):
    file, copy = str(tmp_path / "library.parquet"), str(tmp_path / "copy.db")
    assert main(["index", "export", "--db", database, "--out", file]) == 0
    assert main(["index", "import", file, "--db", copy]) == 0
    out = capsys.readouterr().out.splitlines()
    windows = out[0].split()[0]
    assert out[0] == f"{windows} windows of {CLIPS} videos exported to {file}"
    assert out[1] == f"{windows} windows of {CLIPS} videos imported into {copy}"
    pairs = zip(*(search(db, query, capsys=capsys) for db in (database, copy)), strict=True)
    for hit, copied in pairs:
        assert copied.pop("score") == pytest.approx(hit.pop("score"), abs=1e-6)
        assert copied == hit
    assert main(["index", "export", "--db", database, "--out", str(tmp_path / "a.csv")]) == 1
    assert ".parquet or .jsonl" in capsys.readouterr().err


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
    assert printed.err == f"mdmmt: {NOTICE}\nmdmmt: names in the metadata are number\n"


def test_search_command_tells_that_nothing_looks_like_a_text(database, query, tmp_path, capsys):
    page = tmp_path / "page.html"
    command = ["search", "--db", database, "--weights=sample", f"--html={page}"]
    for text, is_there in ((query, True), ("a dog sleeps on a sofa", False)):
        assert main([*command, text]) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert (first == NOTHING_FOUND) is not is_there
        assert (NOTHING_FOUND in page.read_text()) is not is_there
    assert main([*command[:-1], "--expert-weights=frame=2", text]) == 0  # other scores
    assert NOTHING_FOUND not in capsys.readouterr().out


def test_search_command_answers_each_line(database, query, tmp_path, monkeypatch, capsys):
    texts = [query, "a blue star"]
    (tmp_path / "queries.txt").write_text(f"{texts[0]}\n\n  {texts[1]}\n")
    one_by_one = [search(database, text, "-k", "2", capsys=capsys) for text in texts]
    expected = [{"query": text, "hits": hits} for text, hits in zip(texts, one_by_one, strict=True)]
    answers = search(database, "--queries", str(tmp_path / "queries.txt"), "-k2", capsys=capsys)
    assert answers == expected

    stdin = io.TextIOWrapper(io.BytesIO(f"{texts[0]}\n\xff\n{texts[1]}".encode("latin-1")))
    monkeypatch.setattr("sys.stdin", stdin)
    command = ["search", "--db", database, "--device=cpu", "-k2", "--queries", "-"]
    assert main([*command, "--json"]) == 1  # one line is no text
    printed = capsys.readouterr()
    assert [json.loads(line) for line in printed.out.splitlines()] == expected
    assert "standard input, line 2: text is" in printed.err


def test_search_command_asks_for_queries_on_a_terminal(database, monkeypatch, capsys):
    stdin = io.StringIO("a red ball\na blue star\n")
    monkeypatch.setattr("sys.stdin", stdin)
    command = ["search", "--db", database, "--device=cpu", "-k1", "--filter=number == 3"]
    assert main(command) == 1
    assert (
        "there is no query; expected a text, --video, --like or --queries"
        in capsys.readouterr().err
    )
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.err.endswith("Ctrl-D ends\n> > > ")
    blocks = printed.out.split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == ["a red ball", "a blue star", ""]
    assert all(block.endswith("3.mp4") for block in blocks[:2])


def test_search_command_refuses_what_needs_one_query(database, tmp_path, capsys):
    command = ["search", "--db", database, "--queries", str(tmp_path / "none.txt")]
    assert main(command) == 1
    assert "none.txt' cannot be read" in capsys.readouterr().err
    assert main([*command, "--html", str(tmp_path / "page.html")]) == 1
    assert "--html shows the results of one query" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "a red ball"])


def test_search_command_weighs_the_experts(database, query, capsys):
    plain = {hit["path"]: hit["by_expert"] for hit in search(database, query, capsys=capsys)}
    hits = search(database, query, "--expert-weights", "frame=0, motion=2", capsys=capsys)
    for hit in hits:
        shares = plain[hit["path"]]
        expected = {"frame": 0, "motion": 2 * shares["motion"], "sound": shares["sound"]}
        assert hit["by_expert"] == pytest.approx(expected, abs=1e-5)
        assert hit["score"] == pytest.approx(sum(expected.values()), abs=1e-5)
    command = ["search", query, "--db", database, "--expert-weights"]
    assert main([*command, "frmae=2"]) == 1
    assert "'frmae', expected some of frame, motion, sound" in capsys.readouterr().err
    for wrong in ("frame", "frame=two", "frame=1,frame=2", "=1", ""):
        with pytest.raises(SystemExit):
            main([*command, wrong])
        assert "expected the name of an expert" in capsys.readouterr().err


def test_search_command_finds_a_video_by_itself(database, clips, capsys):
    hits = search(database, "--video", str(clips / "4.mp4"), capsys=capsys)
    assert hits[0]["path"] == str(clips / "4.mp4") and len(hits) == CLIPS
    assert hits[0]["score"] == pytest.approx(3, abs=1e-4)


@pytest.fixture(scope="module")
def windows(clips, model, new_database) -> str:
    """A database of all clips, in windows of a second, each half a second after the one before."""
    db = new_database()
    with Index.open(db, model) as index:
        for path in sorted(clips.glob("*.mp4")):
            index.add(path, model.encode_segments(path, window_s=1.0, stride_s=0.5))
    return db


@pytest.mark.slow  # many searches, each of which loads the model
def test_search_command_shows_moments_or_windows(windows, query, clips, tmp_path, capsys):
    plain = search(windows, query, "-k", "5", "--windows", capsys=capsys)
    with Index.open(windows) as index:
        vector = mdmmt.load("sample", "cpu").encode_text(query)
        assert [hit["id"] for hit in plain] == [hit.id for hit in index.search(vector, 5)]
        expected = index.find_moments(vector, 5)
    moments = search(windows, query, "-k", "5", capsys=capsys)
    assert [hit["id"] for hit in moments] == [hit.id for hit in expected]
    best = moments[0]
    assert best["path"] == str(clips / "0.mp4") and best["id"] == plain[0]["id"]
    assert (best["best_start_s"], best["best_end_s"]) == (plain[0]["start_s"], plain[0]["end_s"])
    assert best["start_s"] <= best["best_start_s"] < best["best_end_s"] <= best["end_s"]
    assert best["end_s"] - best["start_s"] > 1

    one_each = search(windows, query, "-k", "5", "--per-video", "1", capsys=capsys)
    assert len({hit["path"] for hit in one_each}) == len(one_each) == 5
    queries = tmp_path / "queries.txt"
    queries.write_text(f"{query}\n{query}\n")
    options = ["--queries", str(queries), "-k", "5", "--per-video", "1"]
    for answer in search(windows, *options, capsys=capsys):
        assert answer["hits"] == one_each
    page = tmp_path / "found.html"
    assert main(["search", query, "--db", windows, "-k=1", "--html", str(page)]) == 0
    times = [f"{best[name]:.1f}" for name in ("start_s", "end_s", "best_start_s")]
    assert capsys.readouterr().out.splitlines()[-1].split()[-4:-1] == times
    assert f"#t={best['best_start_s']:.3f},{best['end_s']:.3f}" in page.read_text()
    assert main(["search", query, "--db", windows, "--per-video", "0"]) == 1
    assert "--per-video is 0, expected a whole number from 1 to" in capsys.readouterr().err


@pytest.mark.slow  # many searches, each of which loads the model
def test_search_command_finds_more_like_a_result(windows, query, clips, tmp_path, capsys):
    found = search(windows, query, "-k", "1", capsys=capsys)[0]
    more = search(windows, "--like", found["id"], "-k", "4", capsys=capsys)
    with Index.open(windows) as index:
        window = index.window(found["id"])
        expected = index.find_moments(window.vector, 4, besides=window)
    assert [hit["id"] for hit in more] == [hit.id for hit in expected]
    assert len(more) == 4 and found["id"] not in [hit["id"] for hit in more]
    place = f"{found['path']}#t={found['best_start_s']:.1f}"
    assert search(windows, "--like", place, "-k", "4", capsys=capsys) == more
    page = tmp_path / "found.html"
    assert main(["search", "--like", place, "--db", windows, "--html", str(page)]) == 0
    assert place in page.read_text()
    capsys.readouterr()
    for wrong, message in (
        (f"{found['path']}#t=99", "holds the second 99; expected one from 0 to"),
        (f"{found['path']}#t=x", "expected a number of seconds after #t="),
        ("none.mp4#t=1", "the index has nothing of"),
        (found["path"], "the index has no window"),
    ):
        assert main(["search", "--like", wrong, "--db", windows]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["search", "--like", place, "--video", found["path"], "--db", windows])


@pytest.mark.slow  # many searches, each of which loads the model
def test_search_command_refines_times_by_kept_features(clips, query, databases, tmp_path, capsys):
    features, db = str(tmp_path / "features"), databases("library")
    videos = [str(clips / "0.mp4"), str(clips / "1.mp4")]
    assert main(["extract", *videos, f"--out={features}", "--experts=frame,motion,sound"]) == 0
    build = ["index", "build", *videos, "--db", db, "--weights=sample", "--window=6"]
    assert main([*build, "--features", features]) == 0
    plain = search(db, query, capsys=capsys)
    assert main(["search", query, "--db", db, "--refine", "--features", features, "--json"]) == 0
    printed = capsys.readouterr()
    assert "not kept" not in printed.err
    refined = [json.loads(line) for line in printed.out.splitlines()]
    times = ("start_s", "end_s", "best_start_s", "best_end_s")
    for hit, narrow in zip(plain, refined, strict=True):
        assert narrow["best_end_s"] - narrow["best_start_s"] < hit["end_s"] - hit["start_s"]
        assert hit["start_s"] <= narrow["start_s"] and narrow["end_s"] <= hit["end_s"]
        assert {name: hit[name] for name in hit if name not in times} == {
            name: narrow[name] for name in narrow if name not in times
        }
    assert main(["search", query, "--db", db, "--refine", "--json"]) == 0
    printed = capsys.readouterr()
    assert [json.loads(line) for line in printed.out.splitlines()] == plain
    assert "the features of 2 videos, such as" in printed.err and printed.err.count("kept") == 1
    assert main(["search", query, "--db", db, "--features", features]) == 1
    assert "--features is for --refine" in capsys.readouterr().err
    assert main(["search", query, "--db", db, "--refine", "--features", str(clips)]) == 1
    assert "no feature file" in capsys.readouterr().err


def test_search_command_takes_a_text_and_a_video_together(
    database, query, clips, model, tmp_path, capsys
):
    clip = str(clips / "3.mp4")
    hits = search(database, query, "--video", clip, capsys=capsys)
    with Index.open(database) as index:
        vector = index.combine(model.encode_text(query), model.encode_video(clip))
        expected = index.find_moments(vector)
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    assert {hit["path"] for hit in hits[:2]} == {str(clips / "0.mp4"), clip}
    for hit in hits:
        assert sum(hit["by_expert"].values()) == pytest.approx(hit["score"], abs=1e-5)
    (tmp_path / "queries.txt").write_text(f"{query}\n")
    (line,) = search(
        database, "--queries", str(tmp_path / "queries.txt"), "--video", clip, capsys=capsys
    )
    assert line == {"query": query, "hits": hits}


def test_index_build_command_takes_a_folder_of_feature_files(clips, model, tmp_path, capsys):
    features, db = tmp_path / "features", str(tmp_path / "library.db")
    video = str(clips / "0.mp4")
    assert main(["extract", video, f"--out={features}", "--experts=frame,motion,sound"]) == 0
    assert main(["index", "build", str(features), "--db", db, "--weights=sample"]) == 0
    with Index.open(db, model) as index:
        stored = index.segments(str(features / "0.mp4.safetensors")).vectors
    np.testing.assert_allclose(stored, model.encode_segments(video).vectors, atol=1e-6)


def test_index_and_search_commands_run_the_named_experts_alone(clips, model, tmp_path, capsys):
    db, clip = str(tmp_path / "library.db"), str(clips / "0.mp4")
    options = ["--db", db, "--weights=sample", "--device=cpu", "--experts=frame,motion"]
    assert main(["index", "build", clip, *options]) == 0
    with Index.open(db, model) as index:
        stored = index.segments(clip).vectors
    some = mdmmt.load("sample", "cpu", experts=["frame", "motion"])
    np.testing.assert_allclose(stored, some.encode_segments(clip).vectors, atol=1e-6)
    (hit,) = search(db, "--video", clip, "--experts=frame", capsys=capsys)
    query = mdmmt.load("sample", "cpu", experts=["frame"]).encode_video(clip)
    assert hit["score"] == pytest.approx(float(query @ stored[0]), abs=1e-5)
    assert main(["search", "a ball", *options]) == 1
    assert "--experts is for --video" in capsys.readouterr().err


def test_search_command_prints_a_table_and_writes_a_page(database, query, tmp_path, capsys):
    out = tmp_path / "found.html"
    command = ["search", query, "--db", database, "--weights=sample", "--html", str(out)]
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr()
    header, *rows = printed.out.splitlines()
    columns = "rank score frame motion sound from (s) to (s) best (s) file"
    assert header.split() == columns.split()
    assert len(rows) == CLIPS and rows[0].endswith("0.mp4") and str(out) in printed.err
    assert out.read_text().count('data-kind="video"') == CLIPS


@pytest.mark.slow
def test_index_and_search_commands_name_the_error(clips, database, model, tmp_path, capsys):
    weights = ["--weights=sample", "--device=cpu"]
    missing = str(tmp_path / "none.mp4")
    assert main(["index", "build", missing, "--db", str(tmp_path / "a.db"), *weights]) == 1
    printed = capsys.readouterr()
    assert missing in printed.err and not list(tmp_path.iterdir())
    broken = tmp_path / "broken.mp4"
    broken.touch()
    assert main(["index", "build", str(broken), "--db", str(tmp_path / "a.db"), *weights]) == 1
    printed = capsys.readouterr()
    assert str(broken) in printed.err and "a.db was not made" in printed.out
    assert list(tmp_path.iterdir()) == [broken]
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


@pytest.mark.slow  # many searches, each of which loads the model
def test_search_command_takes_the_model_that_the_database_names(
    tmp_path, model, clips, monkeypatch, capsys
):
    place = shutil.copytree(SAMPLE_FOLDER, tmp_path / "model")
    db = str(tmp_path / "library.db")
    with Index.open(db, mdmmt.load(place, "cpu")) as index:
        index.add("a.mp4", model.encode_segments(clips / "0.mp4"))
    search_red = ["search", "red", "--db", db, "--device=cpu"]
    assert main(search_red) == 0
    assert main(["index", "build", str(clips / "0.mp4"), "--db", db, "--device=cpu"]) == 0
    assert main([*search_red, "--weights=sample"]) == 0

    tensors = load_file(place / "model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    save_file(tensors | {name: tensors[name] + 1}, place / "model.safetensors")
    capsys.readouterr()
    assert main(search_red) == 1
    assert "holds embeddings of the model model (weights" in capsys.readouterr().err

    shutil.rmtree(place)
    monkeypatch.setenv("MDMMT_HOME", str(tmp_path / "no downloads"))
    assert main(search_red) == 1
    assert f"built with the weights {str(place)!r}, which are not there" in capsys.readouterr().err
    monkeypatch.setenv("MDMMT_WEIGHTS", "sample")
    assert main(search_red) == 0
    assert "the default weights are used if they are the same" in capsys.readouterr().err
    command = ["index", "build", str(clips / "0.mp4"), "--db", db, "--device=cpu"]
    assert main([*command, "--weights=sample"]) == 0  # the place is kept
    monkeypatch.delenv("MDMMT_WEIGHTS")
    assert main(search_red) == 0


@pytest.mark.parametrize("before", ["no database", "an empty one"])
@pytest.mark.parametrize("end", ["damaged", "interrupted"])
def test_index_build_command_removes_an_empty_database_of_its_own(
    before, end, model, tmp_path, monkeypatch, capsys
):
    db = tmp_path / "home" / "library.db"
    db.parent.mkdir()
    monkeypatch.setenv("HOME", str(db.parent))
    if before == "an empty one":
        Index.open(db, model).close()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"no video" * 100)
    if end == "interrupted":

        def interrupt(path):
            raise KeyboardInterrupt

        monkeypatch.setattr("mdmmt.search.build.sha256_of", interrupt)
    command = ["index", "build", str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    status = main([*command, "--db=~/library.db", "--weights=sample", "--device=cpu"])
    printed = capsys.readouterr()
    assert status == (1 if end == "damaged" else 130)
    assert list(db.parent.iterdir()) == ([db] if before == "an empty one" else [])
    if end == "damaged":
        assert "a.mp4" in printed.err and "b.mp4" in printed.err
        state = "holds 0 windows" if before == "an empty one" else "was not made"
        assert f"~/library.db {state}" in printed.out


@pytest.mark.slow
def test_index_build_command_tells_which_videos_are_in_on_a_full_disk(
    clips, model, tmp_path, monkeypatch, capsys
):
    paths = [str(clips / f"{i}.mp4") for i in range(CLIPS)]
    db = str(tmp_path / "library.db")
    put, soft_hard = Index._put, resource.getrlimit(resource.RLIMIT_FSIZE)
    added = []

    def then_fill(index, rows):
        put(index, rows)
        added.append(rows[0]["path"])
        if len(added) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, soft_hard[1]))

    monkeypatch.setattr(Index, "_put", then_fill)
    try:
        command = ["index", "build", *paths, "--db", db, "--weights=sample", "--device=cpu"]
        assert main(command) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft_hard)
    monkeypatch.undo()
    printed = capsys.readouterr()
    for path in paths:
        assert (f"{path}: " in printed.err) == (path not in added)
    assert "3 windows of 3 videos added" in printed.out
    with Index.open(db, model) as index:
        assert [path for path in paths if index.source(path)] == added == paths[:3]
    assert main(command) == 0
    assert f"{CLIPS - 3} videos added, 3 videos skipped" in capsys.readouterr().out


def test_search_command_spells_the_names_when_a_filter_finds_nothing(
    clips, model, tmp_path, capsys
):
    db = str(tmp_path / "library.db")
    with Index.open(db, model) as index:
        segments = model.encode_segments(clips / "0.mp4")
        index.add("a.mp4", segments, metadata={"like": 3, "year": 2020, "tags": ["x"]})
    for filter in ("nothing == 3", "year > 2020"):
        assert search(db, "red", "--filter", filter, capsys=capsys) == []
    # the names go to stderr, which `search` leaves unread
    assert main(["search", "red", "--db", db, "--filter=x == 1", "--weights=sample"]) == 0
    assert 'are metadata["like"], metadata["tags"], year' in capsys.readouterr().err


def test_search_command_reads_the_text_tower_alone(database, clips, query, tmp_path, monkeypatch):
    """Once the hash of the weights is kept, a search by a sentence reads no video tower."""
    folder = shutil.copytree(SAMPLE_FOLDER, tmp_path / "model")
    os.utime(folder / "model.safetensors", (1.6e9, 1.6e9))
    monkeypatch.setattr(facts, "MIN_AGE_S", 0.0)
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
    assert run(query) == [video + text, text]  # hashed, then read to embed the sentence
    assert run(query) == [text]
    assert run("--video", str(clips / "0.mp4")) == [video]


def test_search_and_list_commands_read_a_database_that_is_open(database, model, query, capsys):
    if "://" in database:
        pytest.skip("a server takes many writers at once")
    alone = search(database, query, capsys=capsys)
    with Index.open(database, model):
        assert search(database, query, capsys=capsys) == alone
        assert main(["index", "list", "--db", database]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + CLIPS
        assert main(["index", "delete", "0.mp4", "--db", database]) == 1
        assert "open elsewhere" in capsys.readouterr().err


@pytest.mark.slow  # four processes
def test_a_prompt_and_a_build_have_a_database_open_together(clips, query, tmp_path):
    """In either order; a second build is told of the first."""
    db, extra = str(tmp_path / "library.db"), tmp_path / "extra"
    extra.mkdir()
    shutil.copy(clips / "1.mp4", extra / "new.mp4")
    options = ["--db", db, "--weights=sample", "--device=cpu"]
    assert main(["index", "build", str(clips / "0.mp4"), *options]) == 0

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mdmmt", *arguments, *options]
        return subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True, bufsize=1)

    def ask(prompt: subprocess.Popen[str]) -> int:
        print(query, file=prompt.stdin, flush=True)
        return len(json.loads(prompt.stdout.readline())["hits"])

    with start("search", "--queries=-", "--json") as early:
        assert ask(early) == 1
        with start("index", "build", str(extra)) as build:
            errors = build.communicate(timeout=120)[1]
        assert build.returncode == 0, errors
        with Index.open(db) as index, start("search", "--queries=-", "--json") as late:
            assert ask(late) == 2 and ask(early) == 1
            late.communicate(timeout=60)
            with start("index", "build", str(extra)) as second:
                errors = second.communicate(timeout=120)[1]
            assert second.returncode == 1 and errors.count("\n") <= 2
            assert "open elsewhere" in errors and "wait until that one has ended" in errors
            assert index.count() == 2
        early.communicate(timeout=60)
    assert (early.returncode, late.returncode) == (0, 0)


@pytest.fixture
def stored(databases, tmp_path) -> str:
    """A database of two files on disk, one that is gone, and one with a relative path."""
    db = databases("library")
    with Index.open(db, MODEL) as index:
        for name in ("videos/a.mp4", "videos/b.mp4", "videos/old/c.mp4"):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
            index.add(path, segments(2), metadata={"name": name})
        index.add("d.mp4", segments(1))
    (tmp_path / "videos" / "b.mp4").unlink()
    return db


def paths_in(db: str) -> list[str]:
    with Index.open(db) as index:
        return [file.path for file in index.files()]


def test_index_list_and_info_commands_tell_what_is_in(stored, tmp_path, capsys):
    assert main(["index", "list", "--db", stored]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    folder = str(tmp_path / "videos")
    assert lines == [
        ["windows", "on", "disk", "file"],
        ["2", "yes", f"{folder}/a.mp4"],
        ["2", "no", f"{folder}/b.mp4"],
        ["2", "yes", f"{folder}/old/c.mp4"],
        ["1", "unknown", "d.mp4"],
    ]
    assert main(["index", "list", "--db", stored, "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["on_disk"] for record in records] == [True, False, True, None]
    metadata = {"name": "videos/a.mp4"}
    expected = {"path": f"{folder}/a.mp4", "segments": 2, "metadata": metadata, "on_disk": True}
    assert records[0] == expected
    assert main(["index", "info", "--db", stored]) == 0
    told = dict(re.split("  +", line) for line in capsys.readouterr().out.splitlines())
    assert told == {
        "model": str(MODEL),
        "weights": "unknown",
        "experts": "unknown",
        "files": "4",
        "windows": "7",
        "not on disk": "1",
        "metadata": "name",
    }


def test_index_prune_command_removes_what_is_gone(stored, tmp_path, capsys):
    gone = str(tmp_path / "videos" / "b.mp4")
    assert main(["index", "prune", "--db", stored, "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{gone}\n1 video to be removed\n"
    assert gone in paths_in(stored)
    assert main(["index", "prune", "--db", stored]) == 0
    assert capsys.readouterr().out == f"{gone}\n1 video removed\n"
    assert gone not in paths_in(stored) and len(paths_in(stored)) == 3
    with Index.open(stored) as index:
        assert not index.is_deleted(gone)  # a build adds it when it is back
        index.delete("d.mp4")
    shutil.rmtree(tmp_path / "videos")  # as if their disk were not mounted
    assert main(["index", "prune", "--db", stored]) == 1
    assert "none of 2 files" in capsys.readouterr().err and len(paths_in(stored)) == 2


def test_index_delete_command_takes_folders(stored, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["index", "delete", "videos/old/", "vid", "d.mp4", "--db", stored]) == 1
    printed = capsys.readouterr()
    assert printed.err == "mdmmt: vid: is not in the index\n"
    assert printed.out == "2 videos removed\n"
    assert paths_in(stored) == [str(tmp_path / "videos" / name) for name in ("a.mp4", "b.mp4")]
    assert main(["index", "delete", "videos", "--db", stored]) == 0
    assert paths_in(stored) == []


def test_index_build_command_names_a_path_that_no_index_can_hold(clips, tmp_path, capsys):
    db, folder = str(tmp_path / "library.db"), tmp_path / "films"
    folder.mkdir()
    for name in (b"a.mp4", b"caf\xe9.mp4", b"z.mp4"):
        shutil.copy(clips / "0.mp4", folder / os.fsdecode(name))
    command = ["index", "build", str(folder), "--db", db, "--weights=sample", "--device=cpu"]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "2 windows of 2 videos added" in printed.out
    assert printed.err.count("expected Unicode") == 1 and r"caf\udce9.mp4" in printed.err
    assert paths_in(db) == [str(folder / "a.mp4"), str(folder / "z.mp4")]


def test_index_build_command_leaves_deleted_videos_out(clips, model, tmp_path, capsys):
    db, first = str(tmp_path / "library.db"), str(clips / "0.mp4")
    with Index.open(db, model) as index:
        index.add(first, model.encode_segments(first))
        index.delete(first, keep_out=True)
    command = ["index", "build", first, "--db", db, "--device=cpu"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "1 video was deleted and is left out; --restore adds" in printed.err
    assert "0 windows of 0 videos added, 0 videos skipped" in printed.out
    assert main([*command, "--restore"]) == 0
    assert "1 window of 1 video added" in capsys.readouterr().out
    assert paths_in(db) == [first]

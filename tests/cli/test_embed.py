"""`mdmmt embed`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest

import mdmmt
from mdmmt import experts
from mdmmt.batch import embedding_files
from mdmmt.batch.embed import EmbeddingRow
from mdmmt.cli import main
from mdmmt.errors import WeightsError
from mdmmt.towers.tokenizer import TOKENIZER_FILES

LIGHT = ",".join(experts.LIGHT_EXPERTS)


@pytest.mark.slow
def test_embed_gives_the_same_for_a_feature_file_and_its_video(videos, tmp_path):
    out = tmp_path / "out"
    main(["extract", str(videos), "--out", str(out), "--experts", LIGHT])
    model = mdmmt.load("sample", "cpu")
    for name in ("a.mkv", "deep/a.mkv", "silent.mkv"):
        np.testing.assert_array_equal(
            model.encode_video(out / f"{name}.safetensors"), model.encode_video(videos / name)
        )
    result = tmp_path / "vectors.npy"
    assert main(["embed", str(out), "--weights=sample", f"--out={result}"]) == 0
    folder, lines = np.load(result), (tmp_path / "vectors.names.jsonl").read_text().splitlines()
    names = ["a.mkv", "deep/a.mkv", "silent.mkv"]
    assert [json.loads(line)["path"] for line in lines] == [
        str(out / f"{name}.safetensors") for name in names
    ]
    films = [videos / name for name in names]
    np.testing.assert_allclose(folder, model.encode_video(films), atol=1e-6)
    paths = [str(out / "a.mkv.safetensors"), str(tmp_path / "none.mkv"), str(videos / "silent.mkv")]
    assert main(["embed", *paths, "--weights=sample", f"--out={result}"]) == 1
    rows = np.load(result)
    assert np.isnan(rows[1]).all()
    expected = model.encode_video([videos / "a.mkv", videos / "silent.mkv"])
    np.testing.assert_allclose(rows[[0, 2]], expected, atol=1e-6)


def test_embed_says_at_once_what_would_lose_the_run(videos, tmp_path, capsys, monkeypatch):
    film, missing = str(videos / "a.mkv"), tmp_path / "no folder" / "a.npy"
    assert main(["embed", film, "--weights=sample", f"--out={missing}"]) == 1
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "a.npy").mkdir()
    assert main(["embed", film, "--weights=sample", f"--out={tmp_path / 'a.npy'}"]) == 1
    assert "is a folder, expected the name of a file" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda *_: False)  # what it is to root says nothing
    assert main(["embed", film, "--weights=sample", f"--out={tmp_path / 'b.npy'}"]) == 1
    assert "'b.npy' may not be written into the folder" in capsys.readouterr().err
    monkeypatch.undo()
    texts = ["embed", "--text=a ball", "--weights=sample", f"--out={tmp_path / 'a.jsonl'}"]
    assert main([*texts, "--segments=windows"]) == 1
    assert "not for texts" in capsys.readouterr().err


def test_embed_names_a_file_whose_experts_lack_weights(videos, tmp_path, capsys, monkeypatch):
    """Feature files embed without the experts that a video beside them would need."""
    main(["extract", str(videos / "a.mkv"), f"--out={tmp_path}", "--experts", LIGHT])

    def gone(*_args, **_how):
        raise WeightsError("the weights of an expert are not there")

    monkeypatch.setattr("mdmmt.features.reader.load_experts", gone)
    paths = [str(tmp_path / "a.mkv.safetensors"), str(videos / "silent.mkv")]
    out = tmp_path / "a.npy"
    assert main(["embed", *paths, "--weights=sample", f"--out={out}"]) == 1
    assert "silent.mkv: the weights of an expert" in capsys.readouterr().err
    rows = np.load(out)
    assert np.isfinite(rows[0]).all() and np.isnan(rows[1]).all()


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


@pytest.mark.slow
def test_embed_writes_windows_with_their_seconds(long, model, tmp_path, capsys):
    out = tmp_path / "vectors.jsonl"
    command = ["embed", str(long), str(tmp_path / "none.mkv"), "--weights=sample", f"--out={out}"]
    assert main([*command, "--window=5"]) == 1
    printed = capsys.readouterr()
    assert "4 windows of 1 of 2 videos" in printed.out and "none.mkv" in printed.err
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["path"], r["start_s"], r["end_s"]) for r in records] == [
        (str(long), 5.0 * k, 5.0 * k + 5) for k in range(4)
    ]
    found = model.encode_segments(long, window_s=5)
    np.testing.assert_allclose([r["embedding"] for r in records], found.vectors, atol=1e-6)


def test_embed_prints_json_lines_and_nothing_else_to_stdout(tmp_path, capsys):
    texts = [f"--text={text}" for text in ("a red ball", " ", "silence")]
    assert main(["embed", *texts, "--weights=sample", "--device=cpu", "--out=-"]) == 1
    printed = capsys.readouterr()
    records = [json.loads(line) for line in printed.out.splitlines()]
    assert [record["text"] for record in records] == ["a red ball", "silence"]
    expected = mdmmt.load("sample", "cpu").encode_text(["a red ball", "silence"])
    np.testing.assert_allclose([r["embedding"] for r in records], expected, atol=1e-6)
    assert "2 of 3 embedded" in printed.err and "expected some words" in printed.err


@pytest.mark.parametrize("before", [0, 70])  # the texts go through the model in batches of 64
def test_embed_names_a_text_by_its_words(before, tmp_path, capsys):
    long = "red " * 60
    options = [f"--text=a red ball {n}" for n in range(before)]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        options += [f"--text={long}", "--out=-", "--weights=sample", "--device=cpu"]
        assert main(["embed", *options]) == 0
    shown = capsys.readouterr().err
    assert re.search(r"the text 'red red (red ?)+…' is longer than this model takes", shown)
    assert "text 0" not in shown and "text 6" not in shown


def test_embed_reads_texts_of_a_file_and_of_stdin(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.csv").write_text("id,said\n1,a red ball\n2,\n3,silence\n")
    (tmp_path / "a.txt").write_text("a red ball\n\nsilence\n")
    options, out = ["--weights=sample", "--device=cpu"], tmp_path / "a.npy"
    expected = mdmmt.load("sample", "cpu").encode_text(["a red ball", "silence"])
    monkeypatch.setattr(sys, "stdin", (tmp_path / "a.txt").open())
    for source, place in (
        ([f"--texts={tmp_path / 'a.csv'}", "--column=said"], f"{tmp_path / 'a.csv'}, line 3"),
        ([f"--texts={tmp_path / 'a.txt'}"], f"{tmp_path / 'a.txt'}, line 2"),
        (["--texts=-"], "stdin, line 2"),
    ):
        assert main(["embed", *source, *options, f"--out={out}"]) == 1
        rows = np.load(out)
        np.testing.assert_allclose(rows[[0, 2]], expected, atol=1e-6)
        assert np.isnan(rows[1]).all()
        assert f"mdmmt: {place}: text is '', expected some words\n" in capsys.readouterr().err
    assert main(["embed", "--text=a ball", "--column=id", *options, "--out=-"]) == 1
    assert "--column is for --texts" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("end", ["end of stdin", "Ctrl-C"])
def test_embed_answers_lines_of_stdin_as_they_come(end: str) -> None:
    command = [sys.executable, "-m", "mdmmt", "embed", "--texts=-", "--weights=sample", "--out=-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        killer = threading.Timer(60, process.kill)  # of a process that waits for the end of stdin
        killer.start()
        for text in ("a red ball", "silence"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        if end == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            process.stdin.write(b"\xff\n\na blue star")
            process.stdin.close()
            assert json.loads(process.stdout.readline())["text"] == "a blue star"
        errors = process.stderr.read().decode()
        assert process.wait() == (130 if end == "Ctrl-C" else 1)
        killer.cancel()
    if end == "Ctrl-C":
        assert "interrupted" in errors and "2 of 2 embedded" in errors
    else:
        assert (
            "mdmmt: stdin, line 3: text is '\\udcff', which is not" in errors
            and "3 of 5 embedded" in errors
        )
        assert "mdmmt: stdin, line 4: text is ''" in errors


def test_embed_writes_in_the_format_of_the_suffix(tmp_path):
    command = ["embed", "--text=a red ball", "--weights=sample", "--device=cpu"]
    for suffix in (".npz", ".csv"):
        assert main([*command, f"--out={tmp_path / 'a'}{suffix}"]) == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["text"].tolist() == ["a red ball"]
    assert (tmp_path / "a.csv").read_text().splitlines()[1].startswith("a red ball,")


@pytest.mark.parametrize("times", [1, 2])
def test_embed_still_writes_when_it_is_interrupted_meanwhile(times, tmp_path, monkeypatch, capsys):
    save = np.save

    def interrupted(*arguments):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        save(*arguments)

    monkeypatch.setattr(np, "save", interrupted)
    out = tmp_path / "a.npy"
    assert main(["embed", "--text=a ball", "--weights=sample", f"--out={out}"]) == 130
    assert "is still written" in capsys.readouterr().err
    if times == 1:
        assert np.isfinite(np.load(out)).all() and (tmp_path / "a.names.jsonl").exists()
    else:  # a second Ctrl-C does not wait
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_embed_writes_whole_rows_when_it_is_interrupted(suffix, tmp_path, monkeypatch, capsys):
    """Ctrl-C comes while the second of four rows is written."""
    describe, calls = embedding_files._describe, []

    def interrupted(kind, row):
        calls.append(row.name)
        if calls.count("text 1") == 1:
            signal.raise_signal(signal.SIGINT)
            calls.append("text 1")
        return describe(kind, row)

    monkeypatch.setattr(embedding_files, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(embedding_files, "_describe", interrupted)
    out = tmp_path / f"a{suffix}"
    texts = [f"--text=text {i}" for i in range(4)]
    assert main(["embed", *texts, "--weights=sample", f"--out={out}"]) == 130
    printed = capsys.readouterr()
    assert "2 of 4 embedded" in printed.out and "interrupted" in printed.err
    lines = out.read_text().splitlines()
    if suffix == ".csv":
        assert [line.split(",")[0] for line in lines] == ["text", "text 0", "text 1"]
        assert {len(line.split(",")) for line in lines} == {385}
    else:
        assert [json.loads(line)["text"] for line in lines] == ["text 0", "text 1"]


def test_embed_keeps_no_vectors_in_memory(tmp_path, monkeypatch):
    alive, counts = [], []

    def rows(model, texts):
        for text in texts:
            vector = np.ones(model.dim, np.float32)
            alive.append(weakref.ref(vector))
            counts.append(sum(one() is not None for one in alive))
            yield EmbeddingRow(text, vector)

    monkeypatch.setattr("mdmmt.batch.embed.embed_texts", rows)
    monkeypatch.setattr(embedding_files, "ROWS_AT_ONCE", 2)
    texts = [f"--text=text {i}" for i in range(9)]
    for out in (tmp_path / "a.jsonl", tmp_path / "a.parquet", "-"):
        assert main(["embed", *texts, "--weights=sample", f"--out={out}"]) == 0
        assert max(counts) <= 4, out  # two that wait, and those in hand
        alive.clear()
        counts.clear()


def test_embed_runs_the_named_experts_alone(long, tmp_path, capsys):
    command = ["embed", str(long), "--weights=sample", f"--out={tmp_path / 'a.jsonl'}"]
    assert main([*command, "--experts=motion, sound", "--window=10"]) == 0
    found = mdmmt.load("sample", "cpu", experts=["motion", "sound"]).encode_segments(
        long, window_s=10
    )
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([r["embedding"] for r in records], found.vectors, atol=1e-6)
    assert main([*command, "--experts=CLIP"]) == 1
    assert "expected some of the model's: frame, motion, sound" in capsys.readouterr().err
    assert main(["embed", "--text=a ball", *command[2:], "--experts=frame"]) == 1
    assert "--experts is for videos, not for texts" in capsys.readouterr().err


def test_embed_says_which_part_of_a_long_file_is_embedded(long, tmp_path, capsys):
    assert main(["embed", str(long), "--weights=sample", f"--out={tmp_path / 'a.npy'}"]) == 0
    assert "it embeds the seconds 0 to 7.5 of frame, the seconds" in capsys.readouterr().err


ROOT = Path(__file__).parents[2]


def test_embed_texts_as_npy(tmp_path: Path) -> None:
    out = tmp_path / "texts.npy"
    texts = ["a red ball", "there is silence"]
    arguments = [part for text in texts for part in ("--text", text)]
    assert main(["embed", *arguments, "--weights", "sample", "--device=cpu", f"--out={out}"]) == 0
    expected = mdmmt.load("sample", "cpu").encode_text(texts)
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)
    assert np.load(out).dtype == np.float32


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
        (
            ["--text", "x", "--weights", "sample", "--out", "OUT.txt"],
            "ends in .npy, .npz, .jsonl, .csv, .parquet, or -",
        ),
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


def test_tokenizer_option_names_a_folder(tiny_folder, tiny_vocabulary, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folder, bare)
    for name in TOKENIZER_FILES:
        (bare / name).unlink(missing_ok=True)
    out = tmp_path / "a.npy"
    command = ["embed", "--text=a dog", f"--weights={bare}", f"--out={out}"]
    assert main(command) == 1
    assert "--tokenizer FOLDER" in capsys.readouterr().err
    assert main([*command, f"--tokenizer={tiny_vocabulary}"]) == 0
    wanted = mdmmt.load(tiny_folder).encode_text(["a dog"])
    np.testing.assert_allclose(np.load(out), wanted, atol=1e-6)

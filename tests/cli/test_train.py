"""`mdmmt train` from options and from a recipe."""

from __future__ import annotations

import json

import pytest
from caption_pairs import write_pairs

from mdmmt.cli import main


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path, 8)


@pytest.mark.slow
def test_a_model_is_trained_from_options(pairs, tiny_folder, tmp_path, capsys):
    arguments = ["--data", str(pairs.captions), "--features", str(pairs.features)]
    arguments += ["--val", str(pairs.captions), "--init", str(tiny_folder)]
    arguments += ["--out", str(tmp_path / "run"), "--device", "cpu"]
    arguments += ["--set", "epochs=1", "--set", "batch_size=4", "--set", "learning_rate=1e-3"]
    assert main(["train", *arguments]) == 0
    assert capsys.readouterr().out == f"the best epoch is 1 of 1; its model is in {tmp_path}/run\n"
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]
    assert (settings["epochs"], settings["batch_size"], settings["learning_rate"]) == (1, 4, 1e-3)
    assert main(["info", str(tmp_path / "run")]) == 0
    assert "trained by mdmmt" in capsys.readouterr().out


def test_a_recipe_is_read_and_options_replace_its_values(pairs, tiny_folder, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"out: {tmp_path}/run\ninit: {tiny_folder}\nepochs: 5\nbatch_size: 4\n"
        f"datasets: [{{data: {pairs.captions}, features: {pairs.features}}}]\n"
    )
    arguments = [str(recipe), "--out", f"{tmp_path}/other", "--set", "epochs=1"]
    assert main(["train", *arguments]) == 0
    assert "1 of 1" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_duplicates_are_left_out(pairs, tiny_folder, tmp_path, capsys):
    (tmp_path / "found.lst").write_text("a.mp4\t0\t5\tv2.mp4\t0\t5\n")
    arguments = ["--data", str(pairs.captions), "--features", str(pairs.features)]
    arguments += ["--init", str(tiny_folder), "--out", str(tmp_path / "run")]
    arguments += ["--set", "epochs=1", "--set", "batch_size=4"]
    assert main(["train", *arguments, "--exclude", str(tmp_path / "found.lst")]) == 0
    assert "1 caption was left out as duplicates of a test set" in capsys.readouterr().err
    assert main(["train", *arguments, "--exclude", str(tmp_path / "none.lst")]) == 1
    assert "none.lst' cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data, --features, --out: missing; expected --data, --features and --out, or"),
        (["--data", "a", "--features", "b"], "--out: missing; expected"),
        (["--set", "epochs"], "--set is 'epochs', expected NAME=VALUE"),
        (["--out", "run", "--data", "a", "--features", "b", "--set", "epoch=1"], "unknown epoch;"),
        (["recipe.yaml", "--data", "a"], "--data and a recipe are given"),
        (["none.yaml"], "none.yaml' cannot be read"),
    ],
)
def test_wrong_options_are_told(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 1
    assert message in capsys.readouterr().err

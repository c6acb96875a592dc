"""Where weights are found."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

import mdmmt
from mdmmt import WeightsError
from mdmmt.storage.paths import SAMPLE, SAMPLE_FOLDER, WEIGHTS_VARIABLE
from mdmmt.weights import locate, released
from mdmmt.weights.locate import default_is_there, find_weights, is_there, weight_path_of


def test_find_weights_takes_the_one_file_in_a_folder(tiny, tmp_path, assert_loads, txt_bert):
    torch.save(tiny.released_layout, tmp_path / "any name.pth")
    assert_loads(tmp_path)
    shutil.copytree(txt_bert, tmp_path, dirs_exist_ok=True)  # BERT's own config.json beside it
    assert_loads(tmp_path)
    shutil.copy(tmp_path / "any name.pth", tmp_path / "second.pt")
    with pytest.raises(WeightsError, match=r"exactly one .*: any name\.pth, second\.pt"):
        mdmmt.load(tmp_path, "cpu")


def test_find_weights_looks_beside_the_operator_then_in_the_variable(
    tiny, tiny_folder, tmp_path, monkeypatch, assert_loads
):
    for module in (locate, released):
        monkeypatch.setattr(module, "WEIGHTS_FOLDER", tmp_path / "weights")
    with pytest.raises(WeightsError) as caught:
        mdmmt.load(None, "cpu")
    for way_out in ("weight_path", "'sample'", WEIGHTS_VARIABLE, str(tmp_path / "weights")):
        assert way_out in str(caught.value)
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tiny_folder))
    assert mdmmt.load(None, "cpu").path == tiny_folder
    (tmp_path / "weights").mkdir()
    torch.save(tiny.released_layout, tmp_path / "weights" / "mdmmt_3mod.pth")
    assert mdmmt.load(None, "cpu").path == tmp_path / "weights" / "mdmmt_3mod.pth"
    assert_loads(None)


def test_weight_path_of_finds_the_same_weights_from_any_folder(tiny_folder, tmp_path, monkeypatch):
    assert weight_path_of(find_weights("sample")) == "sample"
    shutil.copytree(tiny_folder, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    place = weight_path_of(find_weights("model"))
    assert place == str(tmp_path / "model")
    assert is_there("sample") and is_there(place) and is_there("owner/name@main")
    shutil.rmtree(tmp_path / "model")
    assert not is_there(place)


def test_default_is_there_downloads_nothing(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MDMMT_HOME", str(tmp_path))
    assert not default_is_there()
    shutil.copytree(tiny_folder, tmp_path / "mdmmt_3mod")
    assert default_is_there()
    shutil.rmtree(tmp_path / "mdmmt_3mod")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tiny_folder))
    assert default_is_there()


def test_find_weights_knows_the_sample():
    assert find_weights(SAMPLE) == SAMPLE_FOLDER
    model = mdmmt.load(SAMPLE, "cpu")
    names = tuple(expert.name for expert in model.config.video.experts)
    assert names == model.config.text.experts == ("frame", "motion", "sound")
    vector = model.encode_text("a red ball")
    assert vector.shape == (model.config.text.embedding_dim,)
    assert np.isfinite(vector).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere.pth", "'nowhere.pth', which does not exist; expected .* folder, 'sample', or"),
        (3, "weight_path is a int"),
        (__file__, r"expected one of \.safetensors, \.pth"),
    ],
)
def test_find_weights_refuses_other_arguments(given, words):
    with pytest.raises(WeightsError, match=words):
        mdmmt.load(given, "cpu")


def test_find_weights_expands_the_home_folder(tiny_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_folder.parent))
    assert mdmmt.load(f"~/{tiny_folder.name}", "cpu").path == tiny_folder


def test_find_weights_refuses_a_model_folder_without_weights(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"not a model folder .*found: none"):
        mdmmt.load(folder, "cpu")

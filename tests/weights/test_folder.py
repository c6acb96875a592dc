"""Model folders as they are written."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import replace

import numpy as np
import pytest

import mdmmt
from mdmmt.weights import folder as folder_module
from mdmmt.weights import locate
from mdmmt.weights.convert import convert
from mdmmt.weights.folder import save_model

TEXTS = ["Hello world", "a man is playing with the red ball and the dog sings"]


def test_save_model_keeps_every_bit(tiny_model, tmp_path, expected, tiny_video):
    tower, tokenizer = tiny_model.read_text_tower(), tiny_model.tokenizer
    folder = tmp_path / "new" / "folder"
    save_model(folder, tiny_model.config, tiny_model.read_video_tower(), tower, tokenizer.tokenizer)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(folder))
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    model = mdmmt.load(folder, "cpu")
    assert model.config == tiny_model.config
    np.testing.assert_array_equal(model.encode_text(TEXTS), expected[0])
    np.testing.assert_array_equal(model.encode_video(tiny_video()), expected[1])
    save_model(folder, model.config, model.read_video_tower(), *text_parts(model))  # onto itself
    np.testing.assert_array_equal(mdmmt.load(folder, "cpu").encode_text(TEXTS), expected[0])


def text_parts(model):
    return model.read_text_tower(), model.tokenizer.tokenizer


@pytest.mark.parametrize("breaks", ["save_file", "json.dumps"])
def test_save_model_that_fails_leaves_the_old_folder(
    breaks, tiny, tiny_folder, tmp_path, monkeypatch, expected
):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def disk_full(*_args, **_kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(f"mdmmt.weights.folder.{breaks}", disk_full)
    other = replace(tiny.config, text=replace(tiny.config.text, max_length=4))
    with pytest.raises(OSError, match="no space"):
        save_model(folder, other, tiny.ours_video, tiny.ours_text, tiny.tokenizer)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    np.testing.assert_array_equal(mdmmt.load(folder, "cpu").encode_text(TEXTS), expected[0])


def test_write_model_folder_writes_every_file(source, tmp_path):
    path = source("released")
    out = convert(path, tmp_path / "new" / "out")
    assert {file.name for file in out.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    }
    assert not list((tmp_path / "new").glob(".*"))
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask()
    for file in out.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask(), file


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_write_model_folder_writes_a_card(source, tmp_path):
    path = source("released")
    out = convert(path, tmp_path / "out")
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: mdmmt\n")
    for fact in (
        "weights.pth",
        hashlib.sha256(path.read_bytes()).hexdigest(),
        "wide (11 wide), narrow (3 wide), middle (7 wide)",
        "72 numbers",
        "2 layers of 24",
        "2 layers of 32",
        f"mdmmt {mdmmt.__version__}",
        "The authors of MDMMT state no licence",
    ):
        assert fact in card
    assert "{" not in card


def test_write_model_folder_writes_no_path_of_this_machine(source, tmp_path):
    out = convert(source("released"), tmp_path / "out")
    for file in out.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file


def test_write_model_folder_states_the_licence_of_the_sample(tiny_folder, tmp_path, monkeypatch):
    for module in (locate, folder_module):
        monkeypatch.setattr(module, "SAMPLE_FOLDER", tiny_folder)
    card = (convert("sample", tmp_path / "out") / "README.md").read_text()
    assert "Apache-2.0" in card and "state no licence" not in card

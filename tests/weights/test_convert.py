"""`mdmmt convert`: weights of any layout as a model folder."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import mdmmt
from mdmmt.cli import main
from mdmmt.errors import InputError, WeightsError
from mdmmt.storage import folders
from mdmmt.towers.tokenizer import BERT_BASE_CASED_ID
from mdmmt.weights import folder as folder_module
from mdmmt.weights.convert import convert
from mdmmt.weights.info import info
from mdmmt.weights.locate import find_weights

TEXTS = ["Hello world", "a man is playing", "the red ball"]
LAYOUTS = ["released", "lineage", "safetensors", "folder"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_convert_keeps_the_vectors_bit_for_bit(source, layout, tmp_path, tiny_video):
    path = source(layout)
    before, after = mdmmt.load(path, "cpu"), mdmmt.load(convert(path, tmp_path / "out"), "cpu")
    assert after.path == tmp_path / "out"
    for texts in (TEXTS, TEXTS[0]):
        assert np.array_equal(after.encode_text(texts), before.encode_text(texts))
    video = tiny_video()
    assert np.array_equal(after.encode_video(video), before.encode_video(video))


def test_convert_makes_half_precision_single(tiny, source, tmp_path):
    path = source("safetensors")
    half = {name: t.half() if t.is_floating_point() else t for name, t in tiny.both_towers.items()}
    save_file(half, path)
    out = convert(path, tmp_path / "out")
    before, after = mdmmt.load(path, "cpu"), mdmmt.load(out, "cpu")
    assert np.array_equal(after.encode_text(TEXTS), before.encode_text(TEXTS))
    assert (info(path).dtypes, info(out).dtypes) == (("float16",), ("float32",))


def test_convert_replaces_a_model_folder(source, tmp_path, tiny_model):
    out = convert(source("folder"), tmp_path / "out")
    weights_file = out / "model.safetensors"
    with safe_open(weights_file, "pt") as tensors:
        zeros = {name: torch.zeros_like(tensors.get_tensor(name)) for name in tensors.keys()}  # noqa: SIM118
    save_file(zeros, weights_file)
    convert(source("released"), out)
    assert np.array_equal(mdmmt.load(out, "cpu").encode_text(TEXTS), tiny_model.encode_text(TEXTS))
    convert(out, out)
    assert np.array_equal(mdmmt.load(out, "cpu").encode_text(TEXTS), tiny_model.encode_text(TEXTS))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("there", ["file", "notes", "model and notes", "config", "link", ".git"])
def test_convert_refuses_other_folders_and_files(source, tmp_path, tiny_folder, there):
    out = tmp_path / "out"
    if there == "file":
        out.write_text("mine")
    elif there == "link":
        out.symlink_to(tiny_folder)
    else:
        if there == "model and notes":
            convert(source("folder"), out)
        out.mkdir(exist_ok=True)
        name = {"config": "config.json", ".git": ".git"}.get(there, "notes.txt")
        (out / name).write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="exists and"):
        convert(source("folder"), out)
    assert snapshot(tmp_path) == before


def test_convert_fills_an_empty_folder(source, tmp_path):
    (tmp_path / "out").mkdir()
    assert find_weights(convert(source("folder"), tmp_path / "out")) == tmp_path / "out"


@pytest.mark.parametrize("what", ["save_file", "rename", "_exchange_at_once"])
def test_convert_leaves_the_old_folder_on_failure(source, tmp_path, monkeypatch, what):
    """A full disk, or a folder that cannot be put in place, leaves the old one as it was."""
    path, out = source("released"), tmp_path / "out"
    convert(source("folder"), out)
    before = snapshot(tmp_path)
    rename = os.rename

    def fail(*arguments, **__):
        if what == "rename" and "built" not in str(arguments[0]):
            return rename(*arguments)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folders, "_exchange_at_once", lambda *_: False)
        module = {"save_file": folder_module, "rename": os, "_exchange_at_once": folders}[what]
        patch.setattr(module, what, fail)
        with pytest.raises(OSError, match="No space left"):
            convert(path, out)
    assert snapshot(tmp_path) == before


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "source" not in path.parts
    }


def test_convert_refuses_weights_that_do_not_fit(source, tmp_path, tiny):
    path = source("released")
    torch.save({"vid_state_dict": tiny.released_layout["vid_state_dict"]}, path)
    with pytest.raises(WeightsError, match="holds nothing of this tower"):
        convert(path, tmp_path / "out")
    save_file({"vid_bert.x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=f"no tokenizer.*{BERT_BASE_CASED_ID}"):
        convert(tmp_path / "x.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_convert_needs_a_tokenizer(source, tmp_path):
    path = source("released").rename(tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match=f"{BERT_BASE_CASED_ID} .*tokenizer.json or vocab.txt"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_convert_refuses_the_tokenizer_of_another_model(source, tmp_path):
    path = source("released")
    with (path.parent / "vocab.txt").open("a") as vocabulary:
        vocabulary.write("one more\n")
    with pytest.raises(WeightsError, match="401 tokens and the text tower 400"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_commands_run_no_code_of_a_pickle(tmp_path, capsys):
    torch.save({"vid_state_dict": Harm(tmp_path / "harm")}, tmp_path / "harm.pth")
    assert main(["info", str(tmp_path / "harm.pth")]) == 1
    assert main(["convert", str(tmp_path / "harm.pth"), "--out", str(tmp_path / "out")]) == 1
    assert "mkdir" in capsys.readouterr().err  # the object is named, and was not made
    assert not (tmp_path / "harm").exists() and not (tmp_path / "out").exists()


def test_load_runs_no_code_of_a_tokenizer(source, tmp_path):
    out = convert(source("folder"), tmp_path / "out")
    settings = json.loads((out / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    (out / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'harm')!r})\n")
    with suppress(WeightsError):
        mdmmt.load(out, "cpu").encode_text("Hello")
    assert not (tmp_path / "harm").exists()


def test_convert_command_writes_the_folder(source, tmp_path, capsys):
    path = source("released")
    assert main(["convert", str(path), "--out", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    assert main(["info", str(tmp_path / "out")]) == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["experts"] == "wide (11 wide), narrow (3 wide), middle (7 wide)"
    assert main(["info", str(tmp_path / "nothing")]) == 1
    assert main(["convert", str(path), "--out", str(path)]) == 1
    assert "exists and is not a folder" in capsys.readouterr().err

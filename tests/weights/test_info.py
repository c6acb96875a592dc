"""Facts about weights, for programs and for `mdmmt info`."""

from __future__ import annotations

import hashlib

import pytest
import torch

from mdmmt.cli import main
from mdmmt.weights.convert import convert
from mdmmt.weights.info import TowerInfo, info


@pytest.mark.parametrize(
    ("layout", "nested"),
    [
        ("released", ("vid_state_dict", "txt_state_dict")),
        ("lineage", ("state_dict",)),
        ("safetensors", ()),
        ("folder", ()),
    ],
)
def test_info_collects_the_facts(source, layout, nested, tiny):
    path = source(layout)
    facts = info(path)
    file = path / "model.safetensors" if path.is_dir() else path
    assert (facts.path, facts.file, facts.nested) == (path, file, nested)
    assert facts.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert facts.size_bytes == file.stat().st_size
    assert list(facts.experts.items()) == [("wide", 11), ("narrow", 3), ("middle", 7)]
    for tower_info, tower in (
        (facts.video_tower, tiny.ours_video),
        (facts.text_tower, tiny.ours_text),
    ):
        state = tower.state_dict()
        assert tower_info == TowerInfo(sum(t.numel() for t in state.values()), len(state))
    assert facts.misfit is None and facts.has_tokenizer
    assert facts.dtypes == ("float32",)


def test_info_names_the_source_of_converted_weights(source, tmp_path):
    path = source("released")
    facts = info(convert(path, tmp_path / "out"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (facts.origin, facts.origin_sha256) == ("weights.pth", sha256)
    assert (info(path).origin, info(path).origin_sha256) == (None, None)


def test_info_of_one_tower_has_no_other(source, tiny, tmp_path):
    path = source("released").rename(tmp_path / "video.pth")
    torch.save(dict(tiny.released_layout, txt_state_dict={}), path)
    facts = info(path)
    assert facts.text_tower is None and facts.misfit is None
    assert not facts.has_tokenizer


def test_info_tells_why_weights_do_not_fit(source, monkeypatch):
    path = source("released")
    monkeypatch.undo()  # RELEASED is the full-size configuration again
    assert "other shapes" in info(path).misfit


@pytest.mark.parametrize("layout", ["released", "lineage"])
def test_info_opens_a_torch_file_once(source, layout, monkeypatch):
    path, opened, load = source(layout), [], torch.load
    monkeypatch.setattr(
        torch, "load", lambda *args, **how: opened.append(args) or load(*args, **how)
    )
    assert info(path).misfit is None and len(opened) == 1


def printed(path, capsys) -> dict[str, str]:
    assert main(["info", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[:12].rstrip(): line[13:] for line in lines}


LAYOUTS = {
    "released": "torch file, vid_state_dict and txt_state_dict",
    "lineage": "torch file, state_dict",
    "safetensors": "safetensors",
    "folder": "model folder (config.json, model.safetensors)",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_info_command_prints_the_facts(source, layout, capsys, tiny):
    path = source(layout)
    facts, lines = info(path), printed(path, capsys)
    numbers, tensors = facts.text_tower.numbers, facts.text_tower.tensors
    pickled = layout in ("released", "lineage")
    assert lines == {
        "path": str(path),
        "layout": LAYOUTS[layout],
        "size": f"{facts.size_bytes:,} bytes",
        "sha256": facts.sha256,
        "origin": "not noted in such a file" if pickled else "not noted",
        "dtype": "float32",
        "experts": "wide (11 wide), narrow (3 wide), middle (7 wide)",
        "video tower": f"{facts.video_tower.numbers:,} numbers in "
        f"{facts.video_tower.tensors} tensors",
        "text tower": f"{numbers:,} numbers in {tensors} tensors",
        "tokenizer": "there",
        "fits": "yes" if path.is_dir() else "yes, the sizes are those of the released model",
    }


def test_info_command_prints_what_is_missing(source, tiny, tmp_path, capsys, monkeypatch):
    out = convert(source("released"), tmp_path / "out")
    facts = info(out)
    assert printed(out, capsys)["origin"] == f"weights.pth, sha256 {facts.origin_sha256}"
    torch.save({"txt_state_dict": tiny.theirs_text.state_dict()}, tmp_path / "text.pth")
    lines = printed(tmp_path / "text.pth", capsys)
    assert lines["experts"] == "not known without the video tower"
    assert lines["video tower"] == "not in this file" and lines["tokenizer"] == "none here"
    monkeypatch.undo()
    assert printed(tmp_path / "text.pth", capsys)["fits"].startswith("no: ")
    assert main(["info", str(tmp_path / "nothing")]) == 1

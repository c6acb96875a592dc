"""Layouts and spellings of MDMMT's weights, and model folders."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import random_batch, run_video
from safetensors.torch import save_file
from tiny import TINY, VIDEO_PARAMS

import mdmmt
from mdmmt import WeightsError
from mdmmt.config import from_dict

TEXTS = ["Hello world", "a man is playing with the red ball and the dog sings"]


def refuses_video(path, words):
    with pytest.raises(WeightsError, match=words) as caught:
        _ = mdmmt.load(path, "cpu", VIDEO_PARAMS).read_video_tower()
    return str(caught.value)


def refuses_text(path, words, params):
    with pytest.raises(WeightsError, match=words):
        _ = mdmmt.load(path, "cpu", mmttxt_params=params).read_text_tower()


def old_spelling(name: str) -> str:
    name = name.replace("text_gu.", "text_GU.")
    if "LayerNorm" in name:
        name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
    return name


LAYOUTS = {
    "released": lambda pair: pair.released_layout,
    "released, with more beside": lambda pair: {**pair.released_layout, "epoch": 3, "args": None},
    "MMT": lambda pair: {
        "epoch": 3,
        "state_dict": {old_spelling(k): v for k, v in pair.both_towers.items()},
    },
    "DataParallel": lambda pair: {
        k: {"module." + name: tensor for name, tensor in state.items()}
        for k, state in pair.released_layout.items()
    },
    "DataParallel and MMT": lambda pair: {
        "state_dict": {"module." + old_spelling(k): v for k, v in pair.both_towers.items()}
    },
    "position_ids": lambda pair: {
        "state_dict": {
            **pair.both_towers,
            "txt_bert.embeddings.position_ids": torch.arange(64)[None],
        }
    },
    "bare": lambda pair: pair.both_towers,
    "half of it in another precision": lambda pair: {
        k: v.double() if "weight" in k else v for k, v in pair.both_towers.items()
    },
    "parameters": lambda pair: {
        k: torch.nn.Parameter(v) if v.is_floating_point() else v
        for k, v in pair.both_towers.items()
    },
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_read_tower_knows_layouts_and_old_spellings(layout, tiny, tmp_path, assert_loads):
    torch.save(layout(tiny), tmp_path / "model.pth")
    assert_loads(tmp_path / "model.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_read_tower_takes_every_suffix_of_torch_files(suffix, tiny, tmp_path, assert_loads):
    torch.save(tiny.released_layout, tmp_path / f"model{suffix}")
    assert_loads(str(tmp_path / f"model{suffix}"))


def test_read_tower_takes_torch_files_older_than_the_zip_format(tiny, tmp_path, assert_loads):
    path = tmp_path / "old.pth"
    torch.save(tiny.released_layout, path, _use_new_zipfile_serialization=False)
    assert_loads(path)


def test_read_tower_takes_safetensors(tiny, tmp_path, assert_loads):
    path = tmp_path / "tiny.safetensors"
    save_file(tiny.both_towers, path)
    assert_loads(path)
    old = {"module." + old_spelling(name): tensor for name, tensor in tiny.both_towers.items()}
    save_file(old, path)
    assert_loads(path)


def test_load_strict_makes_weights_float32(tiny, tmp_path, tiny_video):
    path = tmp_path / "half.safetensors"
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in tiny.both_towers.items()}, path
    )
    tower = mdmmt.load(path, "cpu", VIDEO_PARAMS).read_video_tower()
    assert {p.dtype for p in tower.parameters()} == {torch.float32}


def test_load_strict_lists_unknown_missing_and_misshaped_keys(tiny, tmp_path, text_params):
    path = tmp_path / "wrong.pth"
    state = tiny.both_towers
    state["vid_bert.surplus"] = torch.zeros(1)
    state["text_gu.extra.fc.weight"] = torch.zeros(1)
    del state["vid_bert.pooler.dense.bias"], state["moe_fc_txt.wide.bias"]
    state["video_dim_reduce.narrow.fc.weight"] = torch.zeros(24, 4)
    torch.save({"state_dict": state}, path)
    message = refuses_video(path, "wrong.pth does not fit the model")
    assert "unknown keys: vid_bert.surplus" in message
    assert "missing keys: vid_bert.pooler.dense.bias" in message
    assert "video_dim_reduce.narrow.fc.weight (24, 4) instead of (24, 3)" in message
    refuses_text(
        path,
        r"unknown keys: text_gu\.extra\.fc\.weight; missing keys: moe_fc_txt\.wide\.bias",
        text_params,
    )


def test_read_tower_refuses_keys_of_neither_tower_and_double_keys(tiny, tmp_path):
    path = tmp_path / "wrong.pth"
    state = tiny.both_towers
    torch.save({**state, "vid_head.weight": torch.zeros(1)}, path)
    refuses_video(path, r"keys of neither tower: vid_head\.weight")
    torch.save({**state, "module.vid_bert.pooler.dense.bias": torch.zeros(24)}, path)
    refuses_video(path, r"holds vid_bert\.pooler\.dense\.bias twice")
    save_file({**state, "vid_head.weight": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    refuses_video(tmp_path / "wrong.safetensors", r"neither tower: vid_head\.weight")
    torch.save({**state, "vid_bert.note": "hello"}, path)
    refuses_video(path, r"vid_bert\.note is a str, expected a tensor")
    torch.save([1, 2], path)
    refuses_video(path, "holds a list, expected a dict")


def test_read_tower_cuts_a_long_list_of_keys(tmp_path):
    path = tmp_path / "released.pth"
    torch.save({f"stranger.{i}": torch.zeros(1) for i in range(20)}, path)
    refuses_video(path, r"stranger\.0, .*stranger\.7 and 12 more$")


def test_read_tower_needs_nothing_of_the_other_tower(
    tiny, tmp_path, monkeypatch, expected, text_params, tiny_video
):
    video_file, text_file = tmp_path / "video.pth", tmp_path / "text.pth"
    layout = tiny.released_layout
    torch.save({"vid_state_dict": layout["vid_state_dict"]}, video_file)
    torch.save({"txt_state_dict": layout["txt_state_dict"]}, text_file)
    video = mdmmt.MDMMT("video", video_file, "cpu", VIDEO_PARAMS)
    with monkeypatch.context() as patch:
        patch.setattr("mdmmt.model.load_tokenizer", None)  # a call would raise
        np.testing.assert_array_equal(video(tiny_video()), expected[1])
    text = mdmmt.MDMMT("text", text_file, "cpu", None, text_params)
    np.testing.assert_array_equal(text(TEXTS), expected[0])
    assert text.model._video_encoder is None
    assert video.model._text_encoder is None
    refuses_video(text_file, "holds nothing of this tower")
    refuses_text(video_file, "holds nothing of this tower", text_params)


@pytest.mark.slow
def test_read_video_tower_does_not_import_transformers(tiny, tmp_path):
    """Nor does it look for a tokenizer, whose absence would be an error."""
    torch.save({"vid_state_dict": tiny.theirs_video.state_dict()}, tmp_path / "video.pth")
    code = (
        "import sys, mdmmt\n"
        f"mdmmt.load({str(tmp_path / 'video.pth')!r}, 'cpu', {VIDEO_PARAMS!r}).read_video_tower()\n"
        "assert 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "does not describe a model"),
        ("[]", "config.json is a list"),
        ('{"model_type": "bert"}', "'bert', not 'mdmmt'"),
        ('{"model_type": "mdmmt"}', "'video'"),
        ('{"model_type": "mdmmt", "surplus": 1}', "unknown surplus; known: model_type"),
    ],
)
def test_read_config_refuses_a_wrong_configuration(content, words, tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=words):
        mdmmt.load(folder, "cpu")


def test_load_changes_the_configuration_of_a_model_folder_by_parameters(tiny_folder):
    model = mdmmt.load(tiny_folder, "cpu", mmttxt_params={"max_length": 4})
    assert model.config.text == replace(TINY.text, max_length=4)
    long = "the dog is playing with a red ball"
    np.testing.assert_array_equal(model.encode_text(long), model.encode_text("the dog"))
    written = json.loads((tiny_folder / "config.json").read_text())
    assert from_dict(written).text.max_length == 30
    with pytest.raises(WeightsError, match=r"missing keys: video_dim_reduce_out\.wide"):
        _ = mdmmt.load(tiny_folder, "cpu", {"same_dim": 8}).read_video_tower()


@pytest.mark.slow
def test_load_reads_a_full_size_stand_in_of_the_released_file(full, full_file, assert_parity):
    """Its true format, read as a user reads it, says what the oracle says."""
    model = mdmmt.load(full_file, device="cpu")
    assert model.config == full.config
    features, times, mask = random_batch(full.config.video.experts, 2, 30)
    mask["CLIP"][0] = 0
    mask["VIDEO"][:, 25:] = 0
    theirs = run_video(full.theirs_video, features, times, mask)
    videos = [
        {
            part: {name: one[row].numpy() for name, one in by_expert.items()}
            for part, by_expert in zip(
                ("features", "features_t", "features_ind"), (features, times, mask), strict=True
            )
        }
        for row in range(2)
    ]
    ours = model.encode_video(videos)
    assert model.encode_video(videos[0]).shape == (1536,)
    assert ours.dtype == np.float32
    assert_parity(torch.tensor(ours), theirs, "video, full size, from .pth")
    assert np.linalg.norm(ours, axis=1) == pytest.approx(3**0.5, abs=1e-4)
    with torch.inference_mode():
        theirs = full.theirs_text(TEXTS)
    ours = model.encode_text(TEXTS)
    assert model.encode_text("Hello world").shape == (1536,)
    assert ours.dtype == np.float32
    assert_parity(torch.tensor(ours), theirs, "text, full size, from .pth")
    assert (np.linalg.norm(ours, axis=1) <= 1).all()

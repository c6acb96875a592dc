"""The tiny model's weights in every layout, which stands for the released model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY, VIDEO_PARAMS

import mdmmt
from mdmmt.weights import layout as layout_module

TEXTS = ["Hello world", "a man is playing with the red ball and the dog sings"]


@pytest.fixture
def tiny_is_released(monkeypatch):
    """Bare weights are read with the tiny model's configuration."""
    monkeypatch.setattr(layout_module, "RELEASED", TINY)


@pytest.fixture
def source(tiny_is_released, tiny, tiny_vocabulary, tiny_folder, tmp_path):
    """Writes the tiny model's weights in a layout, with the tokenizer beside them."""

    def make(layout: str) -> Path:
        if layout == "folder":
            return tiny_folder
        folder = tmp_path / "source"
        folder.mkdir()
        for file in tiny_vocabulary.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        path = folder / ("weights.safetensors" if layout == "safetensors" else "weights.pth")
        if layout == "safetensors":
            save_file(tiny.both_towers, path)
        elif layout == "lineage":
            old = {
                "module." + name.replace("text_gu.", "text_GU."): tensor
                for name, tensor in tiny.both_towers.items()
            }
            torch.save({"state_dict": old, "epoch": 3}, path)
        else:
            torch.save(tiny.released_layout, path)
        return path

    return make


@pytest.fixture(scope="session")
def expected(tiny_model, tiny_video) -> tuple[np.ndarray, np.ndarray]:
    """The tiny model's embeddings of TEXTS and of a video."""
    return tiny_model.encode_text(TEXTS), tiny_model.encode_video(tiny_video())


@pytest.fixture
def assert_loads(expected, text_params, tiny_video):
    """Checks that a weights file, or a folder of one, is the tiny model, bit for bit."""

    def check(path) -> None:
        model = mdmmt.load(path, "cpu", VIDEO_PARAMS, text_params)
        np.testing.assert_array_equal(model.encode_text(TEXTS), expected[0])
        np.testing.assert_array_equal(model.encode_video(tiny_video()), expected[1])

    return check

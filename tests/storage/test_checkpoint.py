"""Checkpoints of any model: strict and safe."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from mdmmt import WeightsError
from mdmmt.storage.checkpoint import (
    ALIGNMENT,
    CheckpointLayout,
    align,
    join_names,
    load_strict,
    read_tensors,
)


def refuses(path, words):
    with pytest.raises(WeightsError, match=words):
        read_tensors(path, CheckpointLayout())


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("style", ["zip", "old", "bare pickle", "inside a state dict"])
def test_read_tensors_runs_nothing_in_a_malicious_pickle(style, tiny, tmp_path):
    path, trace = tmp_path / "evil.pth", tmp_path / "it-ran"
    payload = Payload(trace)
    if style == "bare pickle":
        path.write_bytes(pickle.dumps(payload, protocol=2))
    elif style == "inside a state dict":
        layout = tiny.released_layout
        torch.save({**layout, "vid_state_dict": {**layout["vid_state_dict"], "x": payload}}, path)
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=style == "zip")
    refuses(path, "holds Python objects")
    assert not trace.exists()
    if style == "bare pickle":  # the payload is real
        pickle.loads(path.read_bytes())
        assert trace.exists()


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", b"<!DOCTYPE html><html></html>"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_read_tensors_refuses_other_files(content, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    refuses(path, f"model{suffix} (is no|holds)")


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_read_tensors_refuses_a_truncated_file(kind, tmp_path):
    """Wherever it is cut: torch's readers raise nearly any exception on such files."""
    state = {f"vid_bert.{i}": torch.randn(3, 4) for i in range(6)}
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, max(1, len(whole) // 150)):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError, match=r"a\.(pth|safetensors)"):
            read_tensors(path, CheckpointLayout())


def test_read_tensors_renames_ignores_and_unnests(tmp_path):
    layout = CheckpointLayout(renames=((r"^old\.", "new."),), ignored=(r"^new\.x$",), nested=("a",))
    state = {"old.x": torch.zeros(1), "old.y": torch.ones(2), "z": torch.ones(3)}
    torch.save({"a": state, "epoch": 3}, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for file in tmp_path.iterdir():
        assert {k: len(v) for k, v in read_tensors(file, layout).items()} == {"new.y": 2, "z": 3}


def test_read_tensors_leaves_values_without_a_prefix_unread(tmp_path):
    save_file({"a.x": torch.ones(2), "b.x": torch.ones(2)}, tmp_path / "a.safetensors")
    state = read_tensors(tmp_path / "a.safetensors", CheckpointLayout(), ("a.",))
    assert state["a.x"].tolist() == [1, 1] and state["b.x"].is_meta


def test_load_strict_lists_every_problem_and_changes_nothing(tmp_path):
    module = torch.nn.Linear(2, 3)
    before = module.weight.clone()
    state = {"weight": torch.zeros(3, 3), "surplus": torch.zeros(1)}
    with pytest.raises(WeightsError) as error:
        load_strict(module, state, tmp_path)
    assert str(error.value) == (
        f"{tmp_path} does not fit the model; unknown keys: surplus; missing keys: bias; "
        "other shapes: weight (3, 3) instead of (3, 2)"
    )
    assert torch.equal(module.weight, before)


def test_load_strict_takes_the_tensors_over(tmp_path):
    module = torch.nn.Linear(2, 3)
    weight = torch.randn(3, 2)
    state = {"weight": weight, "bias": torch.zeros(3, dtype=torch.float64)}
    load_strict(module, state, tmp_path)
    assert not state
    assert module.weight.data_ptr() == weight.data_ptr()
    assert module.bias.dtype == torch.float32


def test_align_copies_unaligned_parameters_but_tables():
    module = torch.nn.ModuleList([torch.nn.Linear(3, 3, bias=False), torch.nn.Embedding(3, 3)])
    for part in module:
        part.weight.data = torch.arange(10.0)[1:].view(3, 3)
    align(module)
    linear, table = (part.weight for part in module)
    assert linear.data_ptr() % ALIGNMENT == 0 and table.data_ptr() % ALIGNMENT
    assert torch.equal(linear, table)


def test_join_names_counts_the_rest():
    assert join_names(["a", "b"]) == "a, b"
    assert join_names(list("abcdefghij")) == "a, b, c, d, e, f, g, h and 2 more"

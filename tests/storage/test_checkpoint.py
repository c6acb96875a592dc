"""Checkpoints of any model: strict and safe."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mdmmt import WeightsError
from mdmmt.storage import facts
from mdmmt.storage.checkpoint import (
    ALIGNMENT,
    CheckpointLayout,
    align,
    join_names,
    load_file,
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


NOT_FINITE = {
    "NaN": torch.tensor([1.0, float("nan"), 2.0]),
    "infinity": torch.tensor([1.0, float("inf"), 2.0]),
    "minus infinity": torch.tensor([-float("inf"), 1.0, 2.0]),
    "all NaN": torch.full((3,), float("nan")),
    "half": torch.tensor([1.0, float("nan"), 2.0]).half(),
    "bfloat16": torch.tensor([1.0, float("inf"), 2.0]).bfloat16(),
    "beyond float32": torch.tensor([1.0, 1e39, 2.0], dtype=torch.float64),
}


@pytest.mark.parametrize("kind", NOT_FINITE)
@pytest.mark.parametrize("name", ["bias", "running_var"])
def test_load_strict_names_tensors_that_are_not_finite(kind, name, tmp_path):
    """A buffer counts as a parameter does."""
    module = torch.nn.BatchNorm1d(3)
    before = module.weight
    with pytest.raises(WeightsError) as error:
        load_strict(module, module.state_dict() | {name: NOT_FINITE[kind]}, tmp_path)
    assert f"{tmp_path} holds NaN or infinity (as float32) in {name}, exp" in str(error.value)
    assert module.weight is before


def test_load_strict_takes_the_largest_numbers_and_empty_tensors(tmp_path):
    module = torch.nn.Linear(1, 2)
    module.weight = torch.nn.Parameter(torch.zeros(2, 0))
    most = torch.finfo(torch.float32).max
    load_strict(
        module, {"weight": torch.zeros(2, 0), "bias": torch.tensor([most, -most])}, tmp_path
    )
    assert module.bias.tolist() == [most, -most]


@pytest.fixture
def checks(monkeypatch, tmp_path) -> list[int]:
    """The sizes of the tensors that are looked through; the cache is empty and keeps all facts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(facts, "MIN_AGE_S", 0.0)
    sizes: list[int] = []
    aminmax = torch.aminmax
    monkeypatch.setattr(torch, "aminmax", lambda x: sizes.append(x.numel()) or aminmax(x))
    return sizes


def load_linear(file: Path) -> torch.nn.Linear:
    module = torch.nn.Linear(2, 3)
    load_file(module, file, lambda: read_tensors(file, CheckpointLayout()))
    return module


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_file_looks_for_nan_once(suffix, checks, tmp_path):
    file = tmp_path / f"a{suffix}"
    state = torch.nn.Linear(2, 3).state_dict()
    torch.save(state, file) if suffix == ".pth" else save_file(state, file)
    for _ in range(3):
        assert torch.equal(load_linear(file).weight, state["weight"])
    assert sorted(checks) == [3, 6]


@pytest.mark.parametrize("way", ["in place", "replaced"])
def test_load_file_looks_again_after_every_change(way, checks, tmp_path):
    """The new file has the size and the time of modification of the one that was fine."""
    file, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    state = torch.nn.Linear(2, 3).state_dict()
    save_file(state, file)
    load_linear(file)
    times = file.stat()
    state["weight"][2, 1] = float("nan")
    save_file(state, other)
    if way == "in place":
        file.write_bytes(other.read_bytes())
    else:
        other.replace(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    for _ in range(2):  # nothing is remembered of a file that is refused
        with pytest.raises(WeightsError, match="in weight, expected finite"):
            load_linear(file)


def test_load_file_does_not_believe_in_a_file_that_is_replaced_while_it_is_read(checks, tmp_path):
    file, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    state = torch.nn.Linear(2, 3).state_dict()
    save_file(state, file)
    save_file(state | {"bias": torch.full((3,), float("nan"))}, other)

    def read():
        tensors = read_tensors(file, CheckpointLayout())
        other.replace(file)
        return tensors

    load_file(torch.nn.Linear(2, 3), file, read)  # this one is fine, the next one is not
    with pytest.raises(WeightsError, match="in bias"):
        load_linear(file)


def test_load_file_looks_at_each_kind_of_module(checks, tmp_path):
    """Another module may take other tensors of the same file."""
    file = tmp_path / "a.pth"
    torch.save({"weight": torch.ones(3), "bias": torch.full((3,), float("nan"))}, file)

    class Weight(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(3))

    weight = Weight()
    load_file(weight, file, lambda: {"weight": torch.load(file)["weight"]})
    with pytest.raises(WeightsError, match="in bias"):
        load_file(torch.nn.LayerNorm(3), file, lambda: torch.load(file))


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

"""Checkpoints hold all that a run needs, in files that run no code."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from mdmmt.errors import InputError
from mdmmt.training.checkpoints import (
    KEPT,
    RunState,
    find_checkpoints,
    load_checkpoint,
    save_checkpoint,
)

CPU = torch.device("cpu")


def make(seed: int, steps: int = 0):
    torch.manual_seed(seed)
    towers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimiser = torch.optim.AdamW(towers.parameters(), lr=0.1)
    train(towers, optimiser, steps)
    return towers, optimiser


def train(towers, optimiser, steps: int) -> None:
    for step in range(steps):
        torch.manual_seed(step)
        optimiser.zero_grad()
        towers(torch.rand(5, 3)).square().mean().backward()
        optimiser.step()


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    towers, optimiser = make(0, 3)
    state = RunState(3, 1, 0.25, [{"epoch": 1, "mean_loss": 0.1}])
    save_checkpoint(tmp_path, state, towers, optimiser)
    again, other = make(1)
    assert load_checkpoint(find_checkpoints(tmp_path)[-1], again, other, CPU) == state
    train(towers, optimiser, 4)
    train(again, other, 4)
    for name, value in towers.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_last_two_are_kept(tmp_path):
    towers, optimiser = make(0, 1)
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, RunState(step), towers, optimiser)
    assert [path.name for path in find_checkpoints(tmp_path)] == [
        "step-000000015",
        "step-000000020",
    ]
    assert KEPT == 2


def test_checkpoints_are_safetensors_and_json(tmp_path):
    save_checkpoint(tmp_path, RunState(1), *make(0, 1))
    (folder,) = find_checkpoints(tmp_path)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["optimiser.safetensors", "run.json", "weights.safetensors"]
    assert json.loads((folder / "run.json").read_text())["step"] == 1


@pytest.mark.parametrize("name", ["optimiser.safetensors", "run.json", "weights.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    save_checkpoint(tmp_path, RunState(1), *make(0, 1))
    (folder,) = find_checkpoints(tmp_path)
    (folder / name).write_bytes(b"{")
    with pytest.raises(InputError, match=r"step-000000001"):
        load_checkpoint(folder, *make(0), CPU)
    (folder / name).unlink()
    with pytest.raises(InputError, match=r"step-000000001"):
        load_checkpoint(folder, *make(0), CPU)


def test_there_may_be_no_checkpoint(tmp_path):
    assert find_checkpoints(tmp_path / "none") == []
    (tmp_path / "step-1").mkdir()
    assert find_checkpoints(tmp_path) == []

"""Checkpoints of a run: all that a process needs to go on as if it had never stopped.

A checkpoint is a folder `step-N` of two safetensors files, the weights and the state of the
optimiser, and one JSON file. It appears whole or not at all, and the last two are kept. What is
drawn at random follows from the seed and the number of the step, so the number is all that is kept
of samplers and random states, and the learning rates follow from it as well.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import InputError
from ..storage.folders import atomic_folder
from ..storage.text import parse_json, read_text

FOLDER = re.compile(r"step-(\d{9})")
WEIGHTS_FILE, OPTIMISER_FILE, STATE_FILE = (
    "weights.safetensors",
    "optimiser.safetensors",
    "run.json",
)
KEPT = 2


@dataclass
class RunState:
    """How far a run has come."""

    step: int = 0  # steps that are done
    best_epoch: int | None = None
    best: float | None = None  # the metric of that epoch
    history: list[dict[str, Any]] = field(default_factory=list)  # of each epoch; see `loop`


def save_checkpoint(
    folder: Path, state: RunState, towers: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write a checkpoint into the folder of all checkpoints, and remove all but the last two."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in towers.named_parameters()}
    moments = {
        f"{names[parameter]}/{key}": value
        for parameter, values in optimiser.state.items()
        for key, value in values.items()
    }
    with atomic_folder(folder.absolute() / f"step-{state.step:09}") as built:
        save_file(_on_cpu(dict(towers.state_dict())), built / WEIGHTS_FILE)
        save_file(_on_cpu(moments), built / OPTIMISER_FILE)
        text = json.dumps(asdict(state), indent=1) + "\n"
        (built / STATE_FILE).write_text(text, encoding="utf-8")
    for old in find_checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest one last."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if FOLDER.fullmatch(path.name))


def load_checkpoint(
    path: Path, towers: nn.Module, optimiser: torch.optim.Optimizer, device: torch.device
) -> RunState:
    """Read a checkpoint into the towers and the optimiser.

    Raises:
        InputError: it cannot be read, or is of other towers.
    """
    try:
        towers.load_state_dict(load_file(path / WEIGHTS_FILE))
        parameters = dict(towers.named_parameters())
        for name, value in load_file(path / OPTIMISER_FILE).items():
            parameter, key = name.rsplit("/", 1)
            # The number of steps stays on the CPU, where the optimiser keeps it.
            value = value if key == "step" else value.to(device)
            optimiser.state[parameters[parameter]][key] = value
        return RunState(**parse_json(read_text(path / STATE_FILE), str(path / STATE_FILE)))
    except (KeyError, OSError, RuntimeError, SafetensorError, TypeError) as error:
        raise InputError(
            f"the checkpoint {path} cannot be read ({error}); delete it to go on from the one "
            "before"
        ) from error


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

"""`mdmmt info`: what a weights file or a model folder is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import WeightsError
from ..storage.checkpoint import PICKLES, load_strict
from ..storage.files import sha256_of
from ..towers.text import TextTower
from ..towers.tokenizer import has_tokenizer
from ..towers.video import VideoTower
from .layout import (
    CONFIG_FILE,
    MODEL_FILE,
    TEXT_PREFIXES,
    TOWERS,
    VIDEO_PREFIXES,
    read_config,
    read_tower,
)
from .locate import find_weights

WIDTHS = "video_dim_reduce."  # its weights are (width of a block, width of the expert)


def info(weight_path: str | os.PathLike[str]) -> dict[str, str]:
    """What weights are: fact -> value, both to be read by a person.

    Args:
        weight_path: as `mdmmt.load` takes it.

    Raises:
        WeightsError: no weights there, or nothing that can be read safely.
    """
    path = find_weights(weight_path)
    file = path / MODEL_FILE if path.is_dir() else path
    state = read_tower(path, VIDEO_PREFIXES + TEXT_PREFIXES)
    video = {name: tensor for name, tensor in state.items() if name.startswith(VIDEO_PREFIXES)}
    text = {name: tensor for name, tensor in state.items() if name not in video}
    beside = path if path.is_dir() else path.parent
    return {
        "path": str(path),
        "layout": _layout(path),
        "size": f"{file.stat().st_size:,} bytes",
        "sha256": sha256_of(file),
        "origin": _origin(file),
        "dtype": ", ".join(sorted(_dtypes(state))),
        "experts": ", ".join(_experts(path, video)) or "not known without the video tower",
        "video tower": _size(video),
        "text tower": _size(text),
        "tokenizer": "there" if has_tokenizer(beside) else "none here",
        "fits": _fits(path, video, text),
    }


def _dtypes(state: Mapping[str, Tensor]) -> set[str]:
    """Of the weights; the counters of batch normalisation are integers."""
    floats = (tensor for tensor in state.values() if tensor.is_floating_point())
    return {str(tensor.dtype).removeprefix("torch.") for tensor in floats}


def _layout(path: Path) -> str:
    if path.is_dir():
        return f"model folder ({CONFIG_FILE}, {MODEL_FILE})"
    if path.suffix not in PICKLES:
        return "safetensors"
    content = torch.load(path, map_location="meta", weights_only=True)
    nested = " and ".join(key for key in TOWERS.nested if key in content)
    return f"torch file, {nested or 'bare tensors'}"


def _origin(file: Path) -> str:
    """Where converted weights come from, as the conversion noted it."""
    if file.suffix in PICKLES:
        return "not noted in such a file"
    with safe_open(file, framework="pt") as tensors:
        facts = tensors.metadata() or {}
    if "origin" not in facts:
        return "not noted"
    return f"{facts['origin']}, sha256 {facts.get('origin_sha256', 'not noted')}"


def _experts(path: Path, video: Mapping[str, Tensor]) -> list[str]:
    """The experts in the order of the embedding's blocks where that is known, else by name."""
    found = re.compile(re.escape(WIDTHS) + r"([^.]+)\.fc\.weight")
    matches = ((found.fullmatch(name), tensor) for name, tensor in video.items())
    names = [match[1] for match, tensor in matches if match and tensor.ndim == 2]
    order = [expert.name for expert in read_config(path).video.experts]
    names = sorted(set(names), key=lambda name: (*(n != name for n in order), name))
    return [f"{name} ({video[f'{WIDTHS}{name}.fc.weight'].shape[1]} wide)" for name in names]


def _size(state: Mapping[str, Tensor]) -> str:
    if not state:
        return "not in this file"
    return f"{sum(t.numel() for t in state.values()):,} numbers in {len(state)} tensors"


def _fits(path: Path, video: dict[str, Tensor], text: dict[str, Tensor]) -> str:
    """Whether the towers take the tensors, as `mdmmt.load` would give them."""
    config = read_config(path)
    with torch.device("meta"):
        towers = VideoTower(config.video), TextTower(config.text)
    try:
        for tower, state in zip(towers, (video, text), strict=True):
            if state:
                load_strict(tower, state, path)
    except WeightsError as error:
        return f"no: {error}"
    return "yes" if path.is_dir() else "yes, the sizes are those of the released model"

"""Facts about a weights file or a model folder, for `mdmmt info` and for programs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import WeightsError
from ..storage.checkpoint import PICKLES, load_strict, read_checkpoint
from ..storage.files import sha256_of
from ..towers.text import TextTower
from ..towers.tokenizer import has_tokenizer
from ..towers.video import VideoTower
from .layout import (
    TEXT_PREFIXES,
    TOWERS,
    VIDEO_PREFIXES,
    read_config,
    select_tower,
    weights_file,
)
from .locate import find_weights

EXPERT_LAYER = re.compile(r"video_dim_reduce\.([^.]+)\.fc\.weight")  # (d, dim of the expert)


@dataclass(frozen=True)
class TowerInfo:
    """The size of one tower's part of a file."""

    numbers: int
    tensors: int


@dataclass(frozen=True)
class WeightsInfo:
    """Facts about a weights file or a model folder."""

    path: Path
    file: Path  # the path, or the weights file in the folder
    nested: tuple[str, ...]  # keys under which a torch file holds its tensors
    skipped: tuple[str, ...]  # places and classes of what a torch file holds beside tensors
    size_bytes: int
    sha256: str
    origin: str | None  # the source of converted weights
    origin_sha256: str | None
    dtypes: tuple[str, ...]  # of the weights, sorted
    experts: Mapping[str, int]  # dims, in the order of the embedding's blocks if it is known
    video_tower: TowerInfo | None
    text_tower: TowerInfo | None
    has_tokenizer: bool
    misfit: str | None  # why the towers do not take the tensors; None: they do


def info(weight_path: str | os.PathLike[str]) -> WeightsInfo:
    """Read weights and collect facts about them.

    Args:
        weight_path: see `find_weights`.

    Raises:
        WeightsError: there are no weights, or they cannot be read safely.
    """
    path = find_weights(weight_path)
    file = weights_file(path)
    checkpoint = read_checkpoint(file, TOWERS, VIDEO_PREFIXES + TEXT_PREFIXES)
    state = select_tower(checkpoint.tensors, VIDEO_PREFIXES + TEXT_PREFIXES, file)
    video = {name: tensor for name, tensor in state.items() if name.startswith(VIDEO_PREFIXES)}
    text = {name: tensor for name, tensor in state.items() if name not in video}
    header = _header(file)
    return WeightsInfo(
        path=path,
        file=file,
        nested=checkpoint.nested,
        skipped=checkpoint.skipped,
        size_bytes=file.stat().st_size,
        sha256=sha256_of(file),
        origin=header.get("origin"),
        origin_sha256=header.get("origin_sha256"),
        dtypes=_dtypes(state),
        experts=_experts(path, video),
        video_tower=_tower_info(video),
        text_tower=_tower_info(text),
        has_tokenizer=has_tokenizer(file.parent),
        misfit=_misfit(path, video, text),
    )


def _header(file: Path) -> Mapping[str, str]:
    """The entries that `save_model` wrote into the header of a .safetensors file."""
    if file.suffix in PICKLES:
        return {}
    with safe_open(file, framework="pt") as tensors:
        return tensors.metadata() or {}


def _dtypes(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Floating types alone: the counters of batch normalisation are integers, and no weights."""
    floats = (tensor for tensor in state.values() if tensor.is_floating_point())
    return tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in floats}))


def _experts(path: Path, video: Mapping[str, Tensor]) -> dict[str, int]:
    """Dims of the experts, in the configuration's order, then by name."""
    matches = ((EXPERT_LAYER.fullmatch(name), tensor) for name, tensor in video.items())
    dims = {match[1]: tensor.shape[1] for match, tensor in matches if match and tensor.ndim == 2}
    order = [expert.name for expert in read_config(path).video.experts]
    names = sorted(dims, key=lambda name: (*(n != name for n in order), name))
    return {name: dims[name] for name in names}


def _tower_info(state: Mapping[str, Tensor]) -> TowerInfo | None:
    if not state:
        return None
    return TowerInfo(sum(tensor.numel() for tensor in state.values()), len(state))


def _misfit(path: Path, video: dict[str, Tensor], text: dict[str, Tensor]) -> str | None:
    """Why the towers of the configuration do not take the tensors, if they do not."""
    config = read_config(path)
    with torch.device("meta"):
        towers = VideoTower(config.video), TextTower(config.text)
    try:
        for tower, state in zip(towers, (video, text), strict=True):
            if state:
                load_strict(tower, state, weights_file(path))
    except WeightsError as error:
        return str(error)
    return None

"""Write a model folder: `config.json`, `model.safetensors`, the tokenizer, and a model card.

The card is `README.md`, which Hugging Face shows on a repository's page.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from ..config import ModelConfig, to_dict
from ..errors import InputError
from ..storage.checkpoint import load_strict
from ..storage.files import check_folder, sha256_of
from ..storage.folders import atomic_folder, move_files
from ..storage.paths import SAMPLE_FOLDER
from ..towers.text import TextTower
from ..towers.tokenizer import check_vocabulary
from ..towers.video import VideoTower
from ..version import VERSION
from .layout import (
    CONFIG_FILE,
    MODEL_FILE,
    MODEL_FOLDER_FILES,
    TEXT_PREFIXES,
    VIDEO_PREFIXES,
    is_model_folder,
    read_config,
    read_tower,
    weights_file,
)

CARD_FILE = "README.md"
CARD_TEMPLATE = Path(__file__).with_name("model_card.md")
SAMPLE_LICENCE = (
    "The code of the package mdmmt trained these weights on clips that it draws: Apache-2.0."
)
UNKNOWN_LICENCE = (
    "The weights belong to those who trained them; making this folder changes nothing about that.\n"
    "The authors of MDMMT state no licence for the file `mdmmt_3mod.pth` that they released: ask\n"
    "them before you publish or sell anything made from it. Only the package mdmmt is Apache-2.0."
)


def save_model(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    video_tower: nn.Module,
    text_tower: nn.Module,
    tokenizer: Any | None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files into a folder.

    Each file appears whole or not at all, flushed to disk, and replaces a file of the same name.

    Args:
        tokenizer: a Hugging Face tokenizer; None leaves it out.
        facts: further entries of the header of `model.safetensors`, for `mdmmt info`.

    Raises:
        OSError: the disk fails, or is full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu().contiguous()
        for tower in (video_tower, text_tower)
        for name, tensor in tower.state_dict().items()
    }
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
        scratch = Path(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        save_file(state, scratch / MODEL_FILE, metadata={"format": "pt", **(facts or {})})
        text = json.dumps(to_dict(config), indent=2) + "\n"
        (scratch / CONFIG_FILE).write_text(text, encoding="utf-8")
        # safetensors lets only the owner read its file.
        shutil.copymode(scratch / CONFIG_FILE, scratch / MODEL_FILE)
        move_files(scratch, folder)


def write_model_folder(source: Path, out: Path, tokenizer: Any | None, origin: str) -> None:
    """Write a model folder from a weights file or another model folder.

    The folder appears whole or not at all, and replaces a model folder of the same name.

    Args:
        tokenizer: a Hugging Face tokenizer; None leaves it out, and the folder embeds no texts.
        origin: the name of the source in the card.

    Raises:
        WeightsError: the weights or the tokenizer do not fit.
        InputError: see `check_replaceable`.
        OSError: the disk fails, or is full; an old folder remains as it was.
    """
    check_replaceable(out.absolute())
    config = read_config(source)
    with torch.device("meta"):
        video, text = VideoTower(config.video), TextTower(config.text)
    file = weights_file(source)
    load_strict(video, read_tower(source, VIDEO_PREFIXES), file)
    load_strict(text, read_tower(source, TEXT_PREFIXES), file)
    write_towers(source, out, config, video, text, tokenizer, origin)


def write_towers(
    source: Path,
    out: Path,
    config: ModelConfig,
    video: VideoTower,
    text: TextTower,
    tokenizer: Any | None,
    origin: str,
) -> None:
    """Write a model folder from both towers, which were read from `source`.

    The other arguments and the errors are those of `write_model_folder`.
    """
    out = out.absolute()
    check_replaceable(out)
    if tokenizer is not None:
        check_vocabulary(tokenizer, config.text)
    facts = {
        "origin": origin,
        "origin_sha256": sha256_of(weights_file(source)),
    }
    try:
        with atomic_folder(out) as built:
            save_model(built, config, video, text, tokenizer, facts)
            licence = SAMPLE_LICENCE if source == SAMPLE_FOLDER else UNKNOWN_LICENCE
            card = _model_card(config, video, text, facts, licence)
            (built / CARD_FILE).write_text(card, encoding="utf-8")
    except SafetensorError as error:  # it reports a full disk as an error of its own
        raise OSError(f"{out} could not be written: {error}") from error


def check_replaceable(out: Path) -> None:
    """Refuse to replace anything but an empty folder or a model folder without other files.

    Raises:
        InputError: `out` exists and is something else, or cannot be written.
    """
    check_folder(out.absolute().parent)
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise InputError(f"{out} exists and is not a folder; it was left as it is")
    names = sorted(path.name for path in out.iterdir())
    others = [name for name in names if name not in (*MODEL_FOLDER_FILES, CARD_FILE)]
    if others or (names and not is_model_folder(out)):
        raise InputError(
            f"{out} exists and was left as it is, since it is not a model folder: "
            f"replacing it would lose {(others or names)[0]}"
        )


def _model_card(
    config: ModelConfig,
    video: VideoTower,
    text: TextTower,
    facts: Mapping[str, str],
    licence: str,
) -> str:
    experts = config.video.experts
    return CARD_TEMPLATE.read_text(encoding="utf-8").format(
        experts=", ".join(expert.name for expert in experts),
        expert_table=", ".join(f"{expert.name} ({expert.dim} wide)" for expert in experts),
        width=config.video.embedding_dim,
        video=config.video.encoder,
        video_size=_count_parameters(video),
        bert=config.text.bert,
        text_size=_count_parameters(text),
        max_length=config.text.max_length,
        version=VERSION,
        licence=licence,
        **facts,
    )


def _count_parameters(tower: nn.Module) -> int:
    return sum(parameter.numel() for parameter in tower.parameters())

"""`mdmmt convert`: weights of any layout as a model folder, with a card that says what they are.

The folder holds `config.json`, `model.safetensors`, the tokenizer and `README.md`, which is the
model card on Hugging Face. It gives the very vectors that the source gives.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from ..config import ModelConfig
from ..errors import InputError, WeightsError
from ..storage.files import check_folder, folder_written_whole, sha256_of
from ..towers.text import TextTower
from ..towers.tokenizer import load_tokenizer, tokenizer_source
from ..towers.video import VideoTower
from ..version import VERSION
from .checkpoints import (
    MODEL_FILE,
    MODEL_FOLDER_FILES,
    SAMPLE_FOLDER,
    TEXT_PREFIXES,
    VIDEO_PREFIXES,
    find_weights,
    is_model_folder,
    load_strict,
    read_config,
    read_tower,
    save_model,
)

CARD_FILE = "README.md"

CARD = """\
---
library_name: mdmmt
tags: [mdmmt, video-retrieval, text-to-video, video-text-embedding]
---
# MDMMT: {experts}

Text and video in one embedding space of {width} numbers, after
[MDMMT](https://arxiv.org/abs/2103.10699). The inner product of a text's and a video's embedding is
large where the text describes the video.

| | |
|---|---|
| experts, in the order of the embedding's blocks | {expert_table} |
| video tower | {video_size:,} parameters, {video.num_hidden_layers} layers of {video.hidden_size} |
| text tower | {text_size:,} parameters, {bert.num_hidden_layers} layers of {bert.hidden_size} |
| tokens of a text | at most {max_length} |
| made from | {origin} |
| its SHA-256 | `{origin_sha256}` |
| made by | mdmmt {version}, which renames tensors to today's names and keeps their values |

```python
import mdmmt

model = mdmmt.load("THIS FOLDER, or owner/name on Hugging Face")
model.encode_text(["A man is playing a guitar."])
```

## Licence

{licence}
"""
LICENCE_SAMPLE = "Trained by the code of the package mdmmt from what that code draws: Apache-2.0."
LICENCE = (
    "The weights belong to those who trained them; making this folder changes nothing about that.\n"
    "The authors of MDMMT state no licence for the file `mdmmt_3mod.pth` that they released: ask\n"
    "them before you publish or sell what is made from it. Only the package mdmmt is Apache-2.0."
)


def convert(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write a model folder from weights of any layout.

    Args:
        source: what `weight_path` takes.
        out: the folder; it appears whole or not at all, and replaces a model folder that is there.

    Returns:
        The folder.

    Raises:
        WeightsError: no weights, weights that do not fit, or no tokenizer.
        InputError: `out` is there and is no model folder, or cannot be written.
        OSError: the disk fails, or is full; what was there still is.
    """
    out = Path(out).expanduser()
    _refuse_strangers(out.absolute())  # before anything is downloaded
    path = find_weights(source)
    tokenizer = load_tokenizer(tokenizer_source(path))
    write_model_folder(path, out, tokenizer, origin=path.name)
    return out


def write_model_folder(source: Path, out: Path, tokenizer: Any | None, origin: str) -> None:
    """Write a model folder from a weights file or another model folder.

    Args:
        tokenizer: a Hugging Face tokenizer; None leaves it out, and the folder knows no texts.
        origin: what the card calls the source.

    Raises: see `convert`.
    """
    out = out.absolute()
    _refuse_strangers(out)
    config = read_config(source)
    with torch.device("meta"):
        video, text = VideoTower(config.video), TextTower(config.text)
    load_strict(video, read_tower(source, VIDEO_PREFIXES), source)
    load_strict(text, read_tower(source, TEXT_PREFIXES), source)
    if tokenizer is not None and len(tokenizer) > config.text.bert.vocab_size:
        raise WeightsError(
            f"the tokenizer has {len(tokenizer)} tokens and the text tower "
            f"{config.text.bert.vocab_size}: it is not the one this model was trained with"
        )
    facts = {
        "origin": origin,
        "origin_sha256": sha256_of(source / MODEL_FILE if source.is_dir() else source),
    }
    try:
        with folder_written_whole(out) as built:
            save_model(built, config, video, text, tokenizer, facts)
            card = _card(config, video, text, facts, of_sample=source == SAMPLE_FOLDER)
            (built / CARD_FILE).write_text(card, encoding="utf-8")
    except SafetensorError as error:  # a full disk, for one, is none of Python's errors there
        raise OSError(f"{out} could not be written: {error}") from error


def _card(
    config: ModelConfig,
    video: VideoTower,
    text: TextTower,
    facts: Mapping[str, str],
    of_sample: bool,
) -> str:
    experts = config.video.experts
    return CARD.format(
        experts=", ".join(expert.name for expert in experts),
        expert_table=", ".join(f"{expert.name} ({expert.dim} wide)" for expert in experts),
        width=config.video.embedding_dim,
        video=config.video.encoder,
        video_size=_size(video),
        bert=config.text.bert,
        text_size=_size(text),
        max_length=config.text.max_length,
        version=VERSION,
        licence=LICENCE_SAMPLE if of_sample else LICENCE,
        **facts,
    )


def _size(tower: nn.Module) -> int:
    return sum(parameter.numel() for parameter in tower.parameters())


def _refuse_strangers(out: Path) -> None:
    """Only an empty folder, or a model folder with nothing else in it, may be replaced."""
    check_folder(out.parent)
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise InputError(f"{out} is there and is no folder; it was left as it is")
    held = sorted(path.name for path in out.iterdir())
    strangers = [name for name in held if name not in (*MODEL_FOLDER_FILES, CARD_FILE)]
    if strangers or (held and not is_model_folder(out)):
        raise InputError(
            f"{out} is there and was left as it is, since it is no model folder: "
            f"replacing it would lose {(strangers or held)[0]}"
        )

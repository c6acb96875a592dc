"""Weights: where they are, how they are read, and how a model folder is written.

What can be read: the released `mdmmt_3mod.pth` (a dict of `vid_state_dict` and `txt_state_dict`),
files of the MMT lineage (one `state_dict` of both towers), a `.safetensors` of both towers' tensors
side by side, and a model folder (`config.json`, `model.safetensors`, tokenizer files).

Reading is strict and safe: pickles are opened with `weights_only=True`, and every key that is
unknown, missing or of another shape is an error that lists it.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import RELEASED, ModelConfig, from_dict, to_dict
from ..errors import InputError, WeightsError
from ..towers.tokenizer import TOKENIZER_EXTRAS, TOKENIZER_FILES

SAMPLE = "sample"
SAMPLE_FOLDER = Path(__file__).parent.parent / "sample" / "model"
# Beside the operator: the parent of this package. `__file__` must not be resolved, since
# Towhee's hub lays an operator as symbolic links into a folder of blobs.
WEIGHTS_FOLDER = Path(__file__).parents[2] / "weights"
WEIGHTS_VARIABLE = "MDMMT_WEIGHTS"
CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
MODEL_FOLDER_FILES = (CONFIG_FILE, MODEL_FILE, *TOKENIZER_FILES, *TOKENIZER_EXTRAS)
PICKLES = (".pth", ".pt", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES)

NESTED = ("vid_state_dict", "txt_state_dict", "state_dict")  # where a pickle may hold tensors
VIDEO_PREFIXES = ("vid_bert.", "video_dim_reduce.", "video_dim_reduce_out.")
TEXT_PREFIXES = ("txt_bert.", "text_gu.", "moe_fc_txt.")
BERT_PREFIX = "txt_bert."

ALIGNMENT = 64  # bytes; PyTorch allocates at multiples of it
LISTED = 8  # names an error lists before it only counts the rest


class Layout(NamedTuple):
    """How files of one kind spell their keys: old spellings, and what is none of the weights."""

    renames: tuple[tuple[str, str], ...] = ()  # patterns and what stands for them, in this order
    ignored: tuple[str, ...] = ()  # patterns of what is not read, after the renames
    nested: tuple[str, ...] = ("state_dict",)  # where a pickle may hold the tensors


TOWERS = Layout(
    renames=(
        (r"^module\.", ""),  # torch.nn.DataParallel
        (r"^text_GU\.", "text_gu."),  # MMT
        (r"\.gamma$", ".weight"),  # BERT checkpoints converted from TensorFlow
        (r"\.beta$", ".bias"),
    ),
    # Buffers of old `transformers` releases that hold no weights.
    ignored=(r"^txt_bert\.embeddings\.position_ids$",),
    nested=NESTED,
)


def find_weights(weight_path: str | os.PathLike[str] | None) -> Path:
    """The weights file or model folder that `weight_path` means.

    Args:
        weight_path: a file, a folder, `'sample'`, a repository on Hugging Face (`'owner/name'` or
            `'owner/name@revision'`), or None for the first of `weights/` beside the operator, the
            variable MDMMT_WEIGHTS, and the released model in this user's cache, where it is
            downloaded to if need be.

    Raises:
        WeightsError: there is no such thing; says what can be done.
    """
    said = "weight_path"  # what named the weights, for the errors
    if weight_path is None:
        if WEIGHTS_FOLDER.is_dir() and _weights_files(WEIGHTS_FOLDER):
            return _in_folder(WEIGHTS_FOLDER)
        said, weight_path = WEIGHTS_VARIABLE, os.environ.get(WEIGHTS_VARIABLE)
        if not weight_path:
            from .released import released_weights

            return released_weights()
    if not isinstance(weight_path, str | os.PathLike):
        raise WeightsError(f"{said} is a {type(weight_path).__name__}, expected a path")
    if not str(weight_path).strip():
        raise WeightsError(f"{said} is {str(weight_path)!r}, expected a path or '{SAMPLE}'")
    if weight_path == SAMPLE:
        weight_path = SAMPLE_FOLDER
    path = Path(weight_path).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if isinstance(weight_path, str) and not path.exists():
        from ..storage.huggingface import fetch_repository, is_repository

        if is_repository(weight_path):
            return fetch_repository(weight_path)
    if not path.is_file():
        raise WeightsError(f"{said} is {str(path)!r}, where there is no file and no folder")
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{said} is {str(path)!r}, expected one of {', '.join(SUFFIXES)}")
    # The weights of a model folder are nothing without its configuration.
    return path.parent if path.name == MODEL_FILE and is_model_folder(path.parent) else path


def _in_folder(folder: Path) -> Path:
    """A model folder itself, or the one weights file in a folder."""
    if is_model_folder(folder):
        return folder
    files = _weights_files(folder)
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise WeightsError(
            f"the folder {folder} is no model folder ({CONFIG_FILE} and {MODEL_FILE}) and should "
            f"hold exactly one weights file; found: {found}"
        )
    return files[0]


def _weights_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def is_model_folder(folder: Path) -> bool:
    """Whether this is a folder with a configuration and the weights it describes."""
    return (folder / CONFIG_FILE).is_file() and (folder / MODEL_FILE).is_file()


def read_config(path: Path) -> ModelConfig:
    """The configuration of a model folder; that of the released model for a bare file."""
    if not path.is_dir():
        return RELEASED
    file = path / CONFIG_FILE
    try:
        return from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} does not describe a model: {error}") from error


def read_tower(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of one tower, under today's names.

    Args:
        path: a weights file or a model folder.
        prefixes: `VIDEO_PREFIXES` or `TEXT_PREFIXES`.

    Raises:
        WeightsError: the file cannot be read, holds something other than tensors, has keys of
            neither tower, or nothing of this one.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    state = read_tensors(file, TOWERS, prefixes)
    unknown = [name for name in state if not name.startswith(VIDEO_PREFIXES + TEXT_PREFIXES)]
    if unknown:
        raise WeightsError(f"{file} has keys of neither tower: {_listed(unknown)}")
    state = {name: tensor for name, tensor in state.items() if name.startswith(prefixes)}
    if not state:
        raise WeightsError(f"{file} holds nothing of this tower (no {', '.join(prefixes)})")
    return state


def read_tensors(
    file: Path, layout: Layout, prefixes: tuple[str, ...] = ("",)
) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file under the names that its layout gives them.

    Args:
        prefixes: tensors whose name has none of them may come without their values.

    Raises:
        WeightsError: the file cannot be read, or holds something other than tensors.
    """
    if file.suffix in PICKLES:
        return _read_pickle(file, layout)
    return _read_safetensors(file, layout, prefixes)


def load_strict(tower: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Give a tower its weights as float32; the tensors are taken over, mapped as they are.

    Empties `state`, so that there never are two copies of more than one tensor.

    Raises:
        WeightsError: listing the keys that are unknown, missing or of another shape.
    """
    expected = tower.float().state_dict()  # whatever torch's default dtype was
    unknown = [name for name in state if name not in expected]
    missing = [name for name in expected if name not in state]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems = [
        f"{what}: {_listed(names)}"
        for what, names in (
            ("unknown keys", unknown),
            ("missing keys", missing),
            ("other shapes", shapes),
        )
        if names
    ]
    if problems:
        raise WeightsError(f"{source} does not fit the model; {'; '.join(problems)}")
    ready = {name: state.pop(name).to(expected[name].dtype) for name in list(state)}
    tower.load_state_dict(ready, assign=True)


def align(module: nn.Module) -> None:
    """Put weights to where matrix products want them; tables of embeddings stay where they are."""
    for part in module.modules():
        if not isinstance(part, nn.Embedding):
            for parameter in part.parameters(recurse=False):
                parameter.data = aligned(parameter.data)


def aligned(tensor: Tensor) -> Tensor:
    """The tensor where matrix products want it, so that the same numbers give the same sums.

    They add in another order when their operands begin elsewhere, as those of a mapped file may.
    """
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def save_model(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    video_tower: nn.Module,
    text_tower: nn.Module,
    tokenizer: Any | None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write a model folder: `config.json`, `model.safetensors` and the tokenizer's files.

    Each file appears whole or not at all; files of the same name are replaced.

    Args:
        tokenizer: a Hugging Face tokenizer; None leaves it out.
        facts: what the header of `model.safetensors` shall say besides, for `mdmmt info`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu().contiguous()
        for tower in (video_tower, text_tower)
        for name, tensor in tower.state_dict().items()
    }
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as scratch:
        if tokenizer is not None:
            tokenizer.save_pretrained(scratch)
        save_file(state, Path(scratch) / MODEL_FILE, metadata={"format": "pt", **(facts or {})})
        text = json.dumps(to_dict(config), indent=2) + "\n"
        (Path(scratch) / CONFIG_FILE).write_text(text, encoding="utf-8")
        # The weights' own mode would let nobody but their owner read them.
        shutil.copymode(Path(scratch) / CONFIG_FILE, Path(scratch) / MODEL_FILE)
        for file in sorted(Path(scratch).iterdir()):
            os.replace(file, folder / file.name)


def _read_safetensors(file: Path, layout: Layout, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors with one of the prefixes, the others only as names on the meta device."""
    try:
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
        state: dict[str, Tensor] = {}
        for name in names:
            today = _rename(name, layout, file, state)
            if today is None:
                continue
            if not today.startswith(prefixes):
                state[today] = torch.empty(0, device="meta")
                continue
            # Each has a mapping of its own, so what was read leaves the memory with its tensor.
            with safe_open(file, framework="pt") as tensors:
                state[today] = tensors.get_tensor(name)
        return state
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} is no readable safetensors file: {error}") from error


def _read_pickle(file: Path, layout: Layout) -> dict[str, Tensor]:
    try:
        # A file in torch's zip format is mapped, so a tower reads only its own pages.
        content = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{file} holds Python objects that are not tensors, or is damaged; it was not loaded, "
            "since loading such objects can run code: save the tensors alone, best as .safetensors"
        ) from error
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise WeightsError(
            f"{file} is no torch file, or is damaged or cut short ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file} holds a {type(content).__name__}, expected a dict of tensors")
    nested = [content[key] for key in layout.nested if isinstance(content.get(key), Mapping)]
    state: dict[str, Tensor] = {}
    for part in nested or [content]:
        for name, tensor in part.items():
            today = _rename(str(name), layout, file, state)
            if today is None:
                continue
            if not isinstance(tensor, Tensor):
                raise WeightsError(
                    f"{file}: {name} is a {type(tensor).__name__}, expected a tensor"
                )
            state[today] = tensor
    return state


def _rename(name: str, layout: Layout, file: Path, taken: Mapping[str, Tensor]) -> str | None:
    """A key under today's name, or None if it holds no weights."""
    today = name
    for pattern, replacement in layout.renames:
        today = re.sub(pattern, replacement, today)
    if any(re.search(pattern, today) for pattern in layout.ignored):
        return None
    if today in taken:
        raise WeightsError(f"{file} holds {today} twice, once as {name}")
    return today


def _listed(names: list[str]) -> str:
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")

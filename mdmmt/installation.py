"""Facts about this installation, for a person who looks for what is wrong; downloads nothing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

import torch

from . import downloads
from .config import DOWNLOADS, MODEL, TOKENIZER
from .device import resolve_device
from .errors import MdmmtError, WeightsError, describe_error
from .experts import PRETRAINED_EXPERTS, expert_classes
from .experts.pretrained import MODEL_FILES, PretrainedExpert, usual_places
from .fast import resolve_precision
from .storage.files import in_units
from .storage.huggingface import cached_file, check_online, is_repository
from .storage.paths import HOME_VARIABLE, cache_folder
from .storage.text import counted
from .towers.tokenizer import (
    BERT_BASE_CASED_ID,
    TOKENIZER_FILES,
    bert_tokenizer_source,
    tokenizer_source,
)
from .version import VERSION
from .weights.locate import default_source, find_weights

PACKAGES = (
    *("torch", "transformers", "towhee", "numpy", "av", "safetensors", "huggingface-hub"),
    *("setuptools", "filelock", "requests", "openvino", "pymilvus", "milvus-lite"),
)
MISSING = "missing"


def facts() -> dict[str, str]:
    """What is installed, what of the released model's needs is there, and what it would run on.

    Each fact stands for itself: one that cannot be found out says why, and hides no other.
    """
    found: dict[str, Callable[[], str]] = {
        "mdmmt": lambda: f"{VERSION} in {Path(__file__).parent}",
        "python": lambda: f"{platform.python_version()}, {platform.platform()}",
        "packages": _packages,
        "downloads": _downloads,
        "model": _model,
        "tokenizer": _tokenizer,
        **{name: partial(_expert, name) for name in PRETRAINED_EXPERTS},
        "device": _device,
        "precision": _precision,
    }
    result = {name: _found_out(fact) for name, fact in found.items()}
    missing = [name for name in DOWNLOADS if result[name].startswith(MISSING)]
    if missing:
        result[MISSING] = f"{', '.join(missing)}: `mdmmt download` fetches what is missing"
    return result


def _found_out(fact: Callable[[], str]) -> str:
    try:
        return fact()
    except (MdmmtError, OSError, RuntimeError) as error:  # torch raises the last of them
        return f"wrong: {describe_error(error)}"


def _packages() -> str:
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} is not installed")
    return ", ".join(versions)


def _downloads() -> str:
    """The cache, the room on its disk, and whether downloads are forbidden."""
    folder = cache_folder()
    by = f"named by {HOME_VARIABLE}" if os.environ.get(HOME_VARIABLE, "").strip() else "the default"
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    free = in_units(shutil.disk_usage(nearest).free)
    try:
        check_online()
    except WeightsError as error:
        return f"{folder} ({by}), {free} free; {error}"
    return f"{folder} ({by}), {free} free"


def _weights() -> Path | str | None:
    """The default weights: a path, a repository on Hugging Face, or None if they are missing."""
    _, source = default_source()
    if source is None:
        return downloads.find(MODEL)
    if isinstance(source, str) and is_repository(source) and not Path(source).exists():
        return source
    return find_weights(None)


def _model() -> str:
    name, _ = default_source()
    weights = _weights()
    if weights is None:
        return _missing(MODEL)
    return f"{weights} ({name})" if isinstance(weights, Path) else f"{weights} on Hugging Face"


def _tokenizer() -> str:
    """Where the text tower of the default weights finds its tokenizer."""
    weights = _weights()
    place = tokenizer_source(weights) if isinstance(weights, Path) else bert_tokenizer_source()
    if place == BERT_BASE_CASED_ID:
        place = cached_file(BERT_BASE_CASED_ID, TOKENIZER_FILES) or _missing(TOKENIZER)
    return str(place)


def _expert(name: str) -> str:
    expert = expert_classes([name])[name]
    assert issubclass(expert, PretrainedExpert)
    file = expert.find_in(usual_places())
    if file is None and expert.repository is not None:
        file = cached_file(expert.repository, (*expert.files, *MODEL_FILES))
    return _missing(name) if file is None else f"{file}, {in_units(file.stat().st_size)}"


def _missing(name: str) -> str:
    files = downloads.sources(name)[0]
    size = in_units(sum(file.size for file in files))
    return f"{MISSING}, about {size} from {files[-1].url}"


def _device() -> str:
    device = resolve_device(None)
    if device.type == "cuda":
        memory = in_units(torch.cuda.get_device_properties(device).total_memory)
        return f"cuda: {torch.cuda.get_device_name(device)}, {memory}"
    return f"cpu, {counted(torch.get_num_threads(), 'thread')}; torch sees no CUDA device"


def _precision() -> str:
    return f"exact; 'auto' would be {resolve_precision('auto', resolve_device(None))}"

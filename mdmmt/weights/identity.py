"""Which model made an embedding: a hash of the weights, computed once and kept in the user's cache.

Reading and hashing all weights takes seconds, so the hash is kept under what identifies the file
without reading it: its path, size and times, together with the configuration that enters the hash.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import InputError, WeightsError
from ..storage.files import atomic_file
from ..storage.paths import SAMPLE, SAMPLE_FOLDER, cache_folder
from .layout import MODEL_FILE, TEXT_PREFIXES, VIDEO_PREFIXES, read_tower

CACHE_NAME = "identities"  # a folder in the user's cache; one small file for each model
MIN_AGE_S = 2.0  # a file written since then may change again within one tick of its time stamps

logger = logging.getLogger(__name__)


class Identity(NamedTuple):
    """The model that made some embeddings; those of two models cannot be compared."""

    name: str  # for error messages
    sha256: str  # of the weights
    dim: int  # numbers in an embedding

    def __str__(self) -> str:
        return f"{self.name} (weights {self.sha256[:12]}, {self.dim} wide)"


def identity_of(path: Path, config: ModelConfig) -> Identity:
    """The identity of the model in a weights file or model folder.

    The hash is that of the tensors, under the names of this package's modules, and of the order of
    the experts; so converted weights have the identity of the weights they were made from. All
    weights are read the first time, and none afterwards, until the file changes.

    Raises:
        WeightsError: the weights cannot be read; one of the two towers may be missing.
    """
    experts = [expert.name for expert in config.video.experts]
    space = json.dumps([experts, config.video.same_dim])
    key = _cache_key(path, space)
    sha256 = _read_cached(key)
    if sha256 is None:
        sha256 = _hash_weights(path, space)
        if key is not None and key == _cache_key(path, space):  # unchanged while it was read
            _write_cached(key, sha256)
    name = SAMPLE if path == SAMPLE_FOLDER else path.name
    return Identity(name, sha256, config.video.embedding_dim)


def _hash_weights(path: Path, space: str) -> str:
    digest = hashlib.sha256(space.encode())
    towers: dict[str, Tensor] = {}
    for prefixes in (VIDEO_PREFIXES, TEXT_PREFIXES):
        try:
            towers |= read_tower(path, prefixes)
        except WeightsError:
            if prefixes == TEXT_PREFIXES and not towers:
                raise
    for name, tensor in sorted(towers.items()):
        tensor = tensor.float()  # the towers compute with float32, whatever the file holds
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _cache_key(path: Path, space: str) -> dict[str, Any] | None:
    """What identifies the content of the weights file without reading it; None if it is too new.

    The time of the last change of the inode tells apart files that were given the same size and
    time of modification.
    """
    file = (path / MODEL_FILE if path.is_dir() else path).absolute()
    try:
        status = file.stat()
    except OSError:
        return None
    if time.time() - max(status.st_mtime, status.st_ctime) < MIN_AGE_S:
        return None
    return {
        "file": os.fspath(file),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "space": space,
    }


def _cache_file(key: dict[str, Any]) -> Path:
    """One file for each weights file and configuration, so a changed file replaces its entry."""
    name = json.dumps([key["file"], key["space"]])
    return cache_folder() / CACHE_NAME / f"{hashlib.sha256(name.encode()).hexdigest()}.json"


def _read_cached(key: dict[str, Any] | None) -> str | None:
    if key is None:
        return None
    try:
        entry = json.loads(_cache_file(key).read_text(encoding="utf-8"))
        sha256 = entry.pop("sha256")
        int(sha256, 16)
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None
    return sha256 if entry == key and len(sha256) == 64 else None


def _write_cached(key: dict[str, Any], sha256: str) -> None:
    """Store a hash. A cache that cannot be written is ignored."""
    file = _cache_file(key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as part:
            part.write_text(json.dumps(key | {"sha256": sha256}) + "\n", encoding="utf-8")
    except (OSError, InputError) as error:
        logger.info("the hash of %s is not kept: %s", key["file"], error)

"""Which model made an embedding: a hash of the weights, computed once and kept in the user's cache.

Reading and hashing all weights takes seconds, so the hash is kept until the file changes, see
`mdmmt.storage.facts`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import torch

from ..config import ModelConfig
from ..storage.facts import SHA256, mark_of, recall, remember
from ..storage.paths import SAMPLE, SAMPLE_FOLDER
from .layout import TEXT_PREFIXES, VIDEO_PREFIXES, read_tower, weights_file


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
    mark, topic = mark_of(weights_file(path)), f"hash of the weights for {space}"
    sha256 = recall(mark, topic)
    if sha256 is None or not SHA256.fullmatch(sha256):
        sha256 = _hash_weights(path, space)
        remember(mark, topic, sha256)
    name = SAMPLE if path == SAMPLE_FOLDER else path.name
    return Identity(name, sha256, config.video.embedding_dim)


def _hash_weights(path: Path, space: str) -> str:
    digest = hashlib.sha256(space.encode())
    towers = read_tower(path, VIDEO_PREFIXES + TEXT_PREFIXES)
    for name, tensor in sorted(towers.items()):
        tensor = tensor.float()  # the towers compute with float32, whatever the file holds
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

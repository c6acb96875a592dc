"""Experts that are pretrained networks: where their weights are, and what their loading shares.

Weights are looked for in one folder for all experts: the one given, else that which the variable
MDMMT_EXPERTS names, else `weights/experts/` beside the operator. In it lie the files under the
names they are published with, or a folder for each expert, such as `CLIP/`. A file, a folder or a
Hugging Face repository can also be named for one expert alone.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import WeightsError
from ..storage.checkpoint import align
from ..storage.files import sha256_of
from ..storage.huggingface import is_repository
from ..storage.paths import WEIGHTS_FOLDER
from .base import Expert, WeightsSource

EXPERTS_FOLDER = WEIGHTS_FOLDER / "experts"
EXPERTS_VARIABLE = "MDMMT_EXPERTS"
MODEL_FILES = ("model.safetensors", "pytorch_model.bin")  # in a folder of one expert's own
PIXEL_MAX = 255


class PretrainedExpert(Expert):
    """A network with its weights. Made by `load`."""

    files: tuple[str, ...]  # names under which the weights are published, the best first
    published: str  # where they are published, for people
    repository: str | None = None  # on Hugging Face, taken where no folder holds the weights

    def __init__(self, network: nn.Module, device: torch.device, file: Path | None = None) -> None:
        self.device = device
        self.network = network.to(device).eval()
        self.file = file  # of its weights

    @cached_property
    def version(self) -> str:
        """That of the code, and what its weights are."""
        return f"{Expert.version}, weights {sha256_of(self.file) if self.file else 'unknown'}"

    @classmethod
    def load(
        cls, weights: WeightsSource | None = None, device: str | torch.device = "cpu"
    ) -> PretrainedExpert:
        """Find the weights, read them, and build the network.

        Args:
            weights: the file, a folder that holds it, or a Hugging Face repository; None: see
                the text of `mdmmt.experts.pretrained`.

        Raises:
            WeightsError: they are not there, cannot be read, or do not fit.
        """
        file = cls.find(weights)
        network = cls.read(file)
        align(network)
        return cls(network, torch.device(device), file)

    @staticmethod
    @abstractmethod
    def read(file: Path) -> nn.Module:
        """The network with the weights of a file.

        Raises:
            WeightsError: the file cannot be read, or lists the keys that do not fit.
        """

    @classmethod
    def find(cls, weights: WeightsSource | None) -> Path:
        """The weights file that `weights`, or their absence, means."""
        if weights is not None:
            path = Path(weights).expanduser()
            if path.is_file():
                return path
            if not path.is_dir() and is_repository(os.fspath(weights)):
                return cls.fetch(os.fspath(weights))
            places = (path,)
        else:
            named = os.environ.get(EXPERTS_VARIABLE)
            places = (Path(named).expanduser() if named else EXPERTS_FOLDER,)
        for folder in (places[0] / cls.name, places[0]):
            for name in (*cls.files, *MODEL_FILES):
                if (folder / name).is_file():
                    return folder / name
        if weights is None and cls.repository is not None:
            return cls.fetch(cls.repository)
        raise WeightsError(cls.missing(f"not in {places[0]}"))

    @classmethod
    def fetch(cls, repository: str) -> Path:
        """The weights file in a Hugging Face repository, from its cache or downloaded into it."""
        from huggingface_hub import errors, hf_hub_download

        name, _, revision = repository.partition("@")
        for file in (*cls.files, *MODEL_FILES):
            try:
                return Path(hf_hub_download(name, file, revision=revision or None))
            except errors.LocalEntryNotFoundError:
                reason = "its cache lacks it and the hub cannot be reached"
            except errors.EntryNotFoundError:
                reason = "it holds no such file"
            except Exception as error:  # of its HTTP library, another one in each of its versions
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                break
        raise WeightsError(cls.missing(f"not in the repository {repository!r}: {reason}"))

    @classmethod
    def missing(cls, where: str) -> str:
        return (
            f"the expert {cls.name} needs its weights, {' or '.join(cls.files)} ({where}): get "
            f"them from {cls.published}, and put them into {EXPERTS_FOLDER} or a folder that "
            f"{EXPERTS_VARIABLE} names, or leave {cls.name} out of the experts"
        )


def normalise(
    frames: NDArray[np.uint8],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
) -> Tensor:
    """RGB [..., 3] -> float32 [..., 3] with the given mean and deviation of colours from 0 to 1."""
    colours = torch.from_numpy(frames).to(device, torch.float32)
    colours.sub_(torch.tensor(mean, device=device) * PIXEL_MAX)
    return colours.div_(torch.tensor(std, device=device) * PIXEL_MAX)

"""Experts that are pretrained networks: finding and loading their weights.

If a folder is given, it alone is searched for the weights of all experts. Otherwise these folders
are searched in order: the one that the environment variable MDMMT_EXPERTS names, `weights/experts/`
beside the operator, and `experts/` in this user's cache, into which `mdmmt download` puts them. A
folder holds the files under their published names, or a folder for each expert, such as `CLIP/`. A
file, a folder or a Hugging Face repository can also be named for one expert alone.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import ExpertPrecision
from ..errors import WeightsError
from ..storage.checkpoint import align
from ..storage.facts import known_sha256
from ..storage.huggingface import fetch_file, is_repository
from ..storage.paths import WEIGHTS_FOLDER, cache_folder
from .base import Expert, WeightsSource, check_precision

EXPERTS_NAME = "experts"  # of the folder, beside the operator and in this user's cache
EXPERTS_FOLDER = WEIGHTS_FOLDER / EXPERTS_NAME
EXPERTS_VARIABLE = "MDMMT_EXPERTS"
MODEL_FILES = ("model.safetensors", "pytorch_model.bin")  # names in a folder of one expert
PIXEL_MAX = 255


class PretrainedExpert(Expert):
    """A network with its weights. `load` makes one from a file."""

    files: tuple[str, ...]  # published names of the weights, the preferred one first
    companions: tuple[str, ...] = ()  # files that must lie beside the weights
    published: str  # where to get the weights, for error messages
    repository: str | None = None  # on Hugging Face, used if no folder holds the weights

    precisions: tuple[ExpertPrecision, ...] = ("exact",)  # in any other one the expert is exact

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        file: Path | None = None,
        precision: ExpertPrecision = "exact",
    ) -> None:
        """Arrange a network for inference.

        Args:
            network: as `read` returns it.
            file: holds the weights. `version` contains its hash.
            precision: from `check_precision`.
        """
        self.device = device
        self.precision: ExpertPrecision = precision if precision in self.precisions else "exact"
        self.network = self.arrange(network).eval()
        self.file = file

    @cached_property
    def version(self) -> str:  # type: ignore[override]  # nobody sets it
        """The version of the code, the hash of the weights, and a precision other than 'exact'."""
        weights = known_sha256(self.file) if self.file else "unknown"
        precision = "" if self.precision == "exact" else f", {self.precision}"
        return f"{Expert.version}, weights {weights}{precision}"

    def arrange(self, network: nn.Module) -> nn.Module:
        """The network on the device and in the precision of the expert."""
        return network.to(self.device)

    @classmethod
    def load(
        cls,
        weights: WeightsSource | None = None,
        device: str | torch.device = "cpu",
        precision: str = "exact",
    ) -> PretrainedExpert:
        """Find the weights, read them, and build the network.

        Args:
            weights: the file, a folder that holds it, or a Hugging Face repository. None: the
                places that the docstring of `mdmmt.experts.pretrained` lists.
            precision: one of `EXPERT_PRECISIONS`. An expert that lacks it computes exactly.

        Raises:
            InputError: the device or the processor cannot compute in the precision.
            WeightsError: the weights are missing, cannot be read, or do not fit.
        """
        device = torch.device(device)
        checked = check_precision(precision, device)
        file = cls.find(weights)
        network = cls.read(file)
        align(network)
        return cls(network, device, file, checked)

    @classmethod
    @abstractmethod
    def read(cls, file: Path) -> nn.Module:
        """Build the network with the weights of a file.

        Raises:
            WeightsError: the file cannot be read, or tensors do not fit; the message lists them.
        """

    @classmethod
    def find(cls, weights: WeightsSource | None) -> Path:
        """Find the weights file in the given place, or else in the usual ones.

        Raises:
            WeightsError: there is none.
        """
        if weights is not None:
            place = Path(weights).expanduser()
            if place.is_file():
                return place
            if not place.is_dir() and is_repository(os.fspath(weights)):
                return cls.fetch(os.fspath(weights))
            places = [place]
        else:
            places = usual_places()
        file = cls.find_in(places)
        if file is not None:
            return file
        if weights is None and cls.repository is not None:
            return cls.fetch(cls.repository)
        raise WeightsError(cls._missing_message(f"not in {', '.join(map(str, places))}"))

    @classmethod
    def find_in(cls, places: Iterable[Path]) -> Path | None:
        """The weights file in the first of these folders that holds one."""
        for place in places:
            for folder in (place / cls.name, place):
                for name in (*cls.files, *MODEL_FILES):
                    if (folder / name).is_file():
                        return folder / name
        return None

    @classmethod
    def fetch(cls, repository: str) -> Path:
        """Fetch the weights file of a Hugging Face repository, from the cache or the hub.

        Raises:
            WeightsError: the repository, or the hub, does not give it.
        """
        try:
            file = fetch_file(repository, (*cls.files, *MODEL_FILES))
            for name in cls.companions:
                fetch_file(repository, (name,))  # the cache lays it beside the weights
        except WeightsError as error:
            where = f"not in the repository {repository!r}: {error}"
            raise WeightsError(cls._missing_message(where)) from error
        return file

    @classmethod
    def _missing_message(cls, where: str) -> str:
        return (
            f"the expert {cls.name} needs its weights, {' or '.join(cls.files)} ({where}): "
            f"`mdmmt download --only {cls.name}` fetches them; or get them from {cls.published}, "
            f"and put them into {EXPERTS_FOLDER} or a folder that {EXPERTS_VARIABLE} names; or "
            f"leave {cls.name} out of `experts`"
        )


def usual_places() -> list[Path]:
    """The folders that are searched for the weights of experts, in order.

    Raises:
        WeightsError: the variable MDMMT_EXPERTS names none.
    """
    places = [EXPERTS_FOLDER, cache_folder() / EXPERTS_NAME]
    named = os.environ.get(EXPERTS_VARIABLE)
    if not named:
        return places
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"{EXPERTS_VARIABLE} is {named!r}, expected a folder")
    return [folder, *places]


def normalise(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Shift and scale colours by a mean and a deviation, which are given for colours from 0 to 1.

    Args:
        frames: RGB, [..., 3] uint8.

    Returns:
        [..., 3] float32, on the device of the frames.
    """
    colours = frames.to(torch.float32)
    colours.sub_(torch.tensor(mean, device=colours.device) * PIXEL_MAX)
    return colours.div_(torch.tensor(std, device=colours.device) * PIXEL_MAX)

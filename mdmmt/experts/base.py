"""The base class of experts: the kind of clip an expert takes, and clips -> features.

Shape notation: k clips, d width of the expert's features.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import EXPERT_PRECISIONS, ExpertPrecision
from ..errors import InputError, MissingDependency
from ..kernels import cpu
from ..media.specs import AudioSpec, FrameSpec

INT8_OF_EXPERTS = "the precision 'int8' of the experts"  # in messages
WeightsSource = str | os.PathLike[str]  # a weights file, a folder that holds it, or 'owner/name'


class Expert(ABC):
    """Turns clips of one kind into features. It has no state: equal clips give equal features."""

    name: str
    dim: int  # d
    spec: FrameSpec | AudioSpec  # the kind of clip
    clips_at_once: int = 1  # that its device computes side by side
    version: str = "1"  # to be changed when equal clips give other features; see MEDIA_VERSION too

    @classmethod
    def load(
        cls,
        weights: WeightsSource | None = None,
        device: str | torch.device = "cpu",
        precision: str = "exact",
    ) -> Expert:
        """Load the expert, ready to run. Light experts ignore all arguments."""
        return cls()

    @abstractmethod
    def features(self, clips: NDArray[Any]) -> NDArray[np.float32]:
        """Compute the features of k clips.

        Args:
            clips: of the kind `spec`: (k, clip_frames, crop, crop, 3) uint8 RGB, or (k, samples)
                float32 from -1 to 1; k >= 1.

        Returns:
            (k, d) float32.
        """


def check_precision(precision: str, device: torch.device) -> ExpertPrecision:
    """Check that experts can compute in a precision on a device.

    Raises:
        InputError: not one of `EXPERT_PRECISIONS`, or one that the device or the processor lacks.
        MissingDependency: OpenVINO, which computes in 8 bits, is not installed.
    """
    if precision == "exact":
        return "exact"
    if precision not in EXPERT_PRECISIONS:
        raise InputError(
            f"the precision of the experts is {precision!r}, "
            f"expected {' or '.join(EXPERT_PRECISIONS)}"
        )
    if precision == "float16":
        if device.type != "cuda":
            raise InputError(
                "the precision of the experts is 'float16', which needs CUDA; "
                f"on this {device.type} device, use 'exact'"
            )
        return "float16"
    if not cpu.has_onednn(device) or not cpu.has_instructions("avx512_vnni"):
        raise InputError(
            "the precision of the experts is 'int8', which needs an x86 processor with "
            f"AVX512-VNNI; on this {device.type} device, use 'exact'"
        )
    if not cpu.has_openvino(device):
        raise MissingDependency(INT8_OF_EXPERTS, extra="openvino")
    return "int8"

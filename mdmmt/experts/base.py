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

from ..media.specs import AudioSpec, FrameSpec

WeightsSource = str | os.PathLike[str]  # a weights file, a folder that holds it, or 'owner/name'


class Expert(ABC):
    """Turns clips of one kind into features. It has no state: equal clips give equal features."""

    name: str
    dim: int  # d
    spec: FrameSpec | AudioSpec  # the kind of clip
    version: str = "1"  # to be changed when equal clips give other features; see MEDIA_VERSION too

    @classmethod
    def load(
        cls, weights: WeightsSource | None = None, device: str | torch.device = "cpu"
    ) -> Expert:
        """Load the expert, ready to run. Light experts ignore the weights and the device."""
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

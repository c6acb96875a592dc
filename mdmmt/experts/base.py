"""What an expert is: what it wants of a file, and clips of that -> features.

Shape notation: k clips, d width of the expert's features.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from ..media.specs import AudioSpec, FrameSpec

# What experts found in one video, by their names: features (n, d) float32, and times (n, 2)
# float64, the seconds at which each begins and ends.
Extracted = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float64]]]

WeightsSource = str | os.PathLike[str]  # a weights file, a folder that holds it, or 'owner/name'


class Expert(ABC):
    """Turns clips of one kind into features, without state: the same clips, the same features."""

    name: str
    dim: int  # d
    spec: FrameSpec | AudioSpec
    version = "1"  # another one, when the same clips would give other features

    @classmethod
    def load(
        cls, weights: WeightsSource | None = None, device: str | torch.device = "cpu"
    ) -> Expert:
        """The expert, ready to run. One that is made by hand needs neither weights nor device."""
        return cls()

    @abstractmethod
    def features(self, clips: NDArray) -> NDArray[np.float32]:
        """Features of k clips.

        Args:
            clips: (k, clip_frames, crop, crop, 3) uint8 RGB, or (k, samples) float32 within
                -1 and 1, as `spec` says; k >= 1.

        Returns:
            (k, d) float32.
        """

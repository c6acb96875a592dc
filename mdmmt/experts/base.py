"""What an expert is: what it wants of a file, and clips of that -> features.

Shape notation: k clips, d width of the expert's features.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

# What experts found in one video, by their names: features (n, d) float32, and times (n, 2)
# float64, the seconds at which each begins and ends.
Extracted = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float64]]]


@dataclass(frozen=True)
class FrameInput:
    """Clips of square frames: the middle of the picture, at a steady rate."""

    fps: int
    short_side: int  # pixels of the picture's shorter side after scaling, even
    crop: int  # pixels of the square taken from its middle
    clip_frames: int

    @property
    def clip_s(self) -> float:
        """Seconds from one clip to the next, which is also what each of them stands for."""
        return self.clip_frames / self.fps


@dataclass(frozen=True)
class AudioInput:
    """Windows of mono sound. Window k stands for the seconds (k * hop_s, (k + 1) * hop_s)."""

    sample_rate_hz: int
    window_s: float
    hop_s: float

    @property
    def clip_s(self) -> float:
        """Seconds from one window to the next, which is also what each of them stands for."""
        return self.hop_s


class Expert(ABC):
    """Turns clips of one kind into features, without state: the same clips, the same features."""

    name: str
    dim: int  # d
    wants: FrameInput | AudioInput
    version = "1"  # another one, when the same clips would give other features

    @classmethod
    def load(
        cls, weights: str | os.PathLike[str] | None = None, device: str | torch.device = "cpu"
    ) -> Expert:
        """The expert, ready to run. One that is made by hand needs neither weights nor device."""
        return cls()

    @abstractmethod
    def features(self, clips: NDArray) -> NDArray[np.float32]:
        """Features of k clips.

        Args:
            clips: (k, clip_frames, crop, crop, 3) uint8 RGB, or (k, samples) float32 within
                -1 and 1, as `wants` says; k >= 1.

        Returns:
            (k, d) float32.
        """

"""Training: fits both towers to pairs of captions and video segments.

    config = mdmmt.training.read_recipe("recipe.yaml")
    result = mdmmt.training.train(config)

`mdmmt train` is the same on the command line. It needs the extra `train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import lazy
from .config import DatasetConfig, TrainingConfig
from .recipe import read_recipe

if TYPE_CHECKING:
    from .data import Sample, Segment
    from .loop import BatchTexts, Loss, MakeTexts, TrainingResult, train
else:  # spares the configuration torch
    __getattr__, __dir__ = lazy.names_of(
        __name__,
        {
            ".data": ("Sample", "Segment"),
            ".loop": ("BatchTexts", "Loss", "MakeTexts", "TrainingResult", "train"),
        },
    )

__all__ = [
    "BatchTexts",
    "DatasetConfig",
    "Loss",
    "MakeTexts",
    "Sample",
    "Segment",
    "TrainingConfig",
    "TrainingResult",
    "read_recipe",
    "train",
]

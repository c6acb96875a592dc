"""Pairs and settings that the tests of training share."""

from __future__ import annotations

import pytest
from caption_pairs import Pairs, write_pairs

from mdmmt.training.config import DatasetConfig, TrainingConfig


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Pairs:
    """32 pairs; not to be written to."""
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def make_config(pairs, tiny_folder, tmp_path):
    """Makes settings of a short run of the tiny model on the pairs."""

    def make(**changes) -> TrainingConfig:
        dataset = DatasetConfig(str(pairs.captions), str(pairs.features))
        settings = {
            "out": str(tmp_path / "run"),
            "datasets": (dataset,),
            "init": str(tiny_folder),
            "epochs": 2,
            "batch_size": 8,
            "learning_rate": 1e-3,
        }
        return TrainingConfig(**{**settings, **changes})

    return make

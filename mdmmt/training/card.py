"""The model card of a trained model: its data, metrics, settings and versions."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from ..evaluation.metrics import DIRECTIONS, METRICS
from ..version import VERSION
from .config import TrainingConfig, to_mapping

CARD = """\
---
library_name: mdmmt
tags: [mdmmt, video-retrieval, text-to-video, video-text-embedding]
---
# MDMMT, trained on {names}

Text and video in one embedding space, after [MDMMT](https://arxiv.org/abs/2103.10699). The training
began with {origin}.

```python
import mdmmt

model = mdmmt.load("THIS FOLDER, or owner/name on Hugging Face")
model.encode_text(["A man is playing a guitar."])
```

## Data

{data}

## Metrics

{metrics}

## Settings

```json
{settings}
```

Made by mdmmt {version} with {versions}.

## Licence

The weights belong to those who trained them and the weights that they began with.
"""


def model_card(
    config: TrainingConfig,
    origin: str,
    sizes: Sequence[tuple[int, int]],
    epoch: int,
    validation: Mapping[str, Mapping[str, Mapping[str, float]]],
    own: Mapping[str, str],
) -> str:
    """The card of the model of an epoch.

    Args:
        origin: the name of the weights that the run began with.
        sizes: segments and captions of each dataset.
        epoch: the number of the epoch, from 1.
        validation: the metrics of each dataset, in both directions.
        own: the names of the loss and of the texts that took the place of those of the settings.
    """
    rows = [
        f"| {one.data} | {segments} | {captions} | {one.weight:g} |"
        for one, (segments, captions) in zip(config.datasets, sizes, strict=True)
    ]
    data = ["| dataset | segments | captions | weight |", "|---|---|---|---|", *rows]
    return CARD.format(
        names=", ".join(one.data for one in config.datasets),
        origin=origin,
        data="\n".join(data),
        metrics=_metrics(epoch, validation),
        settings=json.dumps(_settings(config, own), indent=1),
        version=VERSION,
        versions=", ".join(f"{name} {one}" for name, one in _versions().items()),
    )


def _metrics(epoch: int, validation: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    lines = [f"After epoch {epoch}."]
    if validation:
        lines += [
            "",
            f"| validation | | {' | '.join(METRICS)} |",
            "|---" * (2 + len(METRICS)) + "|",
        ]
    for name, by_direction in validation.items():
        for direction in DIRECTIONS:
            values = (f"{by_direction[direction][metric]:.2f}" for metric in METRICS)
            lines.append(f"| {name} | {direction} | {' | '.join(values)} |")
    return "\n".join(lines)


def _settings(config: TrainingConfig, own: Mapping[str, str]) -> dict[str, Any]:
    without = ("datasets", "margin", "temperature") if "loss" in own else ("datasets",)
    settings = {name: value for name, value in to_mapping(config).items() if name not in without}
    return {**settings, **own}


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "numpy")
    return {"Python": platform.python_version(), **{name: version(name) for name in packages}}

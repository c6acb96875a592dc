"""A tower as an ONNX file, for ONNX Runtime, Triton and others.

The towers are exported as in `mdmmt.towers`, with dynamic sizes of batch and tokens. Their inputs:

- video: for each expert `features.NAME` [b, n, d] float32, `times.NAME` [b, n] float32 and
  `mask.NAME` [b, n] bool, where n may differ from expert to expert;
- text: `input_ids` [b, n] int64 and `attention_mask` [b, n] bool.

The output is `vector` [b, D] float32. See `VideoTower.forward` and `TextTower.forward`.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from ..errors import InputError, MissingDependency
from ..storage.files import atomic_file, check_folder, check_writable
from ..towers.text import TextTower
from ..towers.video import VideoTower

OUTPUT = "vector"
OPSET = 18
MIN_TORCH = "2.8"  # older exporters fix some of the dimensions of tokens
# Sizes of the traced example. They differ, or the exporter would take them for one size.
EXAMPLE_BATCH, EXAMPLE_TOKENS = 2, 3


def export_onnx(tower: VideoTower | TextTower, path: str | os.PathLike[str]) -> None:
    """Write a tower as one ONNX file, whole or not at all. Moves the tower to the CPU.

    Raises:
        MissingDependency: the packages for the export are not installed.
        InputError: PyTorch is older than 2.8, or the file cannot be written there.
    """
    if torch.__version__ < MIN_TORCH:
        raise InputError(
            f"an export needs PyTorch {MIN_TORCH} or newer, and this is {torch.__version__}"
        )
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependency("an export to ONNX", extra="onnx") from error
    path = Path(path)
    check_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_writable(path)
    names, example, shapes = _video(tower) if isinstance(tower, VideoTower) else _text(tower)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            _Flat(tower.cpu()).eval(),
            example,
            input_names=names,
            output_names=[OUTPUT],
            dynamic_shapes=(tuple(shapes),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # as from the exporter without dynamo
    with atomic_file(path) as part:
        program.save(str(part))


class _Flat(nn.Module):
    """A tower that takes its inputs as positional tensors and not as dicts."""

    def __init__(self, tower: VideoTower | TextTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, *tensors: Tensor) -> Tensor:
        if isinstance(self.tower, TextTower):
            return self.tower(*tensors)
        names = [expert.name for expert in self.tower.config.experts]
        parts = [dict(zip(names, tensors[i::3], strict=True)) for i in range(3)]
        return self.tower(*parts)


def _video(tower: VideoTower) -> tuple[list[str], tuple[Tensor, ...], list[dict[int, Any]]]:
    b = EXAMPLE_BATCH
    names, example, shapes = [], [], []
    for index, expert in enumerate(tower.config.experts):
        n = EXAMPLE_TOKENS + index
        names += [f"{part}.{expert.name}" for part in ("features", "times", "mask")]
        example += [torch.rand(b, n, expert.dim), torch.rand(b, n), torch.ones(b, n).bool()]
        shapes += [{0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for _ in range(3)]
    return names, tuple(example), shapes


def _text(tower: TextTower) -> tuple[list[str], tuple[Tensor, ...], list[dict[int, Any]]]:
    shape = EXAMPLE_BATCH, EXAMPLE_TOKENS
    shapes = [{0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for _ in range(2)]
    example = torch.ones(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.bool)
    return ["input_ids", "attention_mask"], example, shapes

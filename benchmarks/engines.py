"""Engines that run an exported graph: ONNX Runtime and OpenVINO, where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn


def export(module: nn.Module, inputs: tuple, names: list[str], axes: dict, file: Path) -> Path:
    torch.onnx.export(
        module.eval(), inputs, str(file), input_names=names, output_names=["embedding"],
        dynamic_axes=axes | {"embedding": {0: "batch"}}, opset_version=17, dynamo=False,
    )  # fmt: skip
    return file


def load_engines(graph: Path, threads: int) -> dict[str, Callable[[dict[str, np.ndarray]], object]]:
    engines = {}
    if find_spec("onnxruntime"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(graph), options)
        engines["ONNX Runtime"] = partial(session.run, None)
    if find_spec("openvino"):
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        compiled = openvino.Core().compile_model(str(graph), "CPU", settings)
        engines["OpenVINO"] = compiled.create_infer_request().infer
    return engines

"""Engines that run an exported graph: ONNX Runtime and OpenVINO, where they are installed.

With NNCF, OpenVINO runs the graph in 8 bits, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


def export(module: nn.Module, inputs: tuple, names: list[str], axes: dict, file: Path) -> Path:
    torch.onnx.export(
        module.eval(), inputs, str(file), input_names=names, output_names=["embedding"],
        dynamic_axes=axes | {"embedding": {0: "batch"}}, opset_version=17, dynamo=False,
    )  # fmt: skip
    return file


Feed = dict[str, np.ndarray]  # the inputs of a graph by their names


def load_engines(
    graph: Path, threads: int, samples: Sequence[Feed] = (), is_transformer: bool = True
) -> dict[str, Callable[[Feed], Any]]:
    """The engines that are installed, told to compute in float32.

    Args:
        samples: inputs by which NNCF calibrates 8 bits; without any, there is no such engine.
        is_transformer: calibrate as NNCF advises for transformers, else for convolutions and ReLU,
            whose inputs have no sign.
    """
    engines = {}
    if find_spec("onnxruntime"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(graph), options)
        engines["ONNX Runtime"] = partial(session.run, None)
    if find_spec("openvino"):
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # several engines may run side by side
        }
        core = openvino.Core()
        compiled = core.compile_model(str(graph), "CPU", settings)
        engines["OpenVINO"] = compiled.create_infer_request().infer
        if samples and find_spec("nncf"):
            import nncf

            rounded = nncf.quantize(
                core.read_model(str(graph)),
                nncf.Dataset(samples),
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
            )
            compiled = core.compile_model(rounded, "CPU", settings)
            engines["OpenVINO int8"] = compiled.create_infer_request().infer
    return engines

"""VIDEO's network by OpenVINO, on processors: exact, or with convolutions of 8-bit numbers.

In 8 bits, 255 stands for the greatest input of a convolution, channel by channel. Nothing is
calibrated: the norms of the network hold the mean and deviation of their outputs, and a number that
lies many deviations above the mean is cut. The sum of all bottlenecks so far stays in float32, and
so do the first bottlenecks and the projections at the start of a stage.

Shape notation: k clips, t frames, h w pixels, c channels.
"""

from __future__ import annotations

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ExpertPrecision
from ..kernels.linear import round_weight
from .ircsn_published import MEAN, STD, PublishedBottleneck, PublishedIrCSN, folded
from .pretrained import PIXEL_MAX

TELEMETRY = "openvino_telemetry"
UINT8_MAX, INT8_MAX = 255, 127
# The first bottlenecks, whose rounding all others would make larger.
EXACT_BOTTLENECKS = 2
# From the mean of a channel to the greatest number that is not cut. The output of a depth-wise
# convolution reaches further than others.
DEVIATIONS, DEPTHWISE_DEVIATIONS = 10, 16
LEAST_RANGE = 1e-12  # of a channel that is always 0, so that no number of its rounding is infinite
# The first convolution: what it sees beyond each edge, in frames and pixels, and its size and step.
BORDER, WINDOW, STRIDE = (1, 3, 3), 7, 2
networks: WeakSet[OpenVinoIrCSN] = WeakSet()  # all of this process


def _import_silently() -> Any:
    """Import OpenVINO without its telemetry, which would report the import to Intel."""
    telemetry = sys.modules.pop(TELEMETRY, None)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # counts as not installed
    try:
        return import_module("openvino")
    finally:
        del sys.modules[TELEMETRY]
        if telemetry is not None:
            sys.modules[TELEMETRY] = telemetry


openvino = _import_silently()
op = openvino.opset13


class Spread(NamedTuple):
    """The mean and the variance of numbers before their ReLU, for each channel."""

    mean: Tensor  # [c]
    variance: Tensor  # [c]

    @classmethod
    def of(cls, layer: nn.Sequential) -> Spread:
        """That of the output of a convolution and its norm."""
        norm = layer[1]
        assert isinstance(norm, nn.BatchNorm3d)
        return cls(norm.bias.detach(), norm.weight.detach().square())

    def plus(self, other: Spread) -> Spread:
        """That of the sum, if the two do not depend on each other."""
        return Spread(self.mean + other.mean, self.variance + other.variance)

    def relu(self) -> Spread:
        """About that after a ReLU, which leaves most of what lies far above the mean."""
        return Spread(self.mean.clamp_min(0), self.variance)

    def greatest(self, deviations: float) -> Tensor:
        """The mean, or 0 if that is more, plus this number of deviations: [c]"""
        greatest = self.mean.clamp_min(0) + deviations * self.variance.sqrt()
        return greatest.clamp_min(LEAST_RANGE)


class OpenVinoIrCSN(nn.Module):
    """The network without its classifier. It computes up to `clips_at_once` clips side by side."""

    def __init__(
        self, published: PublishedIrCSN, precision: ExpertPrecision, clips_at_once: int
    ) -> None:
        """precision: 'exact' or 'int8'."""
        super().__init__()
        self.rounds = precision == "int8"
        self.graph = _graph(published, self.rounds)
        self.clips_at_once = clips_at_once
        self.forget_engines()
        networks.add(self)

    def forget_engines(self) -> None:
        """Compile engines anew at their next use."""
        self.lock = Lock()
        self.engines: dict[Use, Engine] = {}

    def forward(self, clips: Tensor) -> Tensor:
        """Frames [k, t, h, w, 3] uint8 -> features [k, 2048] float32"""
        if self.rounds:
            clips = _windows(clips)
        frames, threads = clips.contiguous().numpy(), torch.get_num_threads()
        at_once = min(self.clips_at_once, threads)
        count = len(clips) // at_once * at_once
        features = []
        # The first ones share the threads evenly. All threads work on each of the others.
        for part, clips_at_once in ((frames[:count], at_once), (frames[count:], 1)):
            if len(part):
                engine = self._engine(Use(part.shape[1:], threads, clips_at_once))
                features.append(engine(part))
        return torch.from_numpy(np.concatenate(features))

    def _engine(self, use: Use) -> Engine:
        """The engine for a use. It is compiled once, and anew if the size or the threads change."""
        with self.lock:
            if any(known[:2] != use[:2] for known in self.engines):
                self.engines = {}
            if use not in self.engines:
                self.graph.reshape([1, *use.size])
                self.engines[use] = Engine(self.graph, use)
            return self.engines[use]


def _leave_engines_to_the_parent() -> None:
    """Let a forked process forget all engines without destroying one.

    An engine that is destroyed waits for its threads, and a forked process lacks them.
    """
    for network in networks:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(network.engines))
        network.forget_engines()


if hasattr(os, "register_at_fork"):  # all systems but Windows
    os.register_at_fork(after_in_child=_leave_engines_to_the_parent)


class Use(NamedTuple):
    """What an engine is compiled for."""

    size: tuple[int, ...]  # of a clip: (t, h, w, 3)
    threads: int
    clips_at_once: int


class Engine:
    """The compiled network. Several threads may call it at once."""

    def __init__(self, graph: Any, use: Use) -> None:
        """From a model of OpenVINO."""
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # some processors would compute in bfloat16
            "INFERENCE_NUM_THREADS": use.threads,
            "NUM_STREAMS": use.clips_at_once,
            "ENABLE_CPU_PINNING": False,  # else two processes could share a core
        }
        compiled = openvino.Core().compile_model(graph, "CPU", settings)
        self.requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(use.clips_at_once):
            self.requests.put(compiled.create_infer_request())
        self.workers = ThreadPoolExecutor(use.clips_at_once, "mdmmt-openvino")

    def __call__(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[k, t, h, w, 3] -> [k, 2048]"""
        return np.concatenate(list(self.workers.map(self._infer, np.split(clips, len(clips)))))

    def _infer(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        request = self.requests.get()
        try:
            features: NDArray[np.float32] = request.infer([clip], share_inputs=True)[0].copy()
            return features
        finally:
            self.requests.put(request)


def _graph(published: PublishedIrCSN, rounds: bool) -> Any:
    """OpenVINO's model of the network, from pixels [1, t, h, w, 3] uint8 to features [1, 2048].

    Args:
        rounds: whether the convolutions take 8-bit numbers. The input is then that of `_windows`.
    """
    colours = STRIDE * WINDOW * 3 if rounds else 3
    pixels = op.parameter([1, -1, -1, -1, colours], np.uint8, "clip")
    x = op.transpose(op.convert(pixels, np.float32), op.constant(np.array([0, 4, 1, 2, 3])))
    mean, std = (torch.tensor(colour) * PIXEL_MAX for colour in (MEAN, STD))
    weight, bias = folded(published.stem)
    border, stride = BORDER, (1, STRIDE, STRIDE)
    if rounds:
        weight = weight / std.view(-1, 1, 1, 1)
        bias = bias - (weight.sum(dim=(2, 3, 4)) * mean).sum(dim=1)
        weight, border, stride = _of_windows(weight), (0, 0, 0), (1, 1, 1)
        x = _round(x, torch.full((1,), float(UINT8_MAX)))
    else:
        x = op.divide(op.subtract(x, _column(mean)), _column(std))
    x = op.convolution(x, _kernel(weight, rounds), stride, border, border, (1, 1, 1))
    x = op.relu(op.add(x, _column(bias)))
    x = op.max_pool(x, (1, 2, 2), (1, 1, 1), (0, 1, 1), (0, 1, 1), (1, 3, 3)).output(0)
    spread = Spread.of(published.stem).relu()
    for number, block in enumerate(published.bottlenecks()):
        x, spread = _bottleneck(x, spread, block, rounds and number >= EXACT_BOTTLENECKS)
    x = op.reduce_mean(x, op.constant(np.array([2, 3, 4])), False)
    return openvino.Model([x.output(0)], [pixels], "VIDEO")


def _bottleneck(
    x: Any, spread: Spread, block: PublishedBottleneck, rounds: bool
) -> tuple[Any, Spread]:
    """The output of a bottleneck and its spread, from its input and the spread of that."""
    greatest: list[Tensor] | list[None] = [None] * 3
    if rounds:
        greatest = [
            spread.greatest(DEVIATIONS),
            Spread.of(block.conv1).greatest(DEVIATIONS),
            Spread.of(block.conv2).greatest(DEPTHWISE_DEVIATIONS),
        ]
    y = op.relu(_convolve(x, block.conv1, greatest[0]))
    y = op.relu(_convolve(y, block.conv2, greatest[1]))
    y = _convolve(y, block.conv3, greatest[2])
    if hasattr(block, "downsample"):
        x, spread = _convolve(x, block.downsample), Spread.of(block.downsample)
    return op.relu(op.add(x, y)), spread.plus(Spread.of(block.conv3)).relu()


def _convolve(x: Any, layer: nn.Sequential, greatest: Tensor | None = None) -> Any:
    """A convolution and its norm.

    Args:
        greatest: the input of each channel that becomes 255, [c]. None: nothing is rounded.
    """
    convolution, (weight, bias) = layer[0], folded(layer)
    assert isinstance(convolution, nn.Conv3d) and isinstance(convolution.padding, tuple)
    is_depthwise = convolution.groups > 1
    if greatest is not None:
        x = _round(x, greatest)
        channels = (-1, 1) if is_depthwise else (1, -1)
        weight = weight * (greatest / UINT8_MAX).view(*channels, 1, 1, 1)
    kernel = _kernel(weight[:, None] if is_depthwise else weight, greatest is not None)
    kind, padding = op.group_convolution if is_depthwise else op.convolution, convolution.padding
    return op.add(kind(x, kernel, convolution.stride, padding, padding, (1, 1, 1)), _column(bias))


def _round(x: Any, greatest: Tensor) -> Any:
    """Numbers from 0 to `greatest`, [c] or [1], as whole ones from 0 to 255."""
    low, high = _column(torch.zeros(1)), _column(torch.full((1,), float(UINT8_MAX)))
    return op.fake_quantize(x, low, _column(greatest), low, high, UINT8_MAX + 1)


def _kernel(weight: Tensor, rounds: bool) -> Any:
    if not rounds:
        return op.constant(weight.contiguous().numpy())
    rounded, scale = round_weight(weight, INT8_MAX)
    whole = op.convert(op.constant(rounded.contiguous().numpy()), np.float32)
    return op.multiply(whole, op.constant(scale.view(-1, *[1] * (weight.dim() - 1)).numpy()))


def _column(channels: Tensor) -> Any:
    """The constant [1, c, 1, 1, 1] of numbers [c]."""
    return op.constant(channels.view(1, -1, 1, 1, 1).contiguous().numpy())


def _windows(clips: Tensor) -> Tensor:
    """[k, t, h, w, 3] -> [k, t + 2, h / 2 + 3, w / 2, 42]

    What a row of the first convolution's window sees of two rows of pixels, side by side. The
    convolution then has many channels: with the three of a pixel, the matrices of Intel's AMX would
    be nearly empty. The mean colour around the pixels stands for the zeros around normalised ones.
    """
    k, t, h, w, _ = clips.shape
    frames, side, _ = BORDER
    mean = (torch.tensor(MEAN) * PIXEL_MAX).round().to(torch.uint8)
    pairs, across = -(-h // STRIDE) + WINDOW // STRIDE, -(-w // STRIDE)
    x = mean.repeat(k, t + 2 * frames, STRIDE * pairs, w + 2 * side, 1)
    x[:, frames:-frames, side : side + h, side : side + w] = clips
    x = x.unflatten(2, (pairs, STRIDE)).unfold(4, WINDOW, STRIDE)  # [k, t, pairs, 2, across, 3, 7]
    return x.permute(0, 1, 2, 4, 3, 6, 5).reshape(k, -1, pairs, across, STRIDE * WINDOW * 3)


def _of_windows(weight: Tensor) -> Tensor:
    """The weight of the first convolution for `_windows`: [c, 3, 3, 7, 7] -> [c, 42, 3, 4, 1]"""
    weight = F.pad(weight, (0, 0, 0, -WINDOW % STRIDE))  # whole pairs of rows
    weight = weight.unflatten(3, (-1, STRIDE))  # [c, 3, 3, 4, 2, 7]
    return weight.permute(0, 4, 5, 1, 2, 3).flatten(1, 3)[..., None]

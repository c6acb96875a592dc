"""The `VIDEO` expert: irCSN-152, trained on IG-65M, on one second of video.

Tran et al., "Video Classification with Channel-Separated Convolutional Networks", 2019, arXiv
1904.02811: a 3-D ResNet-152 whose 3 x 3 x 3 convolutions see one channel each. The weights are
those of VMZ (https://github.com/facebookresearch/VMZ), or their port to mmaction2.

`PublishedIrCSN` has the layout of the checkpoint, and only serves to check and load it. `IrCSN` is
the same function arranged for speed: each batch norm is part of its convolution, and channels lie
last in memory. It has three kinds of bottlenecks:
- `OneDnnBottleneck`, for x86 processors, adds and activates inside oneDNN's convolutions.
- `HalfBottleneck` computes in float16, for CUDA.
- `TorchBottleneck` uses torch's public operators, for exact features on CUDA and other processors,
  but for the depth-wise convolution on CUDA.
On x86 processors `OpenVinoIrCSN` takes the place of `IrCSN` where OpenVINO is installed, as it is
faster, and can compute in 8 bits.

Shape notation: k clips, t frames, h w pixels, c channels inside a bottleneck, d channels between
bottlenecks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ExpertPrecision
from ..errors import InputError, MissingDependency
from ..kernels import cpu, cuda, private
from ..kernels.convolution import PackedConvolution
from ..kernels.threads import run_in_threads
from ..kernels.transfer import upload
from ..media.specs import FrameSpec
from ..storage.checkpoint import load_file, read_tensors
from .base import INT8_OF_EXPERTS
from .ircsn_cuda import HalfBottleneck, HalfStem
from .ircsn_published import (
    LAYOUT,
    MEAN,
    STD,
    STEM_CHANNELS,
    UPDATE_COUNT,
    PublishedBottleneck,
    PublishedIrCSN,
    folded,
)
from .pretrained import PIXEL_MAX, PretrainedExpert, normalise

logger = logging.getLogger(__name__)

CLIP_FRAMES, CLIP_SIZE = 32, 224
STEM_FRAMES = 4  # that a processor computes at once
# Clips that are computed side by side. On a processor each takes a quarter of a GB. On CUDA in
# float16, 16 clips take 1.4 GB and run at 0.97 of the speed of 32.
CLIPS_ON_CPU, CLIPS_ON_CUDA, HALF_CLIPS_ON_CUDA = 4, 8, 16
CHANNELS_LAST = torch.channels_last_3d
CPU = torch.device("cpu")


class IrCSN(nn.Module):
    """The network without its classifier, for inference only."""

    def __init__(
        self,
        published: PublishedIrCSN,
        device: torch.device = CPU,
        precision: ExpertPrecision = "exact",
    ) -> None:
        """precision: 'exact', or 'float16' for CUDA."""
        super().__init__()
        self.stem = _stem(published.stem, precision)
        self.bottlenecks = nn.ModuleList(_arranged(published, device, precision))
        self.to(device)

    def forward(self, clips: Tensor) -> Tensor:
        """Frames [k, t, h, w, 3] uint8 -> features [k, 2048] float32"""
        x = self.stem(clips)
        for bottleneck in self.bottlenecks:
            x = bottleneck(x)
        return x.mean(dim=(2, 3, 4), dtype=torch.float32)


class TorchStem(nn.Module):
    """The first convolution and its pooling, in float32.

    A processor computes a few frames at a time: allocators return larger tensors to the system at
    once, and it takes long to get the memory again for each clip.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, published: nn.Sequential) -> None:
        super().__init__()
        weight, bias = folded(published)
        self.register_buffer("weight", weight.contiguous(memory_format=CHANNELS_LAST))
        self.register_buffer("bias", bias)

    def forward(self, clips: Tensor) -> Tensor:
        """[k, t, h, w, 3] uint8 -> [k, 64, t, h / 4, w / 4]"""
        step = STEM_FRAMES if clips.device.type == "cpu" else clips.shape[1]
        x = F.pad(normalise(clips, MEAN, STD), (0, 0, 0, 0, 0, 0, 1, 1))  # a frame at each end
        x = x.permute(0, 4, 1, 2, 3)
        parts = []
        for first in range(0, clips.shape[1], step):
            frames = x[:, :, first : first + step + 2]
            y = F.conv3d(frames, self.weight, self.bias, (1, 2, 2), (0, 3, 3)).relu_()
            parts.append(F.max_pool3d(y, (1, 3, 3), (1, 2, 2), (0, 1, 1)))
        return torch.cat(parts, dim=2).contiguous(memory_format=CHANNELS_LAST)


class OneDnnBottleneck(nn.Module):
    """A bottleneck of oneDNN's convolutions, in float32. It overwrites its input."""

    def __init__(self, published: PublishedBottleneck, size: Sequence[int]) -> None:
        """size: of the inputs, (t, h, w), for which the weights are laid out."""
        super().__init__()
        self.reduce = _packed(published.conv1, size)
        self.depthwise = _packed(published.conv2, size)
        self.expand = _packed(published.conv3, _strided(size, published.stride))
        self.project = None
        if hasattr(published, "downsample"):
            self.project = _packed(published.downsample, size)

    def forward(self, x: Tensor) -> Tensor:
        """[k, d_in, t, h, w] -> [k, d, t / stride, h / stride, w / stride]"""
        y = self.depthwise(self.reduce(x, "relu"), "relu")
        return self.expand.add_to(x if self.project is None else self.project(x), y)


class TorchBottleneck(nn.Module):
    """A bottleneck of public operators, but for `depthwise_relu`. It overwrites its input.

    Its input and output are each stored without a constant, which saves a pass over the output:
    where that should be relu(x + bias), it is max(x, -bias), which is less by the bias. The first
    layer of the next bottleneck makes up for it with its own bias.
    """

    reduce: Tensor
    reduce_bias: Tensor
    depthwise: Tensor
    depthwise_bias: Tensor
    expand: Tensor
    project: Tensor | None  # in place of the identity
    project_bias: Tensor
    shift: Tensor  # that the output lacks

    def __init__(self, published: PublishedBottleneck, shift: Tensor, is_last: bool) -> None:
        """shift: [d_in], which the input lacks."""
        super().__init__()
        self.is_last = is_last
        self.stride = published.stride
        reduce, reduce_bias = folded(published.conv1)
        depthwise, depthwise_bias = folded(published.conv2)
        expand, expand_bias = folded(published.conv3)
        reduce, expand = reduce.flatten(1), expand.flatten(1)  # [c, d_in], [d, c]
        self.register_buffer("reduce", reduce)
        self.register_buffer("reduce_bias", reduce_bias + reduce @ shift)
        self.register_buffer("depthwise", depthwise.flatten(1).t().contiguous())  # [27, c]
        self.register_buffer("depthwise_bias", depthwise_bias)
        self.register_buffer("expand", expand.t().contiguous())
        self.register_buffer("project", None)
        if hasattr(published, "downsample"):
            project, project_bias = folded(published.downsample)
            project = project.flatten(1)  # [d, d_in]
            self.register_buffer("project", project)
            self.register_buffer("project_bias", project_bias + project @ shift + expand_bias)
            shift = torch.zeros_like(expand_bias)
        else:
            shift = shift + expand_bias
        self.register_buffer("shift", shift)  # [d]

    def forward(self, x: Tensor) -> Tensor:
        """[k, d_in, t, h, w] -> [k, d, t / stride, h / stride, w / stride]"""
        rows = x.permute(0, 2, 3, 4, 1)
        y = F.linear(rows, self.reduce, self.reduce_bias).relu_()
        y = cuda.depthwise_relu(y, self.depthwise, self.depthwise_bias, self.stride)
        if self.project is not None:
            s = self.stride
            rows = F.linear(rows[:, ::s, ::s, ::s], self.project, self.project_bias)
        rows.view(-1, rows.shape[-1]).addmm_(y.reshape(-1, y.shape[-1]), self.expand)
        rows = torch.maximum(rows, -self.shift, out=rows)
        if self.is_last:
            rows += self.shift
        return rows.permute(0, 4, 1, 2, 3)


def _stem(published: nn.Sequential, precision: ExpertPrecision) -> nn.Module:
    if precision == "float16":
        mean, std = (torch.tensor(colour) * PIXEL_MAX for colour in (MEAN, STD))
        return HalfStem(folded(published), mean, std)
    return TorchStem(published)


def _arranged(
    published: PublishedIrCSN, device: torch.device, precision: ExpertPrecision
) -> Iterator[nn.Module]:
    """The bottlenecks for a device and a precision."""
    blocks = list(published.bottlenecks())
    if precision == "float16":
        for block in blocks:
            project = folded(block.downsample) if hasattr(block, "downsample") else None
            reduce, depthwise, expand = map(folded, (block.conv1, block.conv2, block.conv3))
            yield HalfBottleneck(reduce, depthwise, expand, project, block.stride)
        return
    if not cpu.has_onednn(device) or not private.has_packed_convolution():
        shift = torch.zeros(STEM_CHANNELS)
        for block in blocks:
            bottleneck = TorchBottleneck(block, shift, block is blocks[-1])
            shift = bottleneck.shift
            yield bottleneck
        return
    size = _strided((CLIP_FRAMES, *2 * (CLIP_SIZE,)), 1, 4)  # after the stem
    for block in blocks:
        yield OneDnnBottleneck(block, size)
        size = _strided(size, block.stride)


def _strided(size: Sequence[int], stride: int, stride_in_space: int | None = None) -> list[int]:
    """The size (t, h, w) of what a convolution with this stride makes of such a size."""
    frames, *space = size
    return [-(-frames // stride), *(-(-side // (stride_in_space or stride)) for side in space)]


def _packed(layer: nn.Sequential, size: Sequence[int]) -> PackedConvolution:
    """A convolution and its norm, as one convolution of oneDNN for inputs of this size."""
    convolution = layer[0]
    assert isinstance(convolution, nn.Conv3d)
    return PackedConvolution(convolution, *folded(layer), size)


class VideoExpert(PretrainedExpert):
    """A second of 32 frames -> a feature of the action in it."""

    name = "VIDEO"
    precisions = ("exact", "float16", "int8")
    dim = 2048
    spec = FrameSpec(fps=32, short_side=CLIP_SIZE, crop=CLIP_SIZE, clip_frames=CLIP_FRAMES)
    files = (
        "irCSN_152_ig65m_from_scratch_f125286141.pth",
        "ircsn_from_scratch_r152_ig65m_20200807-771c4135.pth",
    )
    published = (
        "https://github.com/bjuncek/VMZ/releases/tag/test_models or "
        "https://download.openmmlab.com/mmaction/recognition/csn/"
    )

    @classmethod
    def read(cls, file: Path) -> PublishedIrCSN:
        with torch.device("meta"):
            published = PublishedIrCSN()

        def tensors() -> dict[str, Tensor]:
            state = read_tensors(file, LAYOUT)
            for name in published.state_dict():
                if name.endswith(UPDATE_COUNT):
                    state.setdefault(name, torch.zeros((), dtype=torch.int64))
            return state

        load_file(published, file, tensors)
        return published

    @property
    def clips_at_once(self) -> int:  # type: ignore[override]  # nobody sets it
        if self.device.type == "cpu":
            return min(CLIPS_ON_CPU, torch.get_num_threads())
        return HALF_CLIPS_ON_CUDA if self.precision == "float16" else CLIPS_ON_CUDA

    def arrange(self, network: nn.Module) -> nn.Module:
        assert isinstance(network, PublishedIrCSN)
        if cpu.has_openvino(self.device):
            try:
                # Imported here, since it is an extra.
                from .ircsn_openvino import OpenVinoIrCSN

                return OpenVinoIrCSN(network, self.precision, CLIPS_ON_CPU)
            except (ImportError, AttributeError) as error:  # a damaged or an old one
                if self.precision == "int8":
                    raise InputError(
                        "the precision of the experts is 'int8', but OpenVINO is damaged or too "
                        f"old ({error}): pip install --force-reinstall openvino, or use 'exact'"
                    ) from error
                logger.warning("OpenVINO cannot be used, torch takes its place: %s", error)
        if self.precision == "int8":
            raise MissingDependency(INT8_OF_EXPERTS, extra="openvino")
        return IrCSN(network, self.device, self.precision)

    @torch.inference_mode()
    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Clips (k, 32, 224, 224, 3) uint8 -> (k, 2048) float32, not normalised."""
        frames, at_once = torch.from_numpy(clips), self.clips_at_once
        if self.device.type != "cpu":
            parts = [self.network(upload(part, self.device)) for part in frames.split(at_once)]
        elif isinstance(self.network, IrCSN):
            single = frames.split(1)
            count = len(single) // at_once * at_once  # of clips that workers share evenly
            parts = run_in_threads(self.network, single[:count], at_once)
            parts += map(self.network, single[count:])  # all threads work on each
        else:  # has workers of its own
            parts = [self.network(frames)]
        return torch.cat(parts).cpu().numpy()

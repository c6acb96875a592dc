"""The `VIDEO` expert: irCSN-152, trained on IG-65M, on one second of video.

Tran et al., "Video Classification with Channel-Separated Convolutional Networks", 2019, arXiv
1904.02811: a 3-D ResNet-152 whose 3 x 3 x 3 convolutions see one channel each. The weights are
those of VMZ (https://github.com/facebookresearch/VMZ), or their port to mmaction2.

`PublishedIrCSN` has the layout of the checkpoint, and only serves to check and load it. `IrCSN` is
the same function arranged for speed: each batch norm is part of its convolution, and channels lie
last in memory. It has four kinds of bottlenecks:
- `OneDnnBottleneck`, for x86 processors, adds and activates inside oneDNN's convolutions.
- `Int8Bottleneck` computes in 8 bits, but for the projection and the sum.
- `HalfBottleneck` computes in float16, for CUDA.
- `TorchBottleneck` uses torch's public operators, for exact features on CUDA and other processors,
  but for the depth-wise convolution on CUDA.

Shape notation: k clips, t frames, h w pixels, c channels inside a bottleneck, d channels between
bottlenecks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..config import ExpertPrecision
from ..kernels import cpu, cuda, private
from ..kernels.convolution import PackedConvolution
from ..kernels.linear import RANGES, SMALLEST, quantize, round_weight
from ..kernels.threads import run_in_threads
from ..kernels.transfer import upload
from ..media.specs import FrameSpec
from ..storage.checkpoint import CheckpointLayout, load_file, read_tensors
from .ircsn_cuda import HalfBottleneck, HalfStem
from .pretrained import PIXEL_MAX, PretrainedExpert, normalise

MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # of RGB from 0 to 1
STEM_CHANNELS = 64
STAGES = ((64, 3, 1), (128, 8, 2), (256, 36, 2), (512, 3, 2))  # channels c, bottlenecks, stride
EXPANSION = 4  # d / c
NORM_EPS = 1e-3
CLIP_FRAMES, CLIP_SIZE = 32, 224
STEM_FRAMES = 4  # that a processor computes at once
# Clips that are computed side by side. On a processor each takes a quarter of a GB. On CUDA in
# float16, 16 clips take 1.4 GB and run at 0.97 of the speed of 32.
CLIPS_ON_CPU, CLIPS_ON_CUDA, HALF_CLIPS_ON_CUDA = 4, 8, 16
EXACT_BOTTLENECKS = 2  # the first ones, whose rounding all others would make larger
STEPS, INT8_MAX = RANGES
UINT8_MAX = 255
DEVIATIONS = 9  # from the mean of a norm's output to the greatest that 8 bits can hold
CHANNELS_LAST = torch.channels_last_3d
CPU = torch.device("cpu")
# Of a batch norm. It has no effect in inference, and files ported from Caffe2 may lack it.
UPDATE_COUNT = ".num_batches_tracked"

LAYOUT = CheckpointLayout(
    renames=(
        (r"^module\.", ""),  # torch.nn.DataParallel
        # mmaction2
        (r"^backbone\.", ""),
        (r"^conv1\.conv\.", "stem.0."),
        (r"^conv1\.bn\.", "stem.1."),
        (r"\.(conv[123]|downsample)(\.0)?\.conv\.", r".\1.0."),
        (r"\.(conv[123]|downsample)(\.0)?\.bn\.", r".\1.1."),
    ),
    ignored=(r"^fc\.", r"^cls_head\."),  # the classifiers
)


class PublishedIrCSN(nn.Module):
    """The tensors of the checkpoint, by its names."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Conv3d(3, STEM_CHANNELS, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.stem = _with_norm(stem)
        d = STEM_CHANNELS
        for number, (c, count, stride) in enumerate(STAGES, start=1):
            stage = nn.Sequential(PublishedBottleneck(d, c, stride))
            d = EXPANSION * c
            stage.extend(PublishedBottleneck(d, c, 1) for _ in range(count - 1))
            self.add_module(f"layer{number}", stage)

    def bottlenecks(self) -> Iterator[PublishedBottleneck]:
        return (module for module in self.modules() if isinstance(module, PublishedBottleneck))


class PublishedBottleneck(nn.Module):
    """A bottleneck of the checkpoint, with a `downsample` if it changes the number of channels."""

    def __init__(self, d_in: int, c: int, stride: int) -> None:
        super().__init__()
        d = EXPANSION * c
        self.stride = stride
        self.conv1 = _with_norm(nn.Conv3d(d_in, c, 1, bias=False))
        self.conv2 = _with_norm(nn.Conv3d(c, c, 3, stride, 1, groups=c, bias=False))
        self.conv3 = _with_norm(nn.Conv3d(c, d, 1, bias=False))
        if d_in != d:
            self.downsample = _with_norm(nn.Conv3d(d_in, d, 1, stride, bias=False))


def _with_norm(convolution: nn.Conv3d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm3d(convolution.out_channels, NORM_EPS))


class IrCSN(nn.Module):
    """The network without its classifier, for inference only."""

    def __init__(
        self,
        published: PublishedIrCSN,
        device: torch.device = CPU,
        precision: ExpertPrecision = "exact",
    ) -> None:
        """precision: 'float16' is for CUDA, and 'int8' for x86 processors."""
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
        weight, bias = _folded(published)
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


class Int8Stem:
    """The first convolution in 8 bits, and its pooling.

    The pixels are 8-bit numbers already; the convolution has their mean and deviation in its weight
    and bias. It has few input channels and a stride, for which processors are slow. So three
    frames, and squares of 2 x 2 pixels, lie side by side as channels: 36 in place of 3, without a
    stride.
    """

    def __init__(self, published: nn.Sequential) -> None:
        weight, bias = _folded(published)
        weight = weight / (torch.tensor(STD) * PIXEL_MAX).view(-1, 1, 1, 1)
        mean = torch.tensor(MEAN) * PIXEL_MAX
        self.bias = bias - (weight.sum(dim=(2, 3, 4)) * mean).sum(dim=1)
        rounded, self.scale = round_weight(weight, INT8_MAX)
        # A 7 x 7 kernel is an 8 x 8 one that begins with zeros, and that one 4 x 4 of squares.
        kernel = (
            F.pad(rounded, (1, 0, 1, 0))
            .view(STEM_CHANNELS, 3, 3, 4, 2, 4, 2)
            .permute(0, 2, 4, 6, 1, 3, 5)
        )
        kernel = kernel.reshape(STEM_CHANNELS, -1, 4, 4)
        size = (STEM_FRAMES, kernel.shape[1], *2 * (CLIP_SIZE // 2 + 3,))
        self.stencil = private.Stencil((1, 1), (0, 0))
        self.weight = private.pack_int8_convolution(kernel, self.scale, self.stencil, size)
        self.border = mean.round().to(torch.uint8)

    def __call__(self, clips: Tensor) -> Tensor:
        """[1, t, h, w, 3] uint8, h and w even -> [1, 64, t, h / 4, w / 4]"""
        _, t, h, w, _ = clips.shape
        x = self.border.repeat(t + 2, h + 6, w + 6, 1)
        x[1:-1, 4:-2, 4:-2] = clips[0]
        squares = x.view(t + 2, h // 2 + 3, 2, w // 2 + 3, 2, 3).transpose(2, 3).flatten(3)
        x = torch.cat([squares[:-2], squares[1:-1], squares[2:]], dim=3).permute(0, 3, 1, 2)
        parts = []
        for frames in x.split(STEM_FRAMES):
            y = private.int8_convolution(frames, self.weight, self.scale, self.bias, self.stencil)
            parts.append(F.max_pool2d(y, 3, 2, 1).relu_())
        y = torch.cat(parts).permute(1, 0, 2, 3)[None]
        return y.contiguous(memory_format=CHANNELS_LAST)


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


class Int8Bottleneck(nn.Module):
    """A bottleneck whose convolutions, but for the projection, are of 8-bit numbers.

    It overwrites its input. Input and output, the sum of all bottlenecks so far, are in float32.
    The matrix products round their inputs by a range that they measure for each clip. The first one
    puts out 8-bit numbers with a step for each channel, which its norm gives: that holds the mean
    and deviation of the output.
    """

    def __init__(self, published: PublishedBottleneck, size: Sequence[int]) -> None:
        """size: of the inputs, (t, h, w), for which the weights are laid out."""
        super().__init__()
        first, second = _steps(published.conv1), _steps(published.conv2)
        self.reduce = Int8Product(published.conv1, steps_out=first)
        self.depthwise = Int8Depthwise(published.conv2, first, second, size)
        self.expand = Int8Product(published.conv3, steps_in=second)
        self.project = None
        if hasattr(published, "downsample"):
            self.project = _packed(published.downsample, size)

    def forward(self, x: Tensor) -> Tensor:
        """[1, d_in, t, h, w] -> [1, d, t / stride, h / stride, w / stride]"""
        rows = x.permute(0, 2, 3, 4, 1)
        rounded, step, zero = quantize(rows.flatten(0, 3), STEPS)
        y = self.reduce(rounded, step, zero).view(*rows.shape[:4], -1)
        y = self.depthwise(y.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        out = x if self.project is None else self.project(x)
        sums = out.permute(0, 2, 3, 4, 1).view(-1, out.shape[1])
        self.expand.add_to(sums, *quantize(y.flatten(0, 3), STEPS))
        return out


class Int8Product:
    """A 1 x 1 x 1 convolution and its norm, as a matrix product of 8-bit numbers."""

    def __init__(
        self,
        layer: nn.Sequential,
        steps_in: Tensor | None = None,
        steps_out: Tensor | None = None,
    ) -> None:
        """From the convolution and its norm.

        Args:
            steps_in: of the 8-bit inputs, [d_in]. None: each call states one for all.
            steps_out: of the 8-bit outputs, [d_out]. None: the output is in float32.
        """
        weight, bias = _folded(layer)
        weight = weight.flatten(1) * (1 if steps_in is None else steps_in)
        rounded, scale = round_weight(weight, INT8_MAX)
        if steps_out is not None:
            scale, bias = scale / steps_out, bias / steps_out
        self.layer = private.Int8Layer.pack(rounded, scale, bias)

    def __call__(self, x: Tensor, step: float, zero: int) -> Tensor:
        """The output and its ReLU in 8 bits: [n, d_in] uint8 -> [n, d_out] uint8

        Args:
            x: stands for (x - zero) * step.
        """
        return private.int8_linear_to_int8(x, step, zero, self.layer)

    def add_to(self, out: Tensor, x: Tensor, step: float, zero: int) -> Tensor:
        """relu(out + the output), in the memory of `out`: [n, d_in] uint8 -> [n, d_out] float32"""
        return private.add_int8_linear(out, x, step, zero, self.layer)


class Int8Depthwise:
    """A depth-wise convolution of 8-bit numbers, its norm and its ReLU."""

    def __init__(
        self, layer: nn.Sequential, steps_in: Tensor, steps_out: Tensor, size: Sequence[int]
    ) -> None:
        """From the convolution and its norm.

        Args:
            steps_in: of the 8-bit inputs, [c].
            steps_out: the units of the output, [c].
            size: of the inputs, (t, h, w), for which the weights are laid out.
        """
        convolution = layer[0]
        assert isinstance(convolution, nn.Conv3d) and isinstance(convolution.padding, tuple)
        weight, bias = _folded(layer)
        rounded, scale = round_weight(weight * steps_in.view(-1, 1, 1, 1, 1), INT8_MAX)
        self.scale, self.bias = scale / steps_out, bias / steps_out
        self.stencil = private.Stencil(convolution.stride, convolution.padding, len(weight))
        shape = (1, len(weight), *size)
        self.weight = private.pack_int8_convolution(rounded, self.scale, self.stencil, shape)

    def __call__(self, x: Tensor) -> Tensor:
        """[1, c, t, h, w] uint8 -> [1, c, t / stride, h / stride, w / stride] float32"""
        y = private.int8_convolution(x, self.weight, self.scale, self.bias, self.stencil)
        return y.relu_()


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
        reduce, reduce_bias = _folded(published.conv1)
        depthwise, depthwise_bias = _folded(published.conv2)
        expand, expand_bias = _folded(published.conv3)
        reduce, expand = reduce.flatten(1), expand.flatten(1)  # [c, d_in], [d, c]
        self.register_buffer("reduce", reduce)
        self.register_buffer("reduce_bias", reduce_bias + reduce @ shift)
        self.register_buffer("depthwise", depthwise.flatten(1).t().contiguous())  # [27, c]
        self.register_buffer("depthwise_bias", depthwise_bias)
        self.register_buffer("expand", expand.t().contiguous())
        self.register_buffer("project", None)
        if hasattr(published, "downsample"):
            project, project_bias = _folded(published.downsample)
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


def _stem(published: nn.Sequential, precision: ExpertPrecision) -> nn.Module | Int8Stem:
    if precision == "float16":
        mean, std = (torch.tensor(colour) * PIXEL_MAX for colour in (MEAN, STD))
        return HalfStem(_folded(published), mean, std)
    return (Int8Stem if precision == "int8" else TorchStem)(published)


def _arranged(
    published: PublishedIrCSN, device: torch.device, precision: ExpertPrecision
) -> Iterator[nn.Module]:
    """The bottlenecks for a device and a precision."""
    blocks = list(published.bottlenecks())
    if precision == "float16":
        for block in blocks:
            project = _folded(block.downsample) if hasattr(block, "downsample") else None
            reduce, depthwise, expand = map(_folded, (block.conv1, block.conv2, block.conv3))
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
    for number, block in enumerate(blocks):
        is_rounded = precision == "int8" and number >= EXACT_BOTTLENECKS
        yield (Int8Bottleneck if is_rounded else OneDnnBottleneck)(block, size)
        size = _strided(size, block.stride)


def _strided(size: Sequence[int], stride: int, stride_in_space: int | None = None) -> list[int]:
    """The size (t, h, w) of what a convolution with this stride makes of such a size."""
    frames, *space = size
    return [-(-frames // stride), *(-(-side // (stride_in_space or stride)) for side in space)]


def _folded(layer: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals a convolution and its norm."""
    convolution, norm = layer
    assert isinstance(convolution, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d)
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        None,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    return weight.detach(), bias.detach()


def _packed(layer: nn.Sequential, size: Sequence[int]) -> PackedConvolution:
    """A convolution and its norm, as one convolution of oneDNN for inputs of this size."""
    convolution = layer[0]
    assert isinstance(convolution, nn.Conv3d)
    return PackedConvolution(convolution, *_folded(layer), size)


def _steps(layer: nn.Sequential) -> Tensor:
    """The step of 8-bit numbers for each output of a convolution, its norm and its ReLU."""
    norm = layer[1]
    assert isinstance(norm, nn.BatchNorm3d)
    greatest = norm.bias.detach().clamp_min(0) + DEVIATIONS * norm.weight.detach().abs()
    return (greatest / UINT8_MAX).clamp_min(SMALLEST)


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
        return IrCSN(network, self.device, self.precision)

    @torch.inference_mode()
    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Clips (k, 32, 224, 224, 3) uint8 -> (k, 2048) float32, not normalised."""
        frames, at_once = torch.from_numpy(clips), self.clips_at_once
        if self.device.type == "cpu":
            single = frames.split(1)
            count = len(single) // at_once * at_once  # of clips that workers share evenly
            parts = run_in_threads(self.network, single[:count], at_once)
            parts += map(self.network, single[count:])  # all threads work on each
        else:
            parts = [self.network(upload(part, self.device)) for part in frames.split(at_once)]
        return torch.cat(parts).cpu().numpy()

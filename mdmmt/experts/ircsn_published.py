"""The checkpoint of VIDEO's network, irCSN-152: its tensors, by the names that it gives them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..storage.checkpoint import CheckpointLayout

MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # of RGB from 0 to 1
STEM_CHANNELS = 64
STAGES = ((64, 3, 1), (128, 8, 2), (256, 36, 2), (512, 3, 2))  # channels c, bottlenecks, stride
EXPANSION = 4  # d / c
NORM_EPS = 1e-3
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


def folded(layer: nn.Sequential) -> tuple[Tensor, Tensor]:
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

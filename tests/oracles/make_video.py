"""Makes `video.npz`: the output of torchvision's VideoResNet for seeded weights and frames."""

from __future__ import annotations

import numpy as np
import seeded
import torch
from torch import nn

# torchvision describes these on import, and finds them missing where its library does not load.
operators = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision.models.video.resnet import Bottleneck, VideoResNet

MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
CASES = {"second": (1, 32, 224), "short": (2, 7, 61)}  # seed, frames, pixels


class Depthwise(nn.Conv3d):
    def __init__(self, d_in, d_out, mid=None, stride=1, padding=1):
        super().__init__(d_in, d_out, 3, (stride,) * 3, padding, groups=d_in, bias=False)

    @staticmethod
    def get_downsample_stride(stride):
        return (stride,) * 3


class Stem(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(64),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )


def make() -> dict[str, np.ndarray]:
    network = VideoResNet(Bottleneck, [Depthwise] * 4, [3, 8, 36, 3], Stem)
    network.fc = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps, module.momentum = 1e-3, 0.9
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(seeded.state(0, shapes))
    network.eval()
    outputs = {}
    with torch.inference_mode():
        for case, (seed, frames, size) in CASES.items():
            colours = seeded.pictures(seed, frames, size) / 255
            clip = torch.from_numpy((colours - MEAN) / STD).float()
            outputs[case] = network(clip.permute(3, 0, 1, 2)[None])[0, ::8].numpy()
    return outputs

"""irCSN-152 written down plainly: what the fast one is compared with. VMZ's names."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def layer(d_in: int, d_out: int, size, stride=1, padding=0, groups=1, relu=True) -> nn.Sequential:
    parts = [
        nn.Conv3d(d_in, d_out, size, stride, padding, groups=groups, bias=False),
        nn.BatchNorm3d(d_out, eps=1e-3),
    ]
    return nn.Sequential(*parts, nn.ReLU()) if relu else nn.Sequential(*parts)


class Bottleneck(nn.Module):
    def __init__(self, d_in: int, c: int, stride: int) -> None:
        super().__init__()
        self.conv1 = layer(d_in, c, 1)
        self.conv2 = layer(c, c, 3, stride, 1, groups=c)
        self.conv3 = layer(c, 4 * c, 1, relu=False)
        self.downsample = layer(d_in, 4 * c, 1, stride, relu=False) if d_in != 4 * c else None

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.conv3(self.conv2(self.conv1(x))) + kept)


class PlainCSN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = layer(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3))
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        d = 64
        for stage, (c, blocks, stride) in enumerate(
            ((64, 3, 1), (128, 8, 2), (256, 36, 2), (512, 3, 2)), start=1
        ):
            parts = []
            for block in range(blocks):
                parts.append(Bottleneck(d, c, stride if block == 0 else 1))
                d = 4 * c
            setattr(self, f"layer{stage}", nn.Sequential(*parts))

    def forward(self, x: Tensor) -> Tensor:
        """[k, 3, t, h, w] -> [k, 2048]"""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.pool(self.stem(x))))))
        return x.mean(dim=(2, 3, 4))

"""irCSN-152 written down plainly: what the fast one is compared with. VMZ's names."""

from __future__ import annotations

import numpy as np
import seeded
import torch
from torch import Tensor, nn

from mdmmt.experts.ircsn import MEAN, STD, PublishedIrCSN, VideoExpert


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


def lively(clips: Tensor) -> PlainCSN:
    """A network of drawn weights whose features tell clips apart, in evaluation mode.

    Of weights that are only drawn, all clips have the same features but for 1 in 10,000. Here the
    norms have the statistics of some clips, as training would give them. Each bottleneck adds
    little, as else a network of this depth turns any rounding into other features.

    Args:
        clips: [k, 3, t, h, w] float32, normalised.
    """
    network = PlainCSN()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(seeded.state(0, shapes))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = None  # the statistics are those of all batches since the reset
            module.reset_parameters()
    for module in network.modules():
        if isinstance(module, Bottleneck):
            nn.init.uniform_(module.conv3[1].weight, 0.1, 0.3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.train()(clips)
    return network.eval()


def lively_experts(clips: np.ndarray, device: torch.device, *precisions: str) -> list[VideoExpert]:
    """Experts of the same weights, whose features tell these clips apart."""
    published = PublishedIrCSN()
    published.load_state_dict(lively(normalised(torch.from_numpy(clips[::4]))).state_dict())
    return [VideoExpert(published.eval(), device, precision=one) for one in precisions]


def normalised(frames: torch.Tensor) -> torch.Tensor:
    """[k, t, h, w, 3] uint8 -> what the plain network takes, [k, 3, t, h, w] float32"""
    colours = (frames / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return colours.permute(0, 4, 1, 2, 3)


def noise(*size: int) -> torch.Tensor:
    """Frames [k, t, h, w, 3] uint8 without any order."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))

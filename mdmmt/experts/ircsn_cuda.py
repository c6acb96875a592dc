"""The layers of irCSN-152 in float16, for CUDA; `mdmmt.experts.ircsn` puts them together.

Sums run in float32 inside an operator; all that goes between operators is float16.

Shape notation: k clips, t frames, h w pixels, c channels inside a bottleneck, d channels between
bottlenecks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels import cuda, private

HALF = torch.float16
Folded = tuple[Tensor, Tensor]  # weight and bias of a convolution with its norm


class HalfStem(nn.Module):
    """The first convolution and its pooling.

    The convolution takes pixels from 0 to 255, which float16 holds; it has their mean and deviation
    in its weight and bias. The border has the mean colour.
    """

    weight: Tensor
    bias: Tensor
    border: Tensor

    def __init__(self, folded: Folded, mean: Tensor, std: Tensor) -> None:
        """mean, std: of RGB from 0 to 255, [3]."""
        super().__init__()
        weight, bias = folded
        weight = (weight / std.view(-1, 1, 1, 1)).to(HALF)
        self.register_buffer("border", mean.to(HALF))
        # The rounded weights see exactly what the border makes of them.
        of_mean = weight.float().sum(dim=(2, 3, 4)) @ self.border.float()
        self.register_buffer("bias", bias - of_mean)
        self.register_buffer("weight", cuda.stem_weight(weight))

    def forward(self, clips: Tensor) -> Tensor:
        """[k, t, h, w, 3] uint8 -> [k, 64, t, h / 4, w / 4]"""
        _, t, h, w, _ = clips.shape
        x = cuda.stem_input(clips, self.border)
        y = cuda.max_pool(cuda.stem_relu(x, self.weight, self.bias, h, w).flatten(0, 1))
        return y.unflatten(0, (-1, t)).permute(0, 4, 1, 2, 3)


class HalfBottleneck(nn.Module):
    """A bottleneck. It overwrites its input."""

    reduce: Tensor
    reduce_bias: Tensor
    depthwise: Tensor
    depthwise_bias: Tensor
    expand: Tensor
    expand_bias: Tensor
    project: Tensor | None  # in place of the identity
    project_bias: Tensor

    def __init__(
        self, reduce: Folded, depthwise: Folded, expand: Folded, project: Folded | None, stride: int
    ) -> None:
        super().__init__()
        self.stride = stride
        for name, (weight, bias) in (
            ("reduce", reduce),
            ("depthwise", (depthwise[0].flatten(1).t(), depthwise[1])),
            ("expand", expand),
        ):
            self.register_buffer(name, weight.flatten(1).to(HALF).contiguous())
            self.register_buffer(f"{name}_bias", bias.to(HALF))
        self.register_buffer("project", None)
        if project is not None:
            self.register_buffer("project", project[0].flatten(1).to(HALF))
            self.register_buffer("project_bias", project[1].to(HALF))

    def forward(self, x: Tensor) -> Tensor:
        """[k, d_in, t, h, w] -> [k, d, t / stride, h / stride, w / stride]"""
        rows = x.permute(0, 2, 3, 4, 1)
        y = _linear_relu(rows.flatten(0, 3), self.reduce, self.reduce_bias)
        y = y.view(*rows.shape[:4], -1)
        y = cuda.depthwise_relu(y, self.depthwise, self.depthwise_bias, self.stride)
        if self.project is not None:
            s = self.stride
            rows = F.linear(rows[:, ::s, ::s, ::s], self.project, self.project_bias)
        out = rows.flatten(0, 3)
        cuda.add_linear_relu(out, y.flatten(0, 3), self.expand, self.expand_bias)
        return out.view(rows.shape).permute(0, 4, 1, 2, 3)


def _linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[n, d_in] -> [n, d_out]"""
    if private.has_linear_relu(x.device, x.dtype):
        return private.linear_relu(x, weight, bias)
    return F.linear(x, weight, bias).relu_()

"""Convolutions for inference on x86 processors, with their weights packed for oneDNN."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from . import private


class PackedConvolution:
    """A convolution in two dimensions or three, in float32, whose inputs have channels last."""

    def __init__(
        self, layer: nn.Conv2d | nn.Conv3d, weight: Tensor, bias: Tensor, size: Sequence[int]
    ) -> None:
        """From the geometry of `layer` with a weight and a bias, which may include a norm.

        Args:
            weight: of the shape of the layer's own.
            bias: [d_out].
            size: of the inputs, (h, w) or (t, h, w), for which the weight is laid out.
        """
        assert isinstance(layer.padding, tuple)
        self.bias = bias
        self.stencil = private.Stencil(layer.stride, layer.padding, layer.groups)
        self.weight = private.pack_convolution(weight, self.stencil, (1, layer.in_channels, *size))

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """[k, d_in, ...] -> [k, d_out, ...]

        Args:
            activation: 'none' or 'relu'.
        """
        return private.packed_convolution(x, self.weight, self.bias, self.stencil, activation)

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        """relu(out + the convolution of x), in the memory of `out`."""
        return private.add_packed_convolution(out, x, self.weight, self.bias, self.stencil)

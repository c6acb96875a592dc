"""Bias correction for 8-bit weights, from the mean input of each linear layer.

Rounding changes a weight matrix by R, and the output of the layer by R x. The mean of that, R
times the mean of x, can go into the bias: the bias correction of Nagel et al., Data-Free
Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2. It helps as far as
tokens resemble each other. The means come from a random sample that is always the same, not from
the embedded items, so no embedding depends on those before it.

Shape notation: b batch, n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..storage.checkpoint import align
from ..towers.transformer import Layer

MeanInputs = Mapping[nn.Linear, Tensor]  # of each linear layer, [d_in]


@torch.no_grad()
def record_mean_inputs(layer: Layer, x: Tensor) -> tuple[Tensor, MeanInputs]:
    """Run a layer, and take the mean input of each linear layer in it.

    The layer's weights are aligned before, since the sums of a mean, too, depend on where they
    begin in memory.

    Args:
        x: [b, n, d], sequences without padding.

    Returns:
        The output of the layer, [b, n, d], and the means.
    """
    align(layer)
    means: dict[nn.Linear, Tensor] = {}

    def record(linear: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(linear, nn.Linear)
        means[linear] = inputs[0].flatten(0, 1).mean(dim=0)

    linears = [part for part in layer.modules() if isinstance(part, nn.Linear)]
    hooks = [linear.register_forward_pre_hook(record) for linear in linears]
    try:
        with torch.autocast("cpu", enabled=False):  # whatever the caller has enabled
            return layer(x, torch.ones(x.shape[:2], dtype=torch.bool, device="cpu")), means
    finally:
        for hook in hooks:
            hook.remove()

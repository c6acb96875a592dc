"""The mean of what linear layers are given, for rounded weights not to shift what they put out.

Rounding changes a weight matrix by R, and so what a layer puts out by R x, of which the mean, R
times the mean of x, can go into the bias: the bias correction of Nagel et al., Data-Free
Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2. It helps as far as
tokens have something in common. The means are those of a sample that is drawn, always the same, and
not of what is embedded: so an embedding does not depend on what came before it.

Shape notation: b batch, n tokens, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..storage.checkpoint import align
from ..towers.transformer import Layer


@torch.no_grad()
def observe(layer: Layer, x: Tensor) -> Tensor:
    """Give each linear layer the mean of its inputs as `mean_input` [d_in].

    The layer's weights are aligned before, as a mean's sums, too, depend on where they begin.

    Args:
        x: [b, n, d], sequences without padding.

    Returns:
        What the layer puts out, [b, n, d].
    """
    align(layer)
    linears = [part for part in layer.modules() if isinstance(part, nn.Linear)]
    hooks = [linear.register_forward_pre_hook(_keep_mean) for linear in linears]
    try:
        with torch.autocast("cpu", enabled=False):  # whatever the caller is within
            return layer(x, torch.ones(x.shape[:2], dtype=torch.bool, device="cpu"))
    finally:
        for hook in hooks:
            hook.remove()


def _keep_mean(linear: nn.Linear, inputs: tuple[Tensor]) -> None:
    linear.mean_input = inputs[0].flatten(0, 1).mean(dim=0)

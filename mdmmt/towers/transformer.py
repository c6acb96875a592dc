"""The post-norm transformer encoder of BERT (Devlin et al., 2018), used by both towers.

Shape notation: b batch, n tokens, h heads, d width.

Sub-modules carry the names of the checkpoints. The two lineages spell one of them differently,
`layer_norm` in MMT and `LayerNorm` in Hugging Face's BERT, hence the `norm` argument.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import EncoderConfig
from ..kernels.private import ACTIVATION


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention, before its output projection."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.heads = config.num_attention_heads
        self.dropout_p = config.attention_probs_dropout_prob
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d)
        self.value = nn.Linear(d, d)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [b, n, d], mask [b, n] bool, true for tokens that may be attended to -> [b, n, d]"""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [b, h, n, d/h]
            for layer in (self.query, self.key, self.value)
        )
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask[:, None, None, :],
            dropout_p=self.dropout_p if self.training else 0.0,
        )
        return out.transpose(1, 2).flatten(2)


class AddNorm(nn.Module):
    """Linear, dropout, residual, LayerNorm: how both halves of a layer end."""

    def __init__(self, d_in: int, config: EncoderConfig, norm: str) -> None:
        super().__init__()
        self.dense = nn.Linear(d_in, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.norm_name = norm
        self.add_module(norm, nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """x [b, n, d_in], residual [b, n, d] -> [b, n, d]"""
        norm = self.get_submodule(self.norm_name)
        return norm(residual + self.dropout(self.dense(x)))


class Attention(nn.Module):
    """The first half of a layer."""

    def __init__(self, config: EncoderConfig, norm: str) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = AddNorm(config.hidden_size, config, norm)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [b, n, d], mask [b, n] -> [b, n, d]"""
        return self.output(self.self(x, mask), x)


class Intermediate(nn.Module):
    """The widening part of the second half of a layer."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATION[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """[b, n, d] -> [b, n, intermediate]"""
        return self.activation(self.dense(x))


class Layer(nn.Module):
    """Attention, then two linear layers, each half ended by `AddNorm`."""

    def __init__(self, config: EncoderConfig, norm: str) -> None:
        super().__init__()
        self.attention = Attention(config, norm)
        self.intermediate = Intermediate(config)
        self.output = AddNorm(config.intermediate_size, config, norm)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [b, n, d], mask [b, n] -> [b, n, d]"""
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: EncoderConfig, norm: str) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, norm) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [b, n, d], mask [b, n] bool -> [b, n, d]"""
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Pooler(nn.Module):
    """Weights that every checkpoint carries and no embedding uses: they are only kept."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)


@torch.no_grad()
def init_weights(module: nn.Module, std: float) -> None:
    """BERT's initialisation: N(0, std) for matrices and tables, zero for biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            part.weight.normal_(0.0, std)
        if isinstance(part, nn.Linear):
            part.bias.zero_()

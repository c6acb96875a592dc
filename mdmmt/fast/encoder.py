"""The transformer encoder of `mdmmt.towers.transformer` over packed tokens.

The sequences of a batch follow one another without padding. All linear layers work on all tokens at
once; only attention has to know where a sequence ends. The last layer computes only the rows that
leave the encoder, and no keys and values.

Each class has a `consume`, which moves the weights out of the module that it is made of, so that
there never are two copies of more than one layer.

Shape notation: t tokens of all sequences together, r output rows, h heads, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ..config import EncoderConfig
from ..kernels.linear import FastLinear, take_weight
from ..storage.checkpoint import aligned
from ..towers.transformer import AddNorm, Encoder, Layer, SelfAttention
from .attention import Attention, SequenceGroup
from .calibration import MeanInputs, record_mean_inputs
from .precision import ConsumeLinear, LayerPlan, MakeAttention


class FastEncoder:
    """The stack of layers, for inference."""

    def __init__(
        self,
        layers: Sequence[FastLayer],
        last: LastLayer,
        attention: MakeAttention,
        residual_dtype: torch.dtype,
    ) -> None:
        """From all layers but the last, and the last."""
        self.layers, self.last = layers, last
        self.attention, self.residual_dtype = attention, residual_dtype

    @classmethod
    def consume(
        cls,
        encoder: Encoder,
        config: EncoderConfig,
        plan: LayerPlan,
        compiled: bool,
        sample: Tensor | None,
    ) -> FastEncoder:
        """Move the weights out of `encoder`, which has no layers afterwards.

        Args:
            sample: sequences [b, n, d] to calibrate with; None where the plan does not need it.
        """
        layers: list[FastLayer] = []
        # The errors of the first layer go through all others.
        full = plan.full_precision
        first_plan = replace(plan, value=full, attention_output=full)
        means: MeanInputs = {}
        while len(encoder.layer) > 1:
            layer = cast(Layer, encoder.layer.pop(0))
            if sample is not None:
                sample, means = record_mean_inputs(layer, sample)
            layer_plan = plan if layers else first_plan
            layers.append(FastLayer.consume(layer, config, layer_plan, compiled, means))
        last = LastLayer.consume(cast(Layer, encoder.layer.pop(0)), config, plan, compiled)
        return cls(layers, last, plan.attention, plan.residual_dtype)

    def __call__(self, x: Tensor, groups: Sequence[SequenceGroup], output_rows: Tensor) -> Tensor:
        """Encode packed sequences.

        Args:
            x: [t, d].
            groups: the sequences that x consists of.
            output_rows: [r] int64, as many rows of each sequence, in the order of the sequences.

        Returns:
            [r, d] float32.
        """
        x = x.to(self.residual_dtype)
        attend = self.attention(groups, x.device)
        for layer in self.layers:
            x = layer(x, attend)
        return self.last(x, attend, output_rows).float()


class FastLayer:
    """`mdmmt.towers.transformer.Layer` for inference."""

    def __init__(self, attention: FastAttention, feed_forward: FeedForward) -> None:
        self.attention, self.feed_forward = attention, feed_forward

    @classmethod
    def consume(
        cls,
        layer: Layer,
        config: EncoderConfig,
        plan: LayerPlan,
        compiled: bool,
        means: MeanInputs,
    ) -> FastLayer:
        """Move the weights out of `layer`."""
        attention = FastAttention.consume(layer.attention.self, plan, means)
        return cls(attention, FeedForward.consume(layer, config, plan, compiled, means))

    def __call__(self, x: Tensor, attend: Attention) -> Tensor:
        """[t, d] -> [t, d]"""
        return self.feed_forward(self.attention(x, attend), x)


class LastLayer:
    """The same for a few rows of each sequence."""

    def __init__(self, attention: FoldedAttention, feed_forward: FeedForward) -> None:
        self.attention, self.feed_forward = attention, feed_forward

    @classmethod
    def consume(
        cls, layer: Layer, config: EncoderConfig, plan: LayerPlan, compiled: bool
    ) -> LastLayer:
        """Move the weights out of `layer`."""
        attention = FoldedAttention.consume(layer.attention.self, plan)
        full = plan.full_precision
        plan = replace(plan, attention_output=full, feed_forward=full)
        return cls(attention, FeedForward.consume(layer, config, plan, compiled, {}))

    def __call__(self, x: Tensor, attend: Attention, output_rows: Tensor) -> Tensor:
        """x [t, d], output_rows [r] -> [r, d]"""
        rows = x[output_rows]
        return self.feed_forward(self.attention(rows, x, attend), rows)


class FastAttention:
    """`mdmmt.towers.transformer.SelfAttention` for inference.

    Query, key and value are one product where their layers are made alike.
    """

    def __init__(self, projections: Sequence[FastLinear], heads: int, width: int) -> None:
        """From the layers that give the queries, keys and values together, each of `width`."""
        self.projections, self.heads, self.width = projections, heads, width

    @classmethod
    def consume(cls, attention: SelfAttention, plan: LayerPlan, means: MeanInputs) -> FastAttention:
        """Move the weights out of `attention`."""
        query, key, value = attention.query, attention.key, attention.value
        mean_input = means.get(query)  # the three have one input
        if plan.query_key is plan.value:
            projections = [plan.value(concat_linears(query, key, value), mean_input)]
        else:
            projections = [
                plan.query_key(concat_linears(query, key), mean_input),
                plan.value(value, mean_input),
            ]
        return cls(projections, attention.heads, query.out_features)

    def __call__(self, x: Tensor, attend: Attention) -> Tensor:
        """[t, d] -> [t, d]"""
        q, k, v = (
            part
            for projection in self.projections
            for part in projection(x).split(self.width, dim=1)
        )
        return attend(q, k, v, self.heads)


class FoldedAttention:
    """`SelfAttention` for few rows, without the keys and values of all tokens.

    A query times a key, q (K x + k), is (q K) x and a number that is the same for all tokens, which
    softmax ignores. The result, the sum of p (V x + v) over the tokens, is V times the sum of p x,
    and v. So the two matrices go to the few rows, and the rows attend to the tokens as they are.
    """

    def __init__(
        self, query: FastLinear, key: Tensor, value: Tensor, bias: Tensor, heads: int
    ) -> None:
        """From key and value [h, d/h, d], the weights by heads, and the bias [d] of the value."""
        self.query, self.key, self.value, self.bias = query, key, value, bias
        self.heads = heads

    @classmethod
    def consume(cls, attention: SelfAttention, plan: LayerPlan) -> FoldedAttention:
        """Move the weights out of `attention`."""
        query = plan.full_precision(attention.query, None)
        by_head = (attention.heads, -1, attention.key.in_features)
        key, value, bias = (
            aligned(part.detach().to(plan.residual_dtype))
            for part in (attention.key.weight, attention.value.weight, attention.value.bias)
        )
        return cls(query, key.view(by_head), value.view(by_head), bias, attention.heads)

    def __call__(self, rows: Tensor, x: Tensor, attend: Attention) -> Tensor:
        """rows [r, d], as many of each sequence, which attend to x [t, d] -> [r, d]"""
        r, d = rows.shape
        q = self.query(rows).to(x.dtype).view(r, self.heads, -1).transpose(0, 1)  # [h, r, d/h]
        scale = q.shape[-1] ** -0.5
        q = torch.bmm(q, self.key).transpose(0, 1).reshape(-1, d)  # [r * h, d]
        queries_per_sequence = len(q) // attend.sequences
        out = attend(q, x, x, 1, queries_per_sequence, scale)
        out = out.view(r, self.heads, d).transpose(0, 1)
        out = torch.bmm(out, self.value.transpose(1, 2))  # [h, r, d/h]
        return out.transpose(0, 1).reshape(r, d) + self.bias


class FeedForward:
    """The part of a layer from the output layer of its attention on."""

    def __init__(
        self,
        attention_out: FastAddNorm,
        up: FastLinear,
        down: FastAddNorm,
        activation: str,
        compiled: bool,
    ) -> None:
        """From the layer to the width of the encoder, and those to the wider one and back."""
        self.attention_out, self.up, self.down = attention_out, up, down
        self.activation = activation
        # All layers share a graph for any number of rows, and one for a single row.
        self.compute = torch.compile(self._compute, dynamic=True) if compiled else self._compute

    @classmethod
    def consume(
        cls,
        layer: Layer,
        config: EncoderConfig,
        plan: LayerPlan,
        compiled: bool,
        means: MeanInputs,
    ) -> FeedForward:
        """Move the weights out of `layer`, all but those of its `SelfAttention`."""
        dense = layer.intermediate.dense
        dtype = plan.residual_dtype
        return cls(
            FastAddNorm.consume(layer.attention.output, plan.attention_output, dtype, means),
            plan.feed_forward(dense, means.get(dense)),
            FastAddNorm.consume(layer.output, plan.feed_forward, dtype, means),
            config.hidden_act,
            compiled,
        )

    def __call__(self, attended: Tensor, residual: Tensor) -> Tensor:
        """The output of attention [r, d], and its input [r, d] -> [r, d]"""
        # Of one dtype in every layer, as each dtype would make a graph of its own.
        return self.compute(attended.to(self.attention_out.dense.dtype), residual)

    def _compute(self, attended: Tensor, residual: Tensor) -> Tensor:
        residual = self.attention_out(attended, residual)
        return self.down(self.up(residual, self.activation), residual)


class FastAddNorm:
    """`mdmmt.towers.transformer.AddNorm` for inference."""

    def __init__(self, dense: FastLinear, norm: nn.Module) -> None:
        self.dense, self.norm = dense, norm

    @classmethod
    def consume(
        cls, part: AddNorm, linear: ConsumeLinear, dtype: torch.dtype, means: MeanInputs
    ) -> FastAddNorm:
        """Move the weights out of `part`.

        Args:
            linear: makes the linear layer.
            dtype: of the norm.
        """
        dense = linear(part.dense, means.get(part.dense))
        return cls(dense, part.get_submodule(part.norm_name).to(dtype))

    def __call__(self, x: Tensor, residual: Tensor) -> Tensor:
        """x [t, d_in], residual [t, d] -> [t, d]"""
        y = self.dense(x)
        return self.norm(y.to(residual.dtype).add_(residual))


def concat_linears(*layers: nn.Linear) -> nn.Linear:
    """One layer with the outputs of several side by side; moves their weights out of them."""
    width = sum(layer.out_features for layer in layers)
    joined = nn.Linear(layers[0].in_features, width, device="meta")
    joined.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
    joined.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))
    for layer in layers:
        take_weight(layer)
    return joined

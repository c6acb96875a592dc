"""The transformer encoder of `mdmmt.towers.transformer` over packed tokens.

The sequences of a batch lie one behind the other, none of them padded. All linear layers work on
all tokens at once; only attention has to know where a sequence ends. The last layer computes just
the rows that are read, and no keys and values.

Shape notation: t tokens of all sequences together, r rows that are read, h heads, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..config import EncoderConfig
from ..storage.checkpoint import aligned
from ..towers.transformer import AddNorm, Encoder, Layer, SelfAttention
from .attention import Attend, Run
from .calibration import observe
from .linear import Dense, Kinds


class FastEncoder:
    """The stack of layers, for inference."""

    def __init__(
        self,
        encoder: Encoder,
        config: EncoderConfig,
        kinds: Kinds,
        compiled: bool,
        sample: Callable[[], Tensor],
    ) -> None:
        """Empties `encoder`, so that there never are two copies of more than one layer.

        Args:
            sample: draws sequences [b, n, d], for kinds that are calibrated.
        """
        self.carried, self.attention = kinds.carried, kinds.attention
        self.layers = []
        # The first layer's errors go through all others.
        first = kinds._replace(values=kinds.fine, mixed=kinds.fine)
        x = sample() if kinds.calibrated else None
        while len(encoder.layer) > 1:
            layer = encoder.layer.pop(0)
            if x is not None:
                x = observe(layer, x)
            made_of = kinds if self.layers else first
            self.layers.append(FastLayer(layer, config, made_of, compiled))
        self.last = LastLayer(encoder.layer.pop(0), config, kinds, compiled)

    def __call__(self, x: Tensor, runs: Sequence[Run], read: Tensor) -> Tensor:
        """Encode packed sequences.

        Args:
            x: [t, d].
            runs: what x consists of.
            read: [r] int64, the rows wanted, as many of each sequence, in the sequences' order.

        Returns:
            [r, d] float32.
        """
        x = x.to(self.carried)
        attend = self.attention(runs, x.device)
        for layer in self.layers:
            x = layer(x, attend)
        return self.last(x, attend, read).float()


class FastLayer:
    """`mdmmt.towers.transformer.Layer` for inference."""

    def __init__(self, layer: Layer, config: EncoderConfig, kinds: Kinds, compiled: bool) -> None:
        self.attention = FastAttention(layer.attention.self, kinds)
        self.finish = Finish(layer, config, kinds, compiled)

    def __call__(self, x: Tensor, attend: Attend) -> Tensor:
        """[t, d] -> [t, d]"""
        return self.finish(self.attention(x, attend), x)


class LastLayer:
    """The same for a few rows of each sequence."""

    def __init__(self, layer: Layer, config: EncoderConfig, kinds: Kinds, compiled: bool) -> None:
        self.attention = FoldedAttention(layer.attention.self, kinds)
        kinds = kinds._replace(mixed=kinds.fine, wide=kinds.fine)
        self.finish = Finish(layer, config, kinds, compiled)

    def __call__(self, x: Tensor, attend: Attend, read: Tensor) -> Tensor:
        """x [t, d], read [r] rows of it -> [r, d]"""
        rows = x[read]
        return self.finish(self.attention(rows, x, attend), rows)


class FastAttention:
    """`mdmmt.towers.transformer.SelfAttention` for inference: layers made alike are one product."""

    def __init__(self, attention: SelfAttention, kinds: Kinds) -> None:
        self.heads = attention.heads
        query, key, value = attention.query, attention.key, attention.value
        self.width = query.out_features
        if kinds.queries is kinds.values:
            self.parts = [kinds.values(beside(query, key, value))]
        else:
            self.parts = [kinds.queries(beside(query, key)), kinds.values(value)]

    def __call__(self, x: Tensor, attend: Attend) -> Tensor:
        """[t, d] -> [t, d]"""
        q, k, v = (one for part in self.parts for one in part(x).split(self.width, dim=1))
        return attend(q, k, v, self.heads)


class FoldedAttention:
    """`SelfAttention` for few rows, without the keys and values of all tokens.

    A query times a key, q (K x + k), is (q K) x and a number that is the same for all tokens, which
    softmax ignores; and what is seen, the sum of p (V x + v) over the tokens, is V times the sum of
    p x, and v. So the two matrices go to the few rows, and tokens are attended to as they are.
    """

    def __init__(self, attention: SelfAttention, kinds: Kinds) -> None:
        self.heads = attention.heads
        self.query = kinds.fine(attention.query)
        by_head = (self.heads, -1, attention.key.in_features)
        # [h, d/h, d]
        self.key = aligned(attention.key.weight.detach().to(kinds.carried)).view(by_head)
        self.value = aligned(attention.value.weight.detach().to(kinds.carried)).view(by_head)
        self.bias = attention.value.bias.detach().to(kinds.carried)

    def __call__(self, rows: Tensor, x: Tensor, attend: Attend) -> Tensor:
        """rows [r, d], as many of each sequence, which attend to x [t, d] -> [r, d]"""
        r, d = rows.shape
        q = self.query(rows).to(x.dtype).view(r, self.heads, -1).transpose(0, 1)  # [h, r, d/h]
        scale = q.shape[-1] ** -0.5
        q = torch.bmm(q, self.key).transpose(0, 1).reshape(-1, d)  # [r * h, d]
        seen = attend(q, x, x, heads=1, rows=len(q) // attend.sequences, scale=scale)
        seen = seen.view(r, self.heads, d).transpose(0, 1)
        seen = torch.bmm(seen, self.value.transpose(1, 2))  # [h, r, d/h]
        return seen.transpose(0, 1).reshape(r, d) + self.bias


class Finish:
    """What a layer does after its attention."""

    def __init__(self, layer: Layer, config: EncoderConfig, kinds: Kinds, compiled: bool) -> None:
        self.activation = config.hidden_act
        self.mix = FastAddNorm(layer.attention.output, kinds.mixed, kinds.carried)
        self.widen = kinds.wide(layer.intermediate.dense)
        self.narrow = FastAddNorm(layer.output, kinds.wide, kinds.carried)
        # All layers share a graph for any number of rows, and one for a single row.
        if compiled:
            self.finish = torch.compile(self.finish, dynamic=True)

    def __call__(self, seen: Tensor, rows: Tensor) -> Tensor:
        """What attention has seen [r, d], and the rows [r, d] that did -> [r, d]"""
        # Of one kind from every layer, as each kind would make a graph of its own.
        return self.finish(seen.to(self.mix.dense.dtype), rows)

    def finish(self, seen: Tensor, rows: Tensor) -> Tensor:
        """The same, which is what is compiled."""
        rows = self.mix(seen, rows)
        return self.narrow(self.widen(rows, self.activation), rows)


class FastAddNorm:
    """`mdmmt.towers.transformer.AddNorm` for inference."""

    def __init__(
        self, part: AddNorm, dense: Callable[[nn.Linear], Dense], carried: torch.dtype
    ) -> None:
        self.dense = dense(part.dense)
        self.norm = part.get_submodule(part.norm_name).to(carried)

    def __call__(self, x: Tensor, residual: Tensor) -> Tensor:
        """x [t, d_in], which it may overwrite, residual [t, d] -> [t, d]"""
        return self.norm(self.dense(x, spent=True).to(residual.dtype).add_(residual))


def beside(*layers: nn.Linear) -> nn.Linear:
    """One layer that puts out what several do, side by side; it takes their weights over."""
    width = sum(layer.out_features for layer in layers)
    joined = nn.Linear(layers[0].in_features, width, device="meta")
    joined.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
    joined.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))
    joined.mean_input = getattr(layers[0], "mean_input", None)  # they have one input
    for layer in layers:
        layer.weight = None
    return joined

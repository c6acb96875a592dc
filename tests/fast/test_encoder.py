"""The encoder over packed tokens."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from fast_towers import CPU, TINY_COSINE, is_close, make_video, min_cosine, run_plain_video
from tiny import TINY
from torch import nn
from torch._dynamo.utils import counters

from mdmmt.fast import FastTextTower, FastVideoTower, towers
from mdmmt.fast.attention import GroupedAttention, SequenceGroup
from mdmmt.fast.encoder import FastEncoder, concat_linears
from mdmmt.fast.precision import plan_alike, plan_layers
from mdmmt.kernels.linear import TorchLinear, TorchLinearBFloat16


def test_encoder_computes_the_chosen_rows_of_packed_sequences(tiny):
    encoder = tiny.ours_video.vid_bert.encoder
    short, long = torch.randn(3, 24), torch.randn(7, 24)
    with torch.no_grad():
        wanted = [
            encoder(x[None], torch.ones(1, len(x), dtype=torch.bool))[0, [0, 2]]
            for x in (short, long)
        ]
    config = TINY.video.encoder
    plan = plan_layers("exact", CPU)
    fast = FastEncoder.consume(copy.deepcopy(encoder), config, plan, False, None)
    with torch.inference_mode():
        groups = [SequenceGroup(1, 3, 0), SequenceGroup(1, 7, 0)]
        result = fast(torch.cat([short, long]), groups, torch.tensor([0, 2, 3, 5]))
    assert is_close(result, torch.cat(wanted))


def test_concat_linears_puts_outputs_side_by_side():
    layers = [nn.Linear(5, 3), nn.Linear(5, 3), nn.Linear(5, 2)]
    x = torch.randn(4, 5)
    wanted = torch.cat([layer(x) for layer in layers], dim=1)
    assert torch.allclose(concat_linears(*layers)(x), wanted, atol=1e-6)
    assert all(layer.weight is None for layer in layers)


def test_consume_empties_the_tower(tiny):
    """There are never two copies of the linear layers."""
    video, text = copy.deepcopy(tiny.ours_video), copy.deepcopy(tiny.ours_text)
    FastVideoTower.consume(video)
    assert all(reduce.fc.weight is None for reduce in video.video_dim_reduce.values())
    FastTextTower.consume(text)
    assert len(video.vid_bert.encoder.layer) == len(text.txt_bert.encoder.layer) == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles C++, and there is no g++ here")
@pytest.mark.skipif(torch.__version__ < "2.8", reason="older ones compile each layer by itself")
@pytest.mark.parametrize("linear", [TorchLinear, TorchLinearBFloat16])
def test_compiled_layers_share_one_graph(tiny, monkeypatch, linear):
    """On a processor, the layers that CUDA has compile to the same graph."""
    plan = plan_alike(linear.consume, torch.float32, GroupedAttention)
    monkeypatch.setattr(towers, "plan_layers", lambda *_, **__: plan)
    counters.clear()
    fast = FastVideoTower.consume(copy.deepcopy(tiny.ours_video), compiled=True)
    for shapes in ([(2, 0, 3), (6, 5, 1)], [(1, 1, 1)], [(6, 6, 6)] * 3):
        videos = [make_video(shape, i) for i, shape in enumerate(shapes)]
        result, wanted = fast(videos), run_plain_video(tiny.ours_video, videos)
        assert min_cosine(result, wanted, 24) > TINY_COSINE["bfloat16"]
        assert linear is TorchLinearBFloat16 or is_close(result, wanted)
    assert counters["stats"]["unique_graphs"] == 1  # for all layers and sizes

"""Bias correction for 8-bit weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from fast_towers import CPU, make_video, on_x86
from torch.nn import functional as F

from mdmmt.fast import FastTextTower, FastVideoTower, towers
from mdmmt.fast.calibration import record_mean_inputs
from mdmmt.fast.precision import plan_layers


def test_record_mean_inputs_takes_the_mean_of_each_linear_layer(tiny):
    layer = copy.deepcopy(tiny.ours_video.vid_bert.encoder.layer[0])
    x = torch.randn(2, 5, 24)
    output, means = record_mean_inputs(layer, x)
    with torch.no_grad():
        everything = torch.ones(2, 5, dtype=torch.bool)
        assert torch.equal(output, layer(x, everything))
        attended = layer.attention(x, everything)
        narrow = layer.intermediate(attended).mean(dim=(0, 1))
    for linear in (layer.attention.self.query, layer.attention.self.value):
        assert torch.allclose(means[linear], x.mean(dim=(0, 1)), atol=1e-6)
    wide = layer.intermediate.dense
    assert torch.allclose(means[wide], attended.mean(dim=(0, 1)), atol=1e-6)
    assert torch.allclose(means[layer.output.dense], narrow, atol=1e-6)
    before = dict(means)
    layer(x + 1, everything)
    assert all(means[linear] is mean for linear, mean in before.items())  # no hook is left


@on_x86
def test_consume_calibrates_int8_towers_always_alike(tiny):
    """The sample is always the same, and embedding does not change it."""
    videos, ids = [make_video((2, 0, 3)), make_video((6, 5, 1))], [[1, 2, 3], [7]]
    for kind, tower, items, others in (
        (FastVideoTower, tiny.ours_video, videos, [make_video((1, 1, 1), 9)]),
        (FastTextTower, tiny.ours_text, ids, [[9] * 30]),
    ):
        first = kind.consume(copy.deepcopy(tower), "int8")
        with torch.autocast("cpu", torch.bfloat16):
            second = kind.consume(copy.deepcopy(tower), "int8")
        second(others)
        assert torch.equal(first(items), second(items))


@on_x86
@pytest.mark.slow
def test_calibration_brings_int8_nearer(full, full_text):
    ids = [[7 * n + i for i in range(n)] for n in range(3, 19)]
    wanted = full_text("exact")(ids)
    plan = plan_layers("int8", CPU, quantize_values=True)
    assert plan.needs_calibration
    without = replace(plan, needs_calibration=False)
    with patch.object(towers, "plan_layers", lambda *_, **__: without):
        uncalibrated = FastTextTower.consume(copy.deepcopy(full.ours_text), "int8")
    far, near = (
        F.cosine_similarity(tower(ids), wanted).mean().item()
        for tower in (uncalibrated, full_text("int8"))
    )
    assert 1 - near < 0.6 * (1 - far)

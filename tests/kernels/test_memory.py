"""The memory of a process stays flat, however many numbers of tokens it has met."""

import subprocess
import sys

import pytest
import torch
from fast_towers import on_x86

from mdmmt.kernels import cpu, private
from mdmmt.kernels.linear import Int8Linear, OneDnnLinear, OneDnnLinearBFloat16

CALLS, GROWTH_MB = 150, 200  # without padding it is 350
EMBED = f"""
import numpy as np, mdmmt
from mdmmt.features import ExpertFeatures
def resident_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) // 1024
model, rng = mdmmt.load("sample", "cpu"), np.random.default_rng(0)
def video():
    counts = {{expert: rng.integers(1, expert.max_tokens + 1) for expert in experts}}
    return {{
        expert.name: ExpertFeatures(np.ones((n, expert.dim)), np.arange(n)[:, None] + [0, 1])
        for expert, n in counts.items()
    }}
experts = model.config.video.experts
tokens = [model.read_tokens(video()) for _ in range(200)]
for _ in range(3):
    for _ in range({CALLS}):
        model.encode_tokens([tokens[i] for i in rng.integers(0, 200, rng.integers(1, 17))])
    print(resident_mb())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_stays_flat_over_ragged_calls():
    output = subprocess.check_output([sys.executable, "-W", "ignore", "-c", EMBED], text=True)
    first_mb, _, last_mb = map(int, output.split())
    assert last_mb - first_mb < GROWTH_MB


def test_pad_rows_leaves_few_numbers_of_rows_close_to_the_old_ones():
    padded = {rows: len(private.pad_rows(torch.ones(rows, 2))) for rows in range(4097)}
    assert all(rows <= more <= rows * 17 / 16 for rows, more in padded.items())
    assert len(set(padded.values())) <= 32 + 16 * 7 + 1
    x = private.pad_rows(torch.ones(39, 2))
    assert x.shape == (40, 2) and x[:39].all() and not x[39:].any()


@on_x86
@pytest.mark.parametrize("kind", [OneDnnLinear, OneDnnLinearBFloat16, Int8Linear])
@pytest.mark.parametrize(("d_in", "d_out"), [(64, 192), (512, 512)])
def test_padded_rows_change_no_bit(kind, d_in, d_out, monkeypatch):
    if kind is OneDnnLinearBFloat16 and not cpu.has_avx512():
        pytest.skip("oneDNN takes no bfloat16 here")
    torch.manual_seed(0)
    layer = kind(torch.randn(d_out, d_in), torch.randn(d_out))
    inputs = [torch.randn(rows, d_in) for rows in (33, 35, 47, 67, 101, 131, 257, 263)]
    with torch.inference_mode():
        padded = [layer(x.clone()) for x in inputs]
        monkeypatch.setattr(private, "pad_rows", lambda x: x)
        for x, found in zip(inputs, padded, strict=True):
            assert len(private.pad_rows(x)) == len(found)
            assert torch.equal(layer(x.clone()), found)

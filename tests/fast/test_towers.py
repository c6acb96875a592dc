"""The fast towers against the plain towers and the oracle, exact and in low precision."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from emulation import efficient_attention, emulated_vnni
from fast_towers import (
    CPU,
    HAS_VNNI,
    TINY_COSINE,
    is_close,
    make_video,
    min_cosine,
    on_x86,
    run_plain_text,
    run_plain_video,
    token_counts,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import run_video, spread
from tiny import TINY, TINY_VOCABULARY

from mdmmt.config import RELEASED
from mdmmt.fast import FastTextTower, FastVideoTower, towers
from mdmmt.fast.attention import VarlenAttention
from mdmmt.fast.precision import plan_alike
from mdmmt.kernels import cpu, private
from mdmmt.kernels.linear import TorchLinear
from mdmmt.sample.batches import pad_videos
from mdmmt.towers.text import TextTower
from mdmmt.towers.tokenizer import Tokenizer
from mdmmt.towers.video import VideoTower

# The least cosine of an expert's block with the exact one, video and text. They hold for random
# weights of full size.
COSINES = {
    "bfloat16": (0.9998, 0.9995),
    "int8": (0.9995, 0.999) if HAS_VNNI else (0.999, 0.998),
}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(token_counts, min_size=1, max_size=7), st.integers(0, 99))
@example([(1, 1, 1), (5, 1, 1)], 0)  # as many tokens as the last layer has queries
def test_video_tower_embeds_any_mix_of_videos(fast_video, tiny, shapes, seed):
    videos = [make_video(shape, seed + i) for i, shape in enumerate(shapes)]
    assert is_close(fast_video(videos), run_plain_video(tiny.ours_video, videos))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(0, 99))
def test_text_tower_embeds_any_mix_of_texts(fast_text, tiny, lengths, seed):
    generator = random.Random(seed)
    ids = [[generator.randrange(TINY_VOCABULARY) for _ in range(n)] for n in lengths]
    assert is_close(fast_text(ids), run_plain_text(tiny.ours_text, ids))


@settings(max_examples=20, deadline=None)
@given(st.lists(token_counts, min_size=1, max_size=7))
def test_video_tower_embeds_any_mix_with_varlen_attention(tiny, shapes):
    plan = plan_alike(TorchLinear.consume, torch.float32, VarlenAttention)
    videos = [make_video(shape, i) for i, shape in enumerate(shapes)]
    with (
        patch.object(torch.ops.aten, "_efficient_attention_forward", efficient_attention),
        patch.object(towers, "plan_layers", lambda *_, **__: plan),
    ):
        result = FastVideoTower.consume(copy.deepcopy(tiny.ours_video))(videos)
    assert is_close(result, run_plain_video(tiny.ours_video, videos))


def test_video_tower_takes_unknown_times(fast_video, tiny):
    videos = [make_video((4, 2, 3)), make_video((4, 0, 3), seed=1)]
    videos[0]["wide"].times[2] = float("nan")
    videos[1]["middle"].times[:] = float("nan")
    assert is_close(fast_video(videos), run_plain_video(tiny.ours_video, videos))


def test_video_tower_takes_unknown_times_in_a_table_of_one_position():
    encoder = replace(TINY.video.encoder, max_position_embeddings=1)
    tower = spread(VideoTower(replace(TINY.video, encoder=encoder))).eval()
    videos = [make_video((2, 1, 3))]
    videos[0]["wide"].times[0] = float("nan")
    wanted = run_plain_video(tower, videos)
    assert is_close(FastVideoTower.consume(tower)(videos), wanted)


def test_video_tower_does_not_change_its_input(fast_video):
    videos = [make_video((2, 0, 3)), make_video((1, 1, 1))]
    before = copy.deepcopy(videos)
    fast_video(videos)
    assert all(
        torch.equal(a, b)
        for video, same in zip(videos, before, strict=True)
        for name in video
        for a, b in zip(video[name], same[name], strict=True)
    )


def test_video_tower_embeds_each_video_by_itself(fast_video):
    videos = [make_video(shape, i) for i, shape in enumerate([(6, 0, 1), (1, 1, 1), (2, 6, 4)])]
    together = fast_video(videos)
    assert is_close(together, torch.cat([fast_video([video]) for video in videos]))
    assert is_close(together.flip(0), fast_video(videos[::-1]))


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])  # activations behind and in products
@pytest.mark.parametrize("activation", ["gelu", "relu", "swish"])
@pytest.mark.parametrize("same_dim, layers", [(10, 1), (24, 2)])
def test_video_tower_takes_other_configurations(
    capability, activation, same_dim, layers, monkeypatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    encoder = replace(TINY.video.encoder, hidden_act=activation, num_hidden_layers=layers)
    tower = spread(VideoTower(replace(TINY.video, encoder=encoder, same_dim=same_dim))).eval()
    videos = [make_video((2, 0, 3)), make_video((1, 5, 0))]
    wanted = run_plain_video(tower, videos)
    assert wanted.shape == (2, 3 * same_dim)
    assert is_close(FastVideoTower.consume(tower)(videos), wanted)


def test_video_tower_runs_without_onednn(tiny, monkeypatch):
    monkeypatch.setattr(cpu, "has_onednn", lambda device: False)
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1))]
    wanted = run_plain_video(tiny.ours_video, videos)
    assert is_close(FastVideoTower.consume(copy.deepcopy(tiny.ours_video))(videos), wanted)
    half = FastVideoTower.consume(copy.deepcopy(tiny.ours_video), "bfloat16")(videos)
    assert min_cosine(half, wanted, 24) > TINY_COSINE["bfloat16"]


@on_x86
def test_video_tower_runs_without_bfloat16(tiny, monkeypatch):
    monkeypatch.setattr(private, "supports_bfloat16", lambda: False)
    monkeypatch.setattr(cpu, "has_instructions", lambda name: False)
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1))]
    wanted = run_plain_video(tiny.ours_video, videos)
    for precision, least in TINY_COSINE.items():
        result = FastVideoTower.consume(copy.deepcopy(tiny.ours_video), precision)(videos)
        assert min_cosine(result, wanted, 24) > least


@on_x86
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_towers_compute_in_low_precision(tiny, precision):
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1)), make_video((45, 1, 1))]
    ids = [[1, 2, 3], [7], list(range(30))]
    for kind, tower, items, run_plain in (
        (FastVideoTower, tiny.ours_video, videos, run_plain_video),
        (FastTextTower, tiny.ours_text, ids, run_plain_text),
    ):
        result = kind.consume(copy.deepcopy(tower), precision)(items)
        assert result.dtype == torch.float32
        assert min_cosine(result, run_plain(tower, items), 24) > TINY_COSINE[precision]
        exact = kind.consume(copy.deepcopy(tower))(items)
        assert not torch.equal(result, exact)  # so the precision has an effect at all


@on_x86
def test_text_tower_calibrates_int8_with_few_positions():
    bert = replace(TINY.text.bert, max_position_embeddings=3)
    tower = spread(TextTower(replace(TINY.text, bert=bert, max_length=3))).eval()
    ids = [[1, 2, 3], [7]]
    wanted = run_plain_text(tower, ids)
    assert min_cosine(FastTextTower.consume(tower, "int8")(ids), wanted, 24) > 0.98


@on_x86
def test_video_tower_mixes_int8_with_bfloat16(tiny, monkeypatch):
    monkeypatch.setattr(cpu, "has_instructions", lambda name: name == "avx512_bf16")
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1))]
    result = FastVideoTower.consume(copy.deepcopy(tiny.ours_video), "int8")(videos)
    assert min_cosine(result, run_plain_video(tiny.ours_video, videos), 24) > 0.98


def make_full_videos():
    counts = [(30, 30, 30), (25, 25, 25), (1, 17, 0), (10, 10, 10), (0, 0, 1)]
    return [make_video(shape, i, RELEASED.video.experts) for i, shape in enumerate(counts)]


@pytest.mark.slow
def test_full_video_tower_equals_the_oracle(full, full_video, assert_parity):
    """And low precision is as near as it says."""
    videos = make_full_videos()
    features, times, mask = pad_videos(videos, RELEASED.video.experts)
    theirs = run_video(full.theirs_video, features, times, {k: m.float() for k, m in mask.items()})
    assert_parity(full_video("exact")(videos), theirs, "fast video, full size")
    for precision, (least, _) in COSINES.items() if cpu.has_onednn(CPU) else ():
        result = full_video(precision)(videos)
        assert min_cosine(result, theirs, RELEASED.video.same_dim) > least


@pytest.mark.slow
def test_full_text_tower_equals_the_oracle(full, full_text, assert_parity):
    """And low precision is as near as it says."""
    texts = ["a dog sings", "the red ball", "Hello world! A man is playing video", "cat " * 40]
    with torch.no_grad():
        theirs = full.theirs_text(texts)
    ids = Tokenizer(full.tokenizer, RELEASED.text)(texts)
    assert_parity(full_text("exact")(ids), theirs, "fast text, full size")
    for precision, (_, least) in COSINES.items() if cpu.has_onednn(CPU) else ():
        result = full_text(precision)(ids)
        assert min_cosine(result, theirs, RELEASED.text.same_dim) > least


@on_x86
@pytest.mark.slow
def test_full_towers_stay_near_in_int8_with_vnni(full, full_video, full_text):
    videos, ids = make_full_videos(), [[1, 2, 3], [7, 8, 9], list(range(30))]  # [CLS], word, [SEP]
    for kind, tower, exact, items, least in (
        (FastVideoTower, full.ours_video, full_video("exact"), videos, 0.9995),
        (FastTextTower, full.ours_text, full_text("exact"), ids, 0.999),
    ):
        with emulated_vnni():
            result = kind.consume(copy.deepcopy(tower), "int8")(items)
        assert min_cosine(result, exact(items), RELEASED.video.same_dim) > least


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["exact", pytest.param("int8", marks=on_x86)])
def test_text_tower_does_not_depend_on_where_weights_lie(full, full_text, precision):
    """Those of a mapped file begin anywhere; a matrix product's sums depend on where."""
    ids, mapped = [[7, 8, 9]], copy.deepcopy(full.ours_text)
    for parameter in mapped.parameters():
        elsewhere = torch.empty(parameter.numel() + 1)[1:].view_as(parameter)
        parameter.data = elsewhere.copy_(parameter.data)
    result = FastTextTower.consume(mapped, precision)(ids)
    assert torch.equal(result, full_text(precision)(ids))


@pytest.mark.cuda
@pytest.mark.parametrize("compiled", [False, True])
def test_towers_on_cuda(tiny, cuda_without_tf32, compiled):
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1)), make_video((6, 5, 1), seed=1)]
    ids = [[1, 2, 3], [7], list(range(30))]
    for kind, tower, items, run_plain in (
        (FastVideoTower, tiny.ours_video, videos, run_plain_video),
        (FastTextTower, tiny.ours_text, ids, run_plain_text),
    ):
        wanted = run_plain(tower, items)
        there = copy.deepcopy(tower).to("cuda")
        exact = kind.consume(copy.deepcopy(there), "exact", compiled)(items).cpu()
        assert torch.allclose(exact, wanted, rtol=0, atol=1e-4)
        half = kind.consume(there, "bfloat16", compiled)(items).cpu()
        assert min_cosine(half, wanted, 24) > TINY_COSINE["bfloat16"]

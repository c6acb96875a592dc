"""The fast path against the plain towers and the oracle, exact and in low precision."""

from __future__ import annotations

import copy
import os
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from multiprocessing import get_context
from threading import current_thread
from unittest.mock import patch

import pytest
import torch
from emulation import ByHalves, efficient_attention, emulated_vnni
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import block_cosines, run_video, spread
from tiny import TINY, TINY_VOCABULARY
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional as F

from mdmmt import InputError
from mdmmt.config import RELEASED
from mdmmt.fast import (
    PRECISIONS,
    FastTextTower,
    FastVideoTower,
    attention,
    check_precision,
    resolve_precision,
    towers,
)
from mdmmt.fast import (
    batching as portions,
)
from mdmmt.fast import (
    linear as dense,
)
from mdmmt.fast.calibration import observe
from mdmmt.features.tokens import Tokens, collate
from mdmmt.towers.text import TextTower
from mdmmt.towers.tokenizer import Tokenizer
from mdmmt.towers.video import VideoTower

CPU = torch.device("cpu")
# Least cosine of an expert's block with the exact one, video and text. They hold for random
# weights of full size; narrow layers have fewer errors to average.
HAS_VNNI = dense.has_instructions("avx512_vnni")
COSINES = {
    "bfloat16": (0.9998, 0.9995),
    "int8": (0.9995, 0.999) if HAS_VNNI else (0.999, 0.998),
}
TINY_COSINE = {"bfloat16": 0.999, "int8": 0.995 if HAS_VNNI else 0.98}
STEPS = dense.RANGES[0]
on_x86 = pytest.mark.skipif(not dense.has_onednn(CPU), reason="8-bit products are oneDNN's, on x86")


@pytest.fixture(scope="module")
def fast_video(tiny) -> FastVideoTower:
    return for_few_tokens(FastVideoTower(copy.deepcopy(tiny.ours_video)))


@pytest.fixture(scope="module")
def fast_text(tiny) -> FastTextTower:
    return for_few_tokens(FastTextTower(copy.deepcopy(tiny.ours_text)))


def for_few_tokens(tower):
    """The same with a thread for each portion of even small batches."""
    tower.least = 3
    return tower


@contextmanager
def computing_with(threads):
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def make_video(counts, seed=0, experts=TINY.video.experts):
    """Features of that many tokens of each expert; experts of none are absent."""
    generator = torch.Generator().manual_seed(seed)
    return {
        expert.name: Tokens(
            torch.randn(n, expert.dim, generator=generator),
            torch.rand(n, generator=generator) * 40 - 3,  # below and above the table, too
        )
        for expert, n in zip(experts, counts, strict=True)
        if n
    }


@torch.no_grad()
def plain(tower: VideoTower, videos):
    return tower(*collate(videos, tower.config.experts, CPU))


@torch.no_grad()
def plain_text(tower: TextTower, ids):
    mask = torch.tensor([[1] * len(row) + [0] * (max(map(len, ids)) - len(row)) for row in ids])
    padded = torch.zeros(mask.shape, dtype=torch.long)
    padded[mask.bool()] = torch.tensor([token for row in ids for token in row])
    return tower(padded, mask.bool())


def cosine(a, b, width):
    """The least cosine of any block with its counterpart."""
    return block_cosines(a, b, width).min()


def close(a, b):
    return a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=1e-5)


counts = st.tuples(*[st.sampled_from([0, 1, 2, 5, 6, 45])] * 3).filter(any)


@settings(max_examples=60, deadline=None)
@given(st.lists(counts, min_size=1, max_size=7), st.integers(0, 99))
@example([(1, 1, 1), (5, 1, 1)], 0)  # as many tokens as the last layer has queries
def test_any_mix_of_videos(fast_video, tiny, shapes, seed):
    videos = [make_video(shape, seed + i) for i, shape in enumerate(shapes)]
    assert close(fast_video(videos), plain(tiny.ours_video, videos))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(0, 99))
def test_any_mix_of_texts(fast_text, tiny, lengths, seed):
    generator = random.Random(seed)
    ids = [[generator.randrange(TINY_VOCABULARY) for _ in range(n)] for n in lengths]
    assert close(fast_text(ids), plain_text(tiny.ours_text, ids))


def test_times_that_are_not_known(fast_video, tiny):
    videos = [make_video((4, 2, 3)), make_video((4, 0, 3), seed=1)]
    videos[0]["wide"].times[2] = float("nan")
    videos[1]["middle"].times[:] = float("nan")
    assert close(fast_video(videos), plain(tiny.ours_video, videos))


def test_a_time_that_is_not_known_in_a_table_of_one_position():
    encoder = replace(TINY.video.encoder, max_position_embeddings=1)
    tower = spread(VideoTower(replace(TINY.video, encoder=encoder))).eval()
    videos = [make_video((2, 1, 3))]
    videos[0]["wide"].times[0] = float("nan")
    wanted = plain(tower, videos)
    assert close(FastVideoTower(copy.deepcopy(tower))(videos), wanted)


def test_what_is_given_stays_as_it_is(fast_video):
    videos = [make_video((2, 0, 3)), make_video((1, 1, 1))]
    before = copy.deepcopy(videos)
    fast_video(videos)
    assert all(
        torch.equal(a, b)
        for video, same in zip(videos, before, strict=True)
        for name in video
        for a, b in zip(video[name], same[name], strict=True)
    )


def test_each_video_is_by_itself(fast_video):
    videos = [make_video(shape, i) for i, shape in enumerate([(6, 0, 1), (1, 1, 1), (2, 6, 4)])]
    together = fast_video(videos)
    assert close(together, torch.cat([fast_video([video]) for video in videos]))
    assert close(together.flip(0), fast_video(videos[::-1]))


@pytest.fixture(params=[1, 2, 3])
def threads(request) -> Iterator[int]:
    with computing_with(request.param):
        yield request.param


@pytest.mark.parametrize("at_once", [1, 9, 30])
def test_a_batch_in_portions(tiny, fast_video, fast_text, threads, monkeypatch, at_once):
    videos = [make_video((6, i, 1), i) for i in range(7)]
    ids = [[1] * n for n in (9, 3, 30, 3, 1, 8, 8, 8, 8)]
    monkeypatch.setattr(portions, "TOKENS_AT_ONCE", at_once)
    assert close(fast_video(videos), plain(tiny.ours_video, videos))
    assert close(fast_text(ids), plain_text(tiny.ours_text, ids))


def sizes_of(lengths, least):
    """How many sequences each portion has, and how many portions are computed at once."""
    parts, at_once = portions.portions(lengths, CPU, least)
    assert [number for part in parts for number in part] == list(range(len(lengths)))
    return list(map(len, parts)), at_once


def test_portions_that_threads_share():
    """They are even: what is a little too much for one is not one and a small rest."""
    assert sizes_of([13] * 64, None) == ([32, 32], 1)
    assert sizes_of([13] * 59, None) == ([59], 1)


def test_a_portion_for_each_thread(threads):
    one = threads == 1
    assert sizes_of([13] * 18, 8) == ([18 // threads] * threads, threads)
    assert sizes_of([13] * 18, 80) == ([18], 1) if threads == 3 else ([18 // threads] * threads, 1)
    assert sizes_of([13] * 120, 8)[0] == {1: [40] * 3, 2: [30] * 4, 3: [40] * 3}[threads]
    assert sizes_of([13], 8) == ([1], 1)  # nothing to share out
    assert sizes_of([13, 13, 13, 200], 8) == ([4], 1)  # all would wait for one
    assert one or sizes_of([13, 14, 15] * threads, 8)[1] == threads


@settings(deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.sampled_from([None, 8, 96]))
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_portions_are_about_equal(threads, lengths, least):
    with computing_with(threads):
        sizes, at_once = sizes_of(lengths, least)
    assert at_once in (1, threads)
    if at_once > 1:
        assert len(sizes) % threads == 0
        assert sum(lengths) >= threads * least
        ends = list(accumulate(sizes))
        largest = max(sum(lengths[e - n : e]) for e, n in zip(ends, sizes, strict=True))
        assert largest <= portions.UNEVEN * sum(lengths) / len(sizes)


def test_threads_of_portions_compute_alone(fast_video, monkeypatch):
    """And no other thread does."""
    seen, encode = set(), fast_video.encode

    def spy(*args):
        by_itself = current_thread().name.startswith("mdmmt")
        seen.add((by_itself, torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return encode(*args)

    monkeypatch.setattr(fast_video, "encode", spy)
    with computing_with(3):
        fast_video([make_video((6, 4, 3), i) for i in range(6)])
        assert seen == {(True, 1, True)}
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as another:
            assert another.submit(torch.get_num_threads).result() == 3
        seen.clear()
        fast_video([make_video((6, 4, 3))])
        assert seen == {(False, 3, True)}


@on_x86
def test_what_is_worth_a_thread(monkeypatch):
    """In float32 more tokens are than in bfloat16."""
    for names, low in ((("avx512_vnni", "avx512_bf16"), 8), (("avx512_vnni",), 96), ((), 96)):
        monkeypatch.setattr(dense, "has_instructions", lambda name, names=names: name in names)
        found = {one: dense.kinds_of(one, CPU).least for one in ("exact", "bfloat16", "int8")}
        assert found == {"exact": 96, "bfloat16": low, "int8": low}
    monkeypatch.setattr(dense, "has_onednn", lambda device: False)
    assert dense.kinds_of("exact", CPU).least is None
    assert dense.kinds_of("bfloat16", torch.device("meta")).least is None


def test_a_portion_that_fails(fast_text, threads):
    with pytest.raises(IndexError):
        fast_text([[1, 2, 3]] * 5 + [[1, TINY_VOCABULARY, 3]])
    assert fast_text([[1, 2, 3]] * 6).shape == (6, 72)


def test_many_callers_at_once(tiny, fast_video):
    batches = [[make_video((6, i, 1), 9 * n + i) for i in range(n + 2)] for n in range(6)]
    with ThreadPoolExecutor(6) as callers:
        found = list(callers.map(fast_video, batches))
    for one, videos in zip(found, batches, strict=True):
        assert close(one, plain(tiny.ours_video, videos))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_after_a_fork(fast_text):
    """A child has none of the threads, and begins its own."""
    ids = [[1, 2, 3]] * 6
    wanted = fast_text(ids)
    receiver, sender = get_context("fork").Pipe(duplex=False)
    child = get_context("fork").Process(target=lambda: sender.send(fast_text(ids).numpy()))
    child.start()
    try:
        assert receiver.poll(60)
        assert close(torch.from_numpy(receiver.recv()), wanted)
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])  # activations behind and in products
@pytest.mark.parametrize("activation", ["gelu", "relu", "swish"])
@pytest.mark.parametrize("same_dim, layers", [(10, 1), (24, 2)])
def test_other_configurations(capability, activation, same_dim, layers, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    encoder = replace(TINY.video.encoder, hidden_act=activation, num_hidden_layers=layers)
    tower = spread(VideoTower(replace(TINY.video, encoder=encoder, same_dim=same_dim))).eval()
    videos = [make_video((2, 0, 3)), make_video((1, 5, 0))]
    wanted = plain(tower, videos)
    assert wanted.shape == (2, 3 * same_dim)
    assert close(FastVideoTower(copy.deepcopy(tower))(videos), wanted)


def test_without_onednn(tiny, monkeypatch):
    monkeypatch.setattr(dense, "has_onednn", lambda device: False)
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1))]
    wanted = plain(tiny.ours_video, videos)
    assert close(FastVideoTower(copy.deepcopy(tiny.ours_video))(videos), wanted)
    half = FastVideoTower(copy.deepcopy(tiny.ours_video), "bfloat16")(videos)
    assert cosine(half, wanted, 24) > TINY_COSINE["bfloat16"]
    assert resolve_precision("auto", CPU) == "exact"
    with pytest.raises(InputError, match="needs an x86 processor"):
        resolve_precision("int8", CPU)


@on_x86
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_low_precision(tiny, precision):
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1)), make_video((45, 1, 1))]
    ids = [[1, 2, 3], [7], list(range(30))]
    for fast, tower, given_, run in (
        (FastVideoTower, tiny.ours_video, videos, plain),
        (FastTextTower, tiny.ours_text, ids, plain_text),
    ):
        found = fast(copy.deepcopy(tower), precision)(given_)
        assert found.dtype == torch.float32
        assert cosine(found, run(tower, given_), 24) > TINY_COSINE[precision]
        assert not torch.equal(found, fast(copy.deepcopy(tower))(given_))  # it is used at all


@settings(deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(-3, 3), st.integers(1, 200), st.integers(0, 99))
@pytest.mark.parametrize("spent", [False, True])
def test_numbers_are_rounded_to_the_nearest(spent, scale, shift, n, seed):
    x = (torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) + shift) * scale
    given = x.clone()
    eight_bits, step, zero = dense.quantise(given, STEPS, spent)
    assert eight_bits.dtype == torch.uint8
    back = (eight_bits.double() - zero) * step
    assert (back - x.double()).abs().max() <= step * 0.501
    assert step <= 2 * max(x.abs().max(), x.max() - x.min()) / STEPS
    assert eight_bits.max() <= STEPS + 1
    assert spent or torch.equal(given, x)


@on_x86
def test_no_sum_of_products_overflows():
    """Without VNNI the processor adds up two of them in 16 bits."""
    layer = nn.Linear(64, 8)
    layer.weight.data = torch.ones(8, 64) - torch.arange(8)[:, None] / 4
    x = torch.cat([torch.ones(3, 64), -torch.ones(2, 64)])
    found = dense.PackedInt8(copy.deepcopy(layer))(x)
    assert torch.allclose(found, ByHalves(copy.deepcopy(layer))(x), atol=1e-4)
    assert torch.allclose(found, layer(x), atol=0.5)


@on_x86
def test_what_rounding_weights_shifts_goes_into_the_bias():
    """Of the usual input comes what the layer itself makes of it."""
    layer, usual = nn.Linear(64, 32), torch.randn(64)
    off = []
    for calibrated in (False, True):
        rounded = copy.deepcopy(layer)
        if calibrated:
            rounded.mean_input = usual
        # The weights' rounding alone: what is given is rounded to itself.
        packed = dense.PackedInt8(rounded)
        weight = (layer.weight / packed.scale[:, None]).round() * packed.scale[:, None]
        off.append(((weight @ usual + packed.bias) - layer(usual)).abs().max().item())
    assert off[1] < 1e-5 < 1e-3 < off[0]


def test_what_a_layer_is_usually_given(tiny):
    layer = copy.deepcopy(tiny.ours_video.vid_bert.encoder.layer[0])
    x = torch.randn(2, 5, 24)
    with torch.no_grad():
        after = layer(x, torch.ones(2, 5, dtype=torch.bool))
        assert torch.equal(observe(layer, x), after)
        attended = layer.attention(x, torch.ones(2, 5, dtype=torch.bool))
        narrow = layer.intermediate(attended).mean(dim=(0, 1))
    for linear in (layer.attention.self.query, layer.attention.self.value):
        assert torch.allclose(linear.mean_input, x.mean(dim=(0, 1)), atol=1e-6)
    wide = layer.intermediate.dense
    assert torch.allclose(wide.mean_input, attended.mean(dim=(0, 1)), atol=1e-6)
    assert torch.allclose(layer.output.dense.mean_input, narrow, atol=1e-6)
    before = wide.mean_input
    layer(x + 1, torch.ones(2, 5, dtype=torch.bool))
    assert wide.mean_input is before  # nothing goes on being observed


@on_x86
def test_8_bit_towers_made_twice_are_equal(tiny):
    """What they are calibrated with is always the same, and never what they embed."""
    videos, ids = [make_video((2, 0, 3)), make_video((6, 5, 1))], [[1, 2, 3], [7]]
    for fast, tower, given_, others in (
        (FastVideoTower, tiny.ours_video, videos, [make_video((1, 1, 1), 9)]),
        (FastTextTower, tiny.ours_text, ids, [[9] * 30]),
    ):
        one = fast(copy.deepcopy(tower), "int8")
        with torch.autocast("cpu", torch.bfloat16):
            other = fast(copy.deepcopy(tower), "int8")
        other(others)
        assert torch.equal(one(given_), other(given_))


@on_x86
def test_calibrated_is_nearer(full):
    ids = [[7 * n + i for i in range(n)] for n in range(3, 19)]
    wanted = FastTextTower(copy.deepcopy(full.ours_text))(ids)
    kinds = dense.kinds_of("int8", CPU, rounds_values=True)
    assert kinds.calibrated
    cosines = []
    for calibrated in (False, True):
        made = kinds._replace(calibrated=calibrated)
        with patch.object(towers, "kinds_of", lambda *_, made=made, **__: made):
            found = FastTextTower(copy.deepcopy(full.ours_text), "int8")(ids)
        cosines.append(F.cosine_similarity(found, wanted).mean().item())
    assert 1 - cosines[1] < 0.6 * (1 - cosines[0])


@on_x86
def test_8_bits_with_few_positions():
    bert = replace(TINY.text.bert, max_position_embeddings=3)
    tower = spread(TextTower(replace(TINY.text, bert=bert, max_length=3))).eval()
    ids = [[1, 2, 3], [7]]
    found = FastTextTower(copy.deepcopy(tower), "int8")(ids)
    assert cosine(found, plain_text(tower, ids), 24) > 0.98


def test_zeros_are_rounded_to_zero():
    eight_bits, _, zero = dense.quantise(torch.zeros(2, 3), STEPS)
    assert (eight_bits == zero).all()


def test_precisions():
    assert [check_precision(one) for one in PRECISIONS] == list(PRECISIONS)
    assert resolve_precision("exact", CPU) == "exact"
    assert resolve_precision("auto", CPU) in ("exact", "int8")
    with pytest.raises(InputError, match="precision is 'fp8', expected one of exact, bfloat16"):
        check_precision("fp8")


@on_x86
def test_a_processor_without_bfloat16(tiny, monkeypatch):
    """It runs there, too: in torch's own way, and beside 8-bit weights not at all."""
    monkeypatch.setattr(dense, "packs_bfloat16", lambda: False)
    monkeypatch.setattr(dense, "has_instructions", lambda name: False)
    assert dense.kinds_of("bfloat16", CPU).wide is dense.PlainBFloat16
    assert dense.kinds_of("int8", CPU).fine is dense.Packed
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1))]
    for precision, least in TINY_COSINE.items():
        found = FastVideoTower(copy.deepcopy(tiny.ours_video), precision)(videos)
        assert cosine(found, plain(tiny.ours_video, videos), 24) > least


@on_x86
def test_auto_looks_at_the_processor(monkeypatch):
    for capability, vnni, wanted in (
        ("AVX512", True, "int8"),
        ("AVX512", False, "exact"),
        ("AVX2", True, "exact"),
    ):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda v=vnni: {"avx512_vnni": v}, raising=False
        )
        assert resolve_precision("auto", CPU) == wanted


@pytest.mark.parametrize("precision", ["exact", pytest.param("int8", marks=on_x86)])
def test_where_weights_lie_changes_nothing(full, precision):
    """Those of a mapped file begin anywhere; a matrix product's sums depend on where."""
    texts, mapped = [[7, 8, 9]], copy.deepcopy(full.ours_text)
    for parameter in mapped.parameters():
        elsewhere = torch.empty(parameter.numel() + 1)[1:].view_as(parameter)
        parameter.data = elsewhere.copy_(parameter.data)
    found, wanted = (
        FastTextTower(tower, precision)(texts) for tower in (mapped, copy.deepcopy(full.ours_text))
    )
    assert torch.equal(found, wanted)


def test_the_encoder_is_taken_over(tiny):
    """Of the linear layers there are never two copies."""
    video, text = copy.deepcopy(tiny.ours_video), copy.deepcopy(tiny.ours_text)
    FastVideoTower(video)
    assert all(reduce.fc.weight is None for reduce in video.video_dim_reduce.values())
    FastTextTower(text)
    assert len(video.vid_bert.encoder.layer) == len(text.txt_bert.encoder.layer) == 0


def full_videos():
    counts = [(30, 30, 30), (25, 25, 25), (1, 17, 0), (10, 10, 10), (0, 0, 1)]
    return [make_video(shape, i, RELEASED.video.experts) for i, shape in enumerate(counts)]


def test_full_video(full, assert_parity):
    """Exact equals the oracle, and low precision is as near as it says."""
    videos = full_videos()
    features, times, mask = collate(videos, RELEASED.video.experts, CPU)
    theirs = run_video(full.theirs_video, features, times, {k: m.float() for k, m in mask.items()})
    assert_parity(
        FastVideoTower(copy.deepcopy(full.ours_video))(videos), theirs, "fast video, full size"
    )
    for precision, (least, _) in COSINES.items() if dense.has_onednn(CPU) else ():
        found = FastVideoTower(copy.deepcopy(full.ours_video), precision)(videos)
        assert cosine(found, theirs, RELEASED.video.same_dim) > least


def test_full_text(full, assert_parity):
    texts = ["a dog sings", "the red ball", "Hello world! A man is playing video", "cat " * 40]
    with torch.no_grad():
        theirs = full.theirs_text(texts)
    ids = Tokenizer(full.tokenizer, RELEASED.text)(texts)
    assert_parity(FastTextTower(copy.deepcopy(full.ours_text))(ids), theirs, "fast text, full size")
    for precision, (_, least) in COSINES.items() if dense.has_onednn(CPU) else ():
        found = FastTextTower(copy.deepcopy(full.ours_text), precision)(ids)
        assert cosine(found, theirs, RELEASED.text.same_dim) > least


@on_x86
@pytest.mark.parametrize("activation", list(dense.ALGORITHM))
def test_8_bit_products_in_bfloat16(activation):
    """Beside values in bfloat16 the queries and keys are put out in it."""
    layer, x = nn.Linear(32, 8), torch.randn(5, 32)
    with torch.no_grad():
        wanted = dense.activate(layer(x), activation)
    for dtype, most in ((torch.float32, 0.05), (torch.bfloat16, 0.06)):
        found = dense.PackedInt8(copy.deepcopy(layer), dtype)(x, activation)
        assert found.dtype == dtype
        assert torch.allclose(found.float(), wanted, rtol=0, atol=most)


@pytest.mark.parametrize("sequences", [1, 40])
@pytest.mark.parametrize(("rows", "scale"), [(None, None), (3, 0.3)])
def test_batched_attention(sequences, rows, scale):
    """It is torch's own, in other steps, whether there are few tokens or many."""
    runs = [attention.Run(sequences, 9, hidden=2), attention.Run(sequences, 4, hidden=0)]
    q = torch.randn(sequences * (2 * rows if rows else 13), 32)
    k, v = torch.randn(2, sequences * 13, 32)
    for dtype, most in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        found, wanted = (
            attention.OneByOne(runs, CPU, way)(*(x.to(dtype) for x in (q, k, v)), 4, rows, scale)
            for way in (attention.batched_attention, F.scaled_dot_product_attention)
        )
        assert found.dtype == dtype
        assert torch.allclose(found, wanted, rtol=0, atol=most)


MIXED = [attention.Run(2, 9, 2), attention.Run(1, 4, 0), attention.Run(3, 4, 3)]


@pytest.mark.parametrize("width", [3, 8])
def test_attention_at_once(width, monkeypatch):
    """One kernel for all sequences computes what one run after the other does."""
    monkeypatch.setattr(torch.ops.aten, "_efficient_attention_forward", efficient_attention)
    qkv = torch.randn(34, 3 * 4 * width).split(4 * width, dim=1)
    for rows, scale in ((None, None), (3, 0.3)):
        q = torch.randn(18, 4 * width) if rows else qkv[0]
        found, wanted = (
            kind(MIXED, CPU)(q, *qkv[1:], 4, rows, scale)
            for kind in (attention.AtOnce, attention.OneByOne)
        )
        assert close(found, wanted)


@settings(max_examples=20, deadline=None)
@given(st.lists(counts, min_size=1, max_size=7))
def test_any_mix_of_videos_at_once(tiny, shapes):
    kinds = dense.Kinds(*[dense.Plain] * 5, torch.float32, attention.AtOnce)
    videos = [make_video(shape, i) for i, shape in enumerate(shapes)]
    with (
        patch.object(torch.ops.aten, "_efficient_attention_forward", efficient_attention),
        patch.object(towers, "kinds_of", lambda *_, **__: kinds),
    ):
        found = FastVideoTower(copy.deepcopy(tiny.ours_video))(videos)
    assert close(found, plain(tiny.ours_video, videos))


@pytest.mark.parametrize(
    ("precision", "capability", "hip", "at_once"),
    [
        ("exact", (7, 0), None, True),
        ("bfloat16", (7, 5), None, False),  # has no such kernel
        ("bfloat16", (8, 0), None, True),
        ("exact", (9, 0), "6.4", False),  # a kernel of AMD's does not know of hidden tokens
    ],
)
def test_attention_is_at_once_on_cuda(precision, capability, hip, at_once, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    kind = dense.kinds_of(precision, torch.device("cuda")).attention
    assert kind is (attention.AtOnce if at_once else attention.OneByOne)


@on_x86
@pytest.mark.parametrize("precision", PRECISIONS)
def test_attention_is_batched_with_avx512(precision, monkeypatch):
    for capability in ("AVX512", "AVX2"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        attend = dense.kinds_of(precision, CPU).attention([attention.Run(1, 2, 0)], CPU)
        assert (attend.attention is attention.batched_attention) == (capability == "AVX512")


@on_x86
def test_8_bits_beside_values_in_bfloat16(tiny, monkeypatch):
    monkeypatch.setattr(dense, "has_instructions", lambda name: name == "avx512_bf16")
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1))]
    found = FastVideoTower(copy.deepcopy(tiny.ours_video), "int8")(videos)
    assert cosine(found, plain(tiny.ours_video, videos), 24) > 0.98


@on_x86
def test_with_vnni_8_bits_are_used_whole(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for has, ranges in ((True, dense.RANGES), (False, dense.RANGES_WITHOUT_VNNI)):
        capabilities = {"avx512_vnni": has}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda c=capabilities: c, raising=False)
        assert dense.PackedInt8(nn.Linear(4, 4)).steps == ranges[0]


@on_x86
def test_int8_of_full_size_as_vnni_computes_it(full):
    videos, ids = full_videos(), [[1, 2, 3], [7, 8, 9], list(range(30))]  # [CLS], a word, [SEP]
    for fast, tower, given_, least in (
        (FastVideoTower, full.ours_video, videos, 0.9995),
        (FastTextTower, full.ours_text, ids, 0.999),
    ):
        with emulated_vnni():
            found = fast(copy.deepcopy(tower), "int8")(given_)
        assert cosine(found, fast(copy.deepcopy(tower))(given_), RELEASED.video.same_dim) > least


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles C++, and there is no g++ here")
@pytest.mark.skipif(torch.__version__ < "2.8", reason="older ones compile each layer by itself")
@pytest.mark.parametrize("half", [False, True])
def test_compiled(tiny, monkeypatch, half):
    """Of what is compiled for CUDA, a processor's plain layers make the same graph."""
    layer = dense.PlainBFloat16 if half else dense.Plain
    # as CUDA has them, but for its attention
    kinds = dense.Kinds(*[layer] * 5, torch.float32, attention.OneByOne)
    monkeypatch.setattr(towers, "kinds_of", lambda *_, **__: kinds)
    counters.clear()
    fast = FastVideoTower(copy.deepcopy(tiny.ours_video), compiled=True)
    for shapes in ([(2, 0, 3), (6, 5, 1)], [(1, 1, 1)], [(6, 6, 6)] * 3):
        videos = [make_video(shape, i) for i, shape in enumerate(shapes)]
        found, wanted = fast(videos), plain(tiny.ours_video, videos)
        assert cosine(found, wanted, 24) > TINY_COSINE["bfloat16"]
        assert half or close(found, wanted)
    assert counters["stats"]["unique_graphs"] == 1  # for all layers and sizes


@pytest.mark.cuda
@pytest.mark.parametrize("compiled", [False, True])
def test_on_cuda(tiny, cuda_without_tf32, compiled):
    videos = [make_video((2, 0, 3)), make_video((6, 5, 1)), make_video((6, 5, 1), seed=1)]
    ids = [[1, 2, 3], [7], list(range(30))]
    for fast, tower, given_, run in (
        (FastVideoTower, tiny.ours_video, videos, plain),
        (FastTextTower, tiny.ours_text, ids, plain_text),
    ):
        wanted = run(tower, given_)
        there = copy.deepcopy(tower).to("cuda")
        exact = fast(copy.deepcopy(there), "exact", compiled)(given_).cpu()
        assert torch.allclose(exact, wanted, rtol=0, atol=1e-4)
        half = fast(there, "bfloat16", compiled)(given_).cpu()
        assert cosine(half, wanted, 24) > TINY_COSINE["bfloat16"]
    with pytest.raises(InputError, match="needs an x86 processor"):
        resolve_precision("int8", torch.device("cuda"))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [3, 8, 64, 512])
def test_attention_at_once_on_cuda(dtype, width, cuda_without_tf32):
    cuda = torch.device("cuda")
    q, k, v = torch.randn(34, 3 * 2 * width, device=cuda, dtype=dtype).split(2 * width, dim=1)
    for heads, rows, scale in ((2, None, None), (1, 3, 0.1)):
        queries = q[: 3 * 6] if rows else q
        found, wanted = (
            kind(MIXED, cuda)(queries, k, v, heads, rows, scale)
            for kind in (attention.AtOnce, attention.OneByOne)
        )
        assert found.dtype == dtype
        most = 1e-5 if dtype == torch.float32 else 0.05
        assert torch.allclose(found, wanted, rtol=0, atol=most)

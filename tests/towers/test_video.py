"""The video tower against the oracle, tiny and full size, and where the two part on purpose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import random_batch, run_video, video_oracle

from mdmmt.config import RELEASED
from mdmmt.towers.video import VideoTower

# Each takes features, times, masks (dicts by expert) and changes times or masks in place.


def all_there(_features, _times, _mask):
    pass


def twenty_five_of_thirty(_features, _times, mask):
    for one in mask.values():
        one[:, 25:] = 0


def ragged(_features, _times, mask):
    for i, one in enumerate(mask.values()):
        for row in range(len(one)):
            one[row, 1 + (7 * row + 11 * i) % one.shape[1] :] = 0


def non_prefix(_features, _times, mask):
    generator = torch.Generator().manual_seed(1)
    for one in mask.values():
        one[:] = torch.rand(one.shape, generator=generator) < 0.5
        one[:, 0] = 0
        one[:, 3] = 1


def first_absent(_features, _times, mask):
    next(iter(mask.values()))[:] = 0


def last_absent(_features, _times, mask):
    list(mask.values())[-1][:] = 0


def absent_by_row(_features, _times, mask):
    for i, one in enumerate(mask.values()):
        one[i::3] = 0


def one_token(_features, _times, mask):
    for one in mask.values():
        one[:] = 0
    list(mask.values())[1][:, 17] = 1


def times_below_zero(_features, times, _mask):
    for one in times.values():
        one -= 20


def times_above_the_table(_features, times, _mask):
    for one in times.values():
        one += 20


def times_near_whole(_features, times, _mask):
    for one in times.values():
        one[:] = one.round() - 0.001


CASES = [
    all_there,
    twenty_five_of_thirty,
    ragged,
    non_prefix,
    first_absent,
    last_absent,
    absent_by_row,
    one_token,
    times_below_zero,
    times_above_the_table,
    times_near_whole,
]


def differ(pair, case, batch, tokens, device="cpu"):
    """Ours and the oracle's embeddings of one random batch."""
    inputs = random_batch(pair.config.video.experts, batch, tokens, seed=batch)
    case(*inputs)
    inputs = [{name: one.to(device) for name, one in part.items()} for part in inputs]
    theirs = run_video(pair.theirs_video, *inputs)
    features, times, mask = inputs
    with torch.inference_mode():
        ours = pair.ours_video(features, times, {name: one.bool() for name, one in mask.items()})
    return ours, theirs


@pytest.mark.parametrize("batch", [1, 3, 32])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_video_tower_equals_the_oracle(case, batch, tiny, assert_parity):
    assert_parity(*differ(tiny, case, batch, 30), "video, tiny")


@pytest.mark.parametrize("tokens", [1, 45])
def test_video_tower_equals_the_oracle_at_other_numbers_of_tokens(tokens, tiny, assert_parity):
    assert_parity(*differ(tiny, all_there, 3, tokens), "video, tiny")


def every_case(features, times, mask):
    """Row i of the batch is of case i."""
    for row in range(len(next(iter(mask.values())))):
        parts = (features, times, mask)
        views = [{name: one[row : row + 1] for name, one in part.items()} for part in parts]
        CASES[row % len(CASES)](*views)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "tokens"), [(32, 30), (3, 30), (1, 45)])
def test_video_tower_equals_the_oracle_at_full_size(batch, tokens, full, assert_parity):
    assert_parity(*differ(full, every_case, batch, tokens), "video, full size")


@pytest.mark.slow
@pytest.mark.cuda
def test_video_tower_equals_the_oracle_on_cuda(full, assert_parity, cuda_without_tf32):
    full.ours_video.to("cuda")
    full.theirs_video.to("cuda")
    try:
        got = differ(full, every_case, 32, 30, "cuda")
        assert_parity(*got, "video, full size, CUDA", atol=1e-4)
    finally:
        full.ours_video.to("cpu")
        full.theirs_video.to("cpu")


def test_video_tower_depends_on_every_input(tiny):
    """The cases above prove something only if each of them changes the embedding."""
    plain, _ = differ(tiny, all_there, 3, 30)
    for case in CASES[1:]:
        changed, _ = differ(tiny, case, 3, 30)
        assert (changed - plain).abs().max() > 1e-3, case.__name__


@pytest.mark.parametrize("size", ["tiny", pytest.param("full", marks=pytest.mark.slow)])
def test_video_tower_has_the_names_of_the_oracle(size, request):
    pair = request.getfixturevalue(size)
    assert list(pair.ours_video.state_dict()) == list(pair.theirs_video.state_dict())


def test_video_tower_gives_the_oracle_its_weights(tiny):
    fresh = video_oracle(tiny.config.video, seed=1)
    fresh.load_state_dict(tiny.ours_video.state_dict(), strict=True)
    inputs = random_batch(tiny.config.video.experts, 2, 5)
    assert torch.equal(run_video(fresh, *inputs), run_video(tiny.theirs_video, *inputs))


def test_video_tower_has_the_released_size():
    with torch.device("meta"):
        tower = VideoTower(RELEASED.video)
    tensors = tower.state_dict()
    assert len(tensors) == 156
    assert round(sum(tensor.numel() for tensor in tensors.values()) / 1e6, 1) == 39.5
    assert tower.config.embedding_dim == 3 * 512 == 1536


def test_video_tower_has_a_layer_for_each_block_of_another_width(tiny, assert_parity):
    """`towhee.models` sends every block through the last expert's layer; we do not."""
    config = replace(tiny.config.video, same_dim=16)
    theirs = video_oracle(config)
    ours = VideoTower(config).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    features, times, mask = random_batch(config.experts, 4, 6)
    reference = run_video(theirs, features, times, mask).unflatten(1, (3, 16))
    with torch.inference_mode():
        blocks = ours(features, times, {k: m.bool() for k, m in mask.items()}).unflatten(1, (3, 16))
    assert_parity(blocks[:, -1], reference[:, -1], "video, tiny, same_dim")
    for i, expert in enumerate(config.experts[:-1]):
        assert (blocks[:, i] - reference[:, i]).abs().max() > 0.01
        # Give the oracle this expert's layer as its last one, and it computes our block.
        swapped = video_oracle(config)
        last = config.experts[-1].name
        own = swapped.video_dim_reduce_out[expert.name].state_dict()
        swapped.video_dim_reduce_out[last].load_state_dict(own)
        right = run_video(swapped, features, times, mask).unflatten(1, (3, 16))[:, i]
        assert_parity(blocks[:, i], right, "video, tiny, same_dim")


def test_video_tower_orders_unit_blocks_as_the_experts(tiny):
    ours, _ = differ(tiny, absent_by_row, 3, 30)
    assert torch.allclose(ours.unflatten(1, (3, 24)).norm(dim=-1), torch.ones(3, 3))
    turned = replace(tiny.config.video, experts=tiny.config.video.experts[::-1])
    tower = VideoTower(turned).eval()
    tower.load_state_dict(tiny.ours_video.state_dict())
    features, times, mask = random_batch(turned.experts, 3, 4)
    mask = {name: one.bool() for name, one in mask.items()}
    with torch.inference_mode():
        a = tower(features, times, mask).unflatten(1, (3, 24))
        b = tiny.ours_video(features, times, mask).unflatten(1, (3, 24))
    assert torch.allclose(a, b.flip(1), atol=1e-5)


def test_video_tower_ignores_the_times_of_an_expert_with_an_unknown_one(tiny):
    """NaN at a valid token: position 1 for every token of that expert in that video."""
    features, times, mask = random_batch(tiny.config.video.experts, 2, 5)
    mask = {name: one.bool() for name, one in mask.items()}
    mask["wide"][0, 4] = mask["narrow"][:, 4] = False
    times["wide"][0, 4] = float("nan")  # padding: means nothing
    times["wide"][1, 2] = float("nan")
    expected = {name: one.clone() for name, one in times.items()}
    expected["wide"][0, 4] = 9.0
    expected["wide"][1] = 1.0
    with torch.inference_mode():
        got = tiny.ours_video(features, times, mask)
        assert torch.equal(got, tiny.ours_video(features, expected, mask))
    assert got.isfinite().all()


@settings(deadline=None, max_examples=15)
@given(data=st.data())
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -float("inf"), 3e38, -7.0])
def test_video_tower_ignores_the_content_of_padding(garbage, data, tiny):
    """In features and times, whatever the masks."""
    features, times, mask = random_batch(tiny.config.video.experts, 2, 4)
    mask = {name: torch.tensor(data.draw(masks(2, 4))) for name in mask}
    dirty_features = {
        name: one.masked_fill(~mask[name][..., None], garbage) for name, one in features.items()
    }
    dirty_times = {name: one.masked_fill(~mask[name], garbage) for name, one in times.items()}
    with torch.inference_mode():
        clean = tiny.ours_video(features, times, mask)
        assert torch.equal(clean, tiny.ours_video(dirty_features, dirty_times, mask))


def masks(batch: int, n: int) -> st.SearchStrategy:
    return st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=batch, max_size=batch)


def test_video_tower_does_not_change_its_inputs(tiny):
    features, times, mask = random_batch(tiny.config.video.experts, 2, 5)
    times["wide"] += 100
    copies = [{name: one.clone() for name, one in part.items()} for part in (features, times)]
    tiny.ours_video(features, times, {name: one.bool() for name, one in mask.items()})
    for before, after in zip(copies, (features, times), strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)

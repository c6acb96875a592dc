"""What the video operator takes: every form of it, what it refuses, and tokens from experts."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import run_video
from tiny import TINY

from mdmmt import InputError, InputTypeError
from mdmmt.config import ExpertConfig
from mdmmt.features.tokens import read_input, to_input, tokens_of
from mdmmt.features.types import ExpertFeatures

EXPERTS = TINY.video.experts
PARTS = ("features", "features_t", "features_ind")


def mapped(video, change, *parts):
    """A copy of a video with `change` applied to every array, or to those of some parts."""
    return {
        part: {
            name: change(one) if part in (parts or PARTS) else one for name, one in arrays.items()
        }
        for part, arrays in video.items()
    }


def stacked(videos):
    return {
        part: {name: np.stack([v[part][name] for v in videos]) for name in videos[0][part]}
        for part in PARTS
    }


def test_read_input_of_one_video_embeds_as_the_oracle_does(tiny, tiny_model, tiny_video):
    video = tiny_video()
    batch = mapped(video, lambda a: torch.tensor(a)[None])
    expected = run_video(tiny.theirs_video, *(batch[part] for part in PARTS))[0]
    vector = tiny_model.encode_video(video)
    assert vector.shape == (3 * 24,)
    assert vector.dtype == np.float32
    assert np.abs(vector - expected.numpy()).max() <= 1e-5


def test_read_input_takes_a_leading_axis_as_a_batch(tiny_model, tiny_video):
    videos = [tiny_video(seed, valid=1 + seed) for seed in range(4)]
    vectors = tiny_model.encode_video(stacked(videos))
    assert vectors.shape == (4, 72)
    np.testing.assert_allclose(vectors, [tiny_model.encode_video(v) for v in videos], atol=1e-6)
    assert tiny_model.encode_video(stacked(videos[:1])).shape == (1, 72)


def test_encode_video_of_a_list_equals_each_video_alone(tiny_model, tiny_video):
    videos = [
        tiny_video(s, tokens=t, valid=v) for s, (t, v) in enumerate([(5, 4), (1, 1), (45, 40)])
    ]
    for part in PARTS:
        del videos[1][part]["narrow"]
    alone = [tiny_model.encode_video(v) for v in videos]
    for batch_size in (1, 2, 32):
        vectors = tiny_model.encode_video(videos, batch_size=batch_size)
        np.testing.assert_allclose(vectors, alone, atol=1e-6)
    np.testing.assert_array_equal(tiny_model.encode_video(tuple(videos)), vectors)
    assert tiny_model.encode_video(videos[:1]).shape == (1, 72)


def test_read_input_takes_different_numbers_of_tokens(tiny_model, tiny_video):
    long, short = tiny_video(tokens=9, valid=9), tiny_video(tokens=2, valid=2)
    video = {part: {**long[part], "narrow": short[part]["narrow"]} for part in PARTS}
    padded = copy.deepcopy(long)
    for part in PARTS:
        padded[part]["narrow"][:2] = short[part]["narrow"]
    padded["features_ind"]["narrow"][2:] = 0
    np.testing.assert_array_equal(tiny_model.encode_video(video), tiny_model.encode_video(padded))


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "change",
    [
        torch.tensor,
        np.float64,
        lambda a: a.astype(">f4"),
        lambda a: a[::-1].copy()[::-1],
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=0)[::2],
        read_only,
        lambda a: a.tolist(),
        lambda a: torch.tensor(a, requires_grad=True),
        lambda a: torch.tensor(a, dtype=torch.float64),
        lambda a: torch.nn.Parameter(torch.tensor(a)),
    ],
    ids=[
        "torch", "float64", "big-endian", "negative stride", "Fortran", "strided", "read-only",
        "list", "requires_grad", "torch float64", "parameter",
    ],
)  # fmt: skip
def test_read_input_takes_any_kind_of_array(change, tiny_model, tiny_video):
    video = tiny_video()
    changed = mapped(video, change)
    np.testing.assert_array_equal(tiny_model.encode_video(changed), tiny_model.encode_video(video))


@pytest.mark.parametrize(
    "dtype",
    [
        np.float16, np.int8, np.int64, np.uint8, torch.float16, torch.bfloat16, torch.int32,
        torch.uint8,
    ],
    ids=str,
)  # fmt: skip
def test_read_input_takes_any_type_of_numbers(dtype, tiny_model, tiny_video):
    """Values that every type holds exactly."""
    cast = (lambda a: torch.tensor(a).to(dtype)) if isinstance(dtype, torch.dtype) else dtype
    video = mapped(tiny_video(), lambda a: np.abs(np.rint(a * 3)), "features")
    video = mapped(video, np.floor, "features_t")
    expected = tiny_model.encode_video(video)
    np.testing.assert_array_equal(tiny_model.encode_video(mapped(video, cast)), expected)


@pytest.mark.parametrize("cast", [np.bool_, np.int64, lambda a: torch.tensor(a).bool()])
def test_read_input_takes_any_type_of_masks(cast, tiny_model, tiny_video):
    video = tiny_video()
    changed = mapped(video, cast, "features_ind")
    np.testing.assert_array_equal(tiny_model.encode_video(changed), tiny_model.encode_video(video))


@pytest.mark.parametrize("cast", [np.array, torch.tensor])
def test_read_input_does_not_change_its_arrays(cast, tiny_model, tiny_video):
    """`towhee.models` clamps the caller's times in place."""
    video = mapped(tiny_video(), cast)
    video["features_t"]["wide"][:] = 500.0
    video["features"]["wide"][4] = float("nan")
    batch = mapped(video, lambda a: a[None])
    before = copy.deepcopy(video)
    for given_video in (video, batch, [video, video]):
        tiny_model.encode_video(given_video)
    for part in PARTS:
        assert list(video[part]) == list(before[part])
        for name in video[part]:
            np.testing.assert_array_equal(video[part][name], before[part][name])


def test_read_input_shares_no_memory_with_its_arrays(tiny_video):
    video = tiny_video(valid=5)
    (read,), _ = read_input(mapped(video, torch.tensor), EXPERTS)
    (again,), _ = read_input(video, EXPERTS)
    for tokens in (read, again):
        for name, one in tokens.items():
            one.features.zero_()
            assert video["features"][name].any()


garbage = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_read_input_never_reads_padding(data, tiny_model, tiny_video):
    """Any number, NaN and infinity included, in masked features and times of random masks."""
    video = tiny_video(seed=1, tokens=4, valid=4)
    for name in video["features"]:
        mask = data.draw(st.lists(st.booleans(), min_size=4, max_size=4))
        video["features_ind"][name] = np.array(mask, dtype=np.float32)
    video["features_ind"]["wide"][2] = 1
    filled = copy.deepcopy(video)
    for name, mask in filled["features_ind"].items():
        for part in ("features", "features_t"):
            with np.errstate(over="ignore"):
                filled[part][name][mask == 0] = data.draw(garbage)
    np.testing.assert_array_equal(tiny_model.encode_video(filled), tiny_model.encode_video(video))
    # Nor does it matter whether padding is there at all.
    keep = {name: mask.astype(bool) for name, mask in video["features_ind"].items()}
    short = {
        part: {name: one[keep[name]] for name, one in arrays.items() if keep[name].any()}
        for part, arrays in video.items()
    }
    np.testing.assert_array_equal(tiny_model.encode_video(short), tiny_model.encode_video(video))


def test_read_input_takes_an_absent_expert_in_any_form(tiny_model, tiny_video):
    masked = tiny_video()
    masked["features_ind"]["narrow"][:] = 0
    masked["features"]["narrow"][:] = np.nan
    left_out, empty = copy.deepcopy(masked), copy.deepcopy(masked)
    for part in PARTS:
        del left_out[part]["narrow"]
        empty[part]["narrow"] = empty[part]["narrow"][:0]
    vector = tiny_model.encode_video(masked)
    np.testing.assert_array_equal(tiny_model.encode_video(left_out), vector)
    np.testing.assert_array_equal(tiny_model.encode_video(empty), vector)
    assert np.abs(vector - tiny_model.encode_video(tiny_video())).max() > 1e-3
    assert np.linalg.norm(vector[24:48]) == pytest.approx(1.0, abs=1e-5)  # it has its block


def test_read_input_takes_a_nan_time_as_unknown_times(tiny_model, tiny_video):
    """All of them, so that they stand at position 1, and of this expert alone."""
    unknown, ones = tiny_video(), tiny_video()
    unknown["features_t"]["wide"][2] = np.nan
    ones["features_t"]["wide"][:] = 1
    vector = tiny_model.encode_video(unknown)
    np.testing.assert_array_equal(vector, tiny_model.encode_video(ones))
    assert np.abs(vector - tiny_model.encode_video(tiny_video())).max() > 1e-4


def test_read_input_clamps_infinite_times(tiny_model, tiny_video):
    infinite, clamped = tiny_video(), tiny_video()
    infinite["features_t"]["wide"][:2] = np.inf, -np.inf
    clamped["features_t"]["wide"][:2] = 31, 0
    np.testing.assert_array_equal(
        tiny_model.encode_video(infinite), tiny_model.encode_video(clamped)
    )


# Each changes a good video into a bad one; the message must hold all of the words.


def without(part, *name):
    def change(video):
        del (video[part] if name else video)[name[0] if name else part]
        return video

    return change


def setting(part, name, value):
    def change(video):
        video[part][name] = value(video[part][name]) if callable(value) else value
        return video

    return change


def at(part, name, index, value):
    def change(video):
        video[part][name][index] = value
        return video

    return change


def no_token(video):
    return mapped(video, np.zeros_like, "features_ind")


BAD = {
    "a number": (lambda v: 3, InputTypeError, ["video is a int", "a dict of expert features"]),
    "None": (lambda v: None, InputTypeError, ["video is a NoneType", "dict"]),
    "an array": (lambda v: v["features"]["wide"], InputTypeError, ["video is a ndarray", "dict"]),
    "a text": (lambda v: "Hello world", InputError, ["'Hello world'", "no file", "feature file"]),
    "an empty list": (lambda v: [], InputError, ["video is an empty list"]),
    "an empty dict": (lambda v: {}, InputError, ["none", *PARTS]),
    "a part left out": (without("features_t"), InputError, ["features, features_ind", *PARTS]),
    "a part too many": (lambda v: {**v, "x": {}}, InputError, ["x", *PARTS]),
    "a part that is no dict": (
        lambda v: {**v, "features": v["features"]["wide"]},
        InputTypeError,
        ["features is a ndarray", "dict by expert"],
    ),
    "an unknown expert": (
        lambda v: {part: {**v[part], "speech": v[part]["wide"]} for part in PARTS},
        InputError,
        ["features has the expert speech", "wide, narrow, middle"],
    ),
    "half an expert": (without("features_ind", "narrow"), InputError, ["'narrow'", "features_ind"]),
    "no expert": (lambda v: {part: {} for part in PARTS}, InputError, ["no expert", "wide"]),
    "a wrong width": (
        setting("features", "narrow", lambda a: a[:, :2]),
        InputError,
        ["'narrow'", "(5, 2)", "(n, 3)"],
    ),
    "one axis": (setting("features", "narrow", lambda a: a[0]), InputError, ["'narrow'", "(n, 3)"]),
    "four axes": (
        setting("features", "narrow", lambda a: a[None, None]),
        InputError,
        ["'narrow'", "(1, 1, 5, 3)", "(b, n, 3)"],
    ),
    "short times": (
        setting("features_t", "wide", lambda a: a[:4]),
        InputError,
        ["'wide'", "(5, 11)", "features_t (4,)", "expected (5,)"],
    ),
    "a short mask": (
        setting("features_ind", "wide", lambda a: a[:4]),
        InputError,
        ["'wide'", "features_ind (4,)", "expected (5,)"],
    ),
    "a mask of 2": (at("features_ind", "middle", 1, 2), InputError, ["'middle'", "2", "0 or 1"]),
    "a mask of 0.5": (at("features_ind", "middle", 1, 0.5), InputError, ["0.5", "0 or 1"]),
    "a mask of NaN": (at("features_ind", "middle", 1, np.nan), InputError, ["nan", "0 or 1"]),
    "NaN": (at("features", "wide", (3, 2), np.nan), InputError, ["'wide'", "token 3", "NaN"]),
    "a number too great": (at("features", "wide", (1, 2), -3e38), InputError, ["token 1", "1e+15"]),
    "infinity": (at("features", "wide", (0, 2), np.inf), InputError, ["'wide'", "token 0"]),
    "beyond float32": (
        setting("features", "wide", lambda a: a.astype(np.float64) * 1e300),
        InputError,
        ["'wide'", "float32"],
    ),
    "no valid token": (no_token, InputError, ["no valid token"]),
    "strings": (
        setting("features", "wide", lambda a: a.astype(str)),
        InputTypeError,
        ["'wide'", "features", "array of numbers"],
    ),
    "complex numbers": (
        setting("features", "wide", lambda a: a.astype(np.complex64)),
        InputTypeError,
        ["'wide'", "complex64"],
    ),
    "complex tensors": (
        setting("features", "wide", lambda a: torch.tensor(a).to(torch.complex64)),
        InputTypeError,
        ["'wide'", "complex64", "real"],
    ),
    "None for an array": (
        setting("features", "wide", None), InputTypeError, ["'wide'", "NoneType"]
    ),
    "ragged lists": (
        setting("features_t", "wide", [[1.0], [2.0, 3.0]]),
        InputTypeError,
        ["'wide'", "features_t", "list"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "words"), BAD.values(), ids=BAD)
def test_read_input_refuses_bad_input_in_one_sentence(change, error, words, tiny_model, tiny_video):
    bad = change(tiny_video())
    with pytest.raises(error) as caught:
        tiny_model.encode_video(bad)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    if isinstance(bad, dict):  # in a list, the message also says which one it is
        with pytest.raises(error, match=r"^video 1[ ,:]"):
            tiny_model.encode_video([tiny_video(), bad])


def test_read_input_raises_value_and_type_errors():
    assert issubclass(InputError, ValueError)
    assert issubclass(InputTypeError, TypeError)


def test_read_input_refuses_bad_batches(tiny_model, tiny_video):
    batch = stacked([tiny_video(0), tiny_video(1)])
    one_nan, none_valid, mixed = (copy.deepcopy(batch) for _ in range(3))
    one_nan["features"]["wide"][1, 2, 0] = np.nan
    for one in none_valid["features_ind"].values():
        one[1] = 0
    for part in PARTS:
        mixed[part]["wide"] = mixed[part]["wide"][:1]
    unbatched = {part: {**batch[part], "wide": tiny_video()[part]["wide"]} for part in PARTS}
    for bad, words in [
        (one_nan, "row 1 of the batch, expert 'wide': token 2"),
        (none_valid, "row 1 of the batch has no valid token"),
        (mixed, "batch axis .wide: 1, narrow: 2, middle: 2."),
        (unbatched, "batch axis .wide: none|wide: none"),
        (mapped(batch, lambda a: a[:0]), "batch of 0 videos"),
        ([tiny_video(), batch], "video 1 has a batch axis"),
    ]:
        with pytest.raises(InputError, match=words):
            tiny_model.encode_video(bad)


def test_read_input_counts_padding_in_the_token_of_an_error(tiny_model, tiny_video):
    video = tiny_video()
    video["features_ind"]["wide"][:] = 0, 1, 0, 1, 1
    video["features"]["wide"][3] = np.inf
    with pytest.raises(InputError, match="token 3"):
        tiny_model.encode_video(video)


ONE = [ExpertConfig("e", dim=2, type_id=1, max_tokens=3)]


def tokens(spans_s):
    spans_s = np.array(spans_s, dtype=np.float64).reshape(-1, 2)
    features = np.arange(1, 1 + 2 * len(spans_s), dtype=np.float32).reshape(-1, 2)
    item = to_input(tokens_of({"e": ExpertFeatures(features, spans_s)}, ONE), ONE)
    return [item[part]["e"].tolist() for part in PARTS]


@pytest.mark.parametrize(
    ("spans_s", "times", "mask"),
    [
        ([(0, 1), (1, 2)], [2.5, 3.5, 0], [1, 1, 0]),
        ([(10, 11), (11, 12), (12, 13)], [2.5, 3.5, 4.5], [1, 1, 1]),
        ([(3, 5), (1, 2)], [5.0, 2.5, 0], [1, 1, 0]),  # the smallest t0 is not the first
        ([(0, 1), (1, np.nan)], [1, 1, 0], [1, 1, 0]),
        ([(0, 1), (1, 2), (2, 3), (np.nan, 4)], [1, 1, 1], [1, 1, 1]),  # one beyond the kept
        ([(4, 5), (5, 6), (6, 7), (0, 1)], [6.5, 7.5, 8.5], [1, 1, 1]),  # likewise
    ],
)
def test_tokens_of_gives_times_as_the_authors_do(spans_s, times, mask):
    features, got_times, got_mask = tokens(spans_s)
    assert got_times == times
    assert got_mask == mask
    kept = min(len(spans_s), 3)
    assert features == [[1.0 + 2 * i, 2.0 + 2 * i] if i < kept else [0, 0] for i in range(3)]


def test_to_input_leaves_an_absent_expert_out(tiny_model):
    rng = np.random.default_rng(0)
    spans_s = np.stack([np.arange(9), np.arange(1, 10)], axis=1)
    features = {"wide": ExpertFeatures(rng.standard_normal((9, 11)), spans_s)}
    item = to_input(tokens_of(features, EXPERTS), EXPERTS)
    assert list(item["features"]) == ["wide"]
    assert item["features"]["wide"].shape == (6, 11)
    assert item["features"]["wide"].dtype == np.float32
    assert tiny_model.encode_video(item).shape == (72,)


def test_tokens_of_refuses_another_models_experts(tiny_model):
    values, spans_s = np.ones((2, 11)), np.array([[0, 1], [1, 2]])
    features = ExpertFeatures(values, spans_s)
    with pytest.raises(InputError, match=r"expert speech.*wide, narrow, middle"):
        tokens_of({"speech": features}, EXPERTS)
    with pytest.raises(InputError, match=r"'narrow': features are \(2, 11\)"):
        tiny_model.encode_video({"narrow": features})
    with pytest.raises(InputError, match=r"'narrow': features are \(2, 1\)"):
        tiny_model.encode_video({"narrow": ExpertFeatures(values[:, :1], spans_s)})


def test_tokens_of_refuses_a_video_without_features():
    with pytest.raises(InputError, match="video has no features, expected some of e"):
        tokens_of({"e": ExpertFeatures(np.ones((0, 2)), np.ones((0, 2)))}, ONE)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e16])
def test_tokens_of_refuses_numbers_that_no_model_can_take(bad):
    values = np.ones((3, 2))
    values[1, 0] = bad
    features = ExpertFeatures(values, np.arange(6).reshape(3, 2))
    with pytest.raises(InputError, match="a video, expert 'e': token 1 holds NaN, infinity or"):
        tokens_of({"e": features}, ONE, "a video")


@pytest.mark.cuda
def test_read_input_takes_arrays_of_another_device(
    tiny_folder, tiny_model, tiny_video, cuda_without_tf32
):
    import mdmmt

    video = tiny_video()
    on_cuda = mdmmt.load(tiny_folder, "cuda")
    expected = tiny_model.encode_video(video)
    there = mapped(video, lambda a: torch.tensor(a, device="cuda"))
    mixed = mapped(video, lambda a: torch.tensor(a, device="cuda"), "features")
    for model in (tiny_model, on_cuda):
        for given_video in (video, there, mixed):
            np.testing.assert_allclose(model.encode_video(given_video), expected, atol=1e-4)
    np.testing.assert_allclose(
        on_cuda.encode_text(["a dog"]), tiny_model.encode_text(["a dog"]), atol=1e-4
    )

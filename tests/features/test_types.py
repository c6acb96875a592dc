"""The features of one expert: the arrays that are taken, and what a model refuses."""

from __future__ import annotations

import numpy as np
import pytest

from mdmmt.errors import InputError, InputTypeError
from mdmmt.features.types import MAX_ABS_FEATURE, ExpertFeatures, first_bad


def spans(n: int) -> np.ndarray:
    return np.stack([np.arange(n), np.arange(n) + 1.0], axis=1)


def test_expert_features_does_not_copy_arrays_of_its_dtypes():
    values, times_s = np.ones((3, 4), np.float32), spans(3)
    features = ExpertFeatures(values, times_s)
    assert features.values is values and features.times_s is times_s
    assert len(features) == 3


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8, bool])
def test_expert_features_takes_other_real_numbers(dtype):
    features = ExpertFeatures(np.ones((2, 3), dtype), np.zeros((2, 2), dtype))
    assert (features.values.dtype, features.times_s.dtype) == (np.float32, np.float64)
    assert (features.values == 1).all() and features.values.shape == (2, 3)


@pytest.mark.parametrize(
    ("values", "times_s"),
    [((3,), (3, 2)), ((3, 4, 1), (3, 2)), ((3, 4), (2, 2)), ((3, 4), (3,)), ((3, 4), (3, 3))],
)
def test_expert_features_refuses_shapes_that_do_not_fit(values, times_s):
    with pytest.raises(InputError, match=r"expected \(n, d\) and \(n, 2\)") as caught:
        ExpertFeatures(np.zeros(values), np.zeros(times_s))
    assert str(values) in str(caught.value) and str(times_s) in str(caught.value)


@pytest.mark.parametrize("bad", [np.array([["a", "b"]]), np.zeros((1, 2), complex), [[None, 1]]])
def test_expert_features_refuses_what_are_not_real_numbers(bad):
    with pytest.raises(InputTypeError, match=r"^values are .*, expected real numbers"):
        ExpertFeatures(bad, spans(1))
    with pytest.raises(InputTypeError, match=r"^times_s are .*, expected real numbers"):
        ExpertFeatures(np.zeros((1, 2)), bad)


def test_expert_features_slices_are_views():
    features = ExpertFeatures(np.ones((5, 4), np.float32), spans(5))
    part = features[1:3]
    assert isinstance(part, ExpertFeatures) and len(part) == 2
    assert np.shares_memory(part.values, features.values)
    assert np.shares_memory(part.times_s, features.times_s)
    np.testing.assert_array_equal(part.times_s, [[1, 2], [2, 3]])


def test_expert_features_keeps_memory_maps(tmp_path):
    np.save(tmp_path / "values.npy", np.ones((3, 4), np.float32))
    features = ExpertFeatures(np.load(tmp_path / "values.npy", mmap_mode="r"), spans(3))
    assert isinstance(features.values, np.memmap) and isinstance(features[1:].values, np.memmap)


def test_expert_features_have_times_unless_one_is_nan():
    times_s = spans(2)
    assert ExpertFeatures(np.ones((2, 3)), times_s).have_times
    times_s[1, 1] = np.nan
    assert not ExpertFeatures(np.ones((2, 3)), times_s).have_times


def test_expert_features_check_refuses_another_width():
    features = ExpertFeatures(np.ones((2, 3)), spans(2))
    features.check(3, "video 0")
    with pytest.raises(InputError, match=r"^video 0: features are \(2, 3\), expected \(n, 4\)$"):
        features.check(4, "video 0")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2e15, -2e15, 1e300])
def test_expert_features_check_refuses_the_first_bad_token(bad):
    values = np.ones((4, 3))
    values[2, 1] = values[3, 0] = bad
    with pytest.raises(InputError, match=r"^video 0: token 2 holds NaN, infinity or more than"):
        ExpertFeatures(values, spans(4)).check(3, "video 0")


def test_first_bad_takes_the_greatest_number_and_no_features():
    assert first_bad(np.full((2, 3), MAX_ABS_FEATURE * 0.999, np.float32)) is None
    assert first_bad(np.zeros((0, 3), np.float32)) is None

"""Experts on whole files: features with their seconds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import BIG_BUCK_BUNNY, BIKES, flat, footage, moved, write_video

from mdmmt.errors import InputError
from mdmmt.experts import LIGHT_EXPERTS, expert_classes
from mdmmt.features.extraction import BATCH_SIZE, extract
from mdmmt.features.segments import select

EXPERTS = expert_classes(LIGHT_EXPERTS)


def test_extract_gives_features_with_their_seconds(tmp_path):
    frames = np.concatenate([moved(1, 0)] * 4)
    t = np.arange(64000) / 16000
    path = write_video(tmp_path / "a.mkv", frames, 12, 0.3 * np.sin(2 * np.pi * 500 * t)[None])
    found = extract(path, LIGHT_EXPERTS)
    assert tuple(found) == LIGHT_EXPERTS
    lengths_s = {"frame": 1 / 4, "motion": 1.0, "sound": 0.5}
    for name, one in found.items():
        features, times = one.values, one.times_s
        assert features.shape == (len(times), EXPERTS[name].dim) and features.dtype == np.float32
        starts = np.arange(len(times)) * lengths_s[name]
        np.testing.assert_allclose(times, np.stack([starts, starts + lengths_s[name]], 1))
    assert len(found["frame"]) >= BATCH_SIZE  # more than one batch, joined in order
    alone = extract(path, ["motion"])["motion"].values
    np.testing.assert_array_equal(alone, found["motion"].values)


def test_extract_leaves_out_experts_without_features(tmp_path):
    silent = write_video(tmp_path / "silent.mkv", flat([5, 5, 5]))
    short = write_video(tmp_path / "short.mkv", flat([5] * 5), 10, np.zeros((1, 1000)))
    assert list(extract(silent, ["sound", "frame"])) == ["frame"]
    assert list(extract(short, ["sound", "frame"])) == ["frame"]
    assert extract(silent, ["sound"]) == {}


def test_extract_refuses_an_unknown_expert_by_name(tmp_path):
    with pytest.raises(InputError, match=r"speech.*frame, motion, sound"):
        extract(tmp_path / "a.mp4", ["frame", "speech"])


@pytest.mark.parametrize("size", [(16, 400), (300, 18), (2, 2)])
@pytest.mark.parametrize("count", [1, 7])
def test_extract_takes_any_size_and_length(tmp_path, size, count):
    frames = np.random.default_rng(0).integers(0, 255, (count, *size, 3), dtype=np.uint8)
    found = extract(write_video(tmp_path / "a.mkv", frames), ["frame", "motion"])
    assert set(found) == {"frame", "motion"}
    assert all(np.isfinite(one.values).all() for one in found.values())


@pytest.mark.parametrize(
    "name, seconds, experts",
    [(BIG_BUCK_BUNNY, 5.3, {"frame", "motion", "sound"}), (BIKES, 10.0, {"frame", "motion"})],
)
def test_extract_describes_real_footage(name, seconds, experts):
    found = extract(footage(name), LIGHT_EXPERTS)
    assert set(found) == experts
    for one in found.values():
        features, times = one.values, one.times_s
        assert np.isfinite(features).all()
        assert np.abs(features).max() < 5 and features.std(axis=0).max() > 0.05
        assert abs(times[-1, 1] - seconds) <= 1


@settings(max_examples=15, deadline=None)
@given(start_s=st.floats(0, 25), length_s=st.floats(0.01, 20))
def test_extract_of_a_part_gives_what_a_selection_of_the_whole_gives(
    start_s, length_s, long, running, whole
):
    part = select(extract(long, running, start_s, start_s + length_s), start_s, 1e9)
    part = select(part, start_s, start_s + length_s)
    expected = select(whole, start_s, start_s + length_s)
    assert list(part) == list(expected)
    for name in part:
        np.testing.assert_array_equal(part[name].times_s, expected[name].times_s)
        np.testing.assert_allclose(part[name].values, expected[name].values, atol=1e-6)

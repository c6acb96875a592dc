"""Near-duplicates by features: planted copies are found, and nothing is in noise."""

from __future__ import annotations

import numpy as np
import pytest
from copies import copy, cut_out, join
from hypothesis import given, settings
from hypothesis import strategies as st
from media import BIKES, footage
from sample_clips import draw_sample_clips

from mdmmt.cli.duplicates import DEFAULT_THRESHOLD_S
from mdmmt.datasets import duplicates, find_duplicates
from mdmmt.errors import InputError
from mdmmt.experts import LIGHT_EXPERTS, load
from mdmmt.features import extract
from mdmmt.features.types import ExpertFeatures

WIDTH = 24


def scenes(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """The look of each quarter of a second, which changes as a film does: (4 seconds, width)."""
    knots = rng.normal(size=(seconds + 2, WIDTH))
    at = np.arange(4 * seconds) / 4
    low, share = at.astype(int), (at % 1)[:, None]
    return (1 - share) * knots[low] + share * knots[low + 1] + 3.0  # the mean is not 0


def features(values: np.ndarray, **more: np.ndarray) -> dict[str, ExpertFeatures]:
    """Features of a quarter of a second each."""
    experts = {"frame": values, **more}
    return {
        name: ExpertFeatures(one, np.arange(len(one))[:, None] / 4 + [0, 0.25])
        for name, one in experts.items()
    }


def collection(rng: np.random.Generator, count: int, seconds: int = 12) -> dict:
    return {f"{i}.mp4": features(scenes(rng, seconds)) for i in range(count)}


@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(4, 12),
    in_a=st.integers(0, 6),
    quarters_in_b=st.integers(0, 40),
    noise=st.floats(0, 0.1),
)
@settings(max_examples=25, deadline=None)
def test_a_copied_stretch_is_found_at_its_place(seed, length, in_a, quarters_in_b, noise):
    """Whatever comes before and after it, and at any quarter of a second of the longer file."""
    rng = np.random.default_rng(seed)
    shared = scenes(rng, length)
    copy = shared + noise * rng.normal(size=shared.shape)
    a, b = collection(rng, 4), collection(rng, 4)
    a["cut.mp4"] = features(np.concatenate([scenes(rng, 6)[: 4 * in_a], copy, scenes(rng, 3)]))
    b["film.mp4"] = features(
        np.concatenate([scenes(rng, 10)[:quarters_in_b], shared, scenes(rng, 5)])
    )
    (found,) = find_duplicates(a, b)
    test, train = found
    assert (test.video, train.video) == ("cut.mp4", "film.mp4")
    assert test.end_s - test.start_s == pytest.approx(length, abs=1.5)
    assert test.start_s == pytest.approx(in_a, abs=1)
    assert train.start_s - test.start_s == pytest.approx(quarters_in_b / 4 - in_a, abs=0.25)
    assert train.end_s - train.start_s == pytest.approx(test.end_s - test.start_s)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_nothing_is_found_in_independent_scenes(seed):
    rng = np.random.default_rng(seed)
    assert find_duplicates(collection(rng, 12), collection(rng, 12)) == []


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_sets_changes_no_pair(seed):
    rng = np.random.default_rng(seed)
    a, b = collection(rng, 6), collection(rng, 6)
    for i in range(3):
        b[f"copy{i}.mp4"] = a[f"{i}.mp4"]
    there = {(one.test.video, one.train.video) for one in find_duplicates(a, b)}
    back = {(one.train.video, one.test.video) for one in find_duplicates(b, a)}
    assert there == back == {(f"{i}.mp4", f"copy{i}.mp4") for i in range(3)}


def test_within_one_set_each_pair_is_found_once_and_no_video_with_itself():
    videos = collection(np.random.default_rng(0), 8)
    videos["again.mp4"] = videos["3.mp4"]
    (found,) = find_duplicates(videos, videos)
    assert (found.test.video, found.train.video) == ("3.mp4", "again.mp4")


def test_two_stretches_of_one_film_are_two_duplicates():
    rng = np.random.default_rng(1)
    early, late = scenes(rng, 6), scenes(rng, 6)
    a, b = collection(rng, 4), collection(rng, 4)
    a["a.mp4"] = features(np.concatenate([early, scenes(rng, 4), late]))
    b["b.mp4"] = features(np.concatenate([late, scenes(rng, 7), early]))
    found = sorted(find_duplicates(a, b))
    places = [(round(one.test.start_s), round(one.train.start_s)) for one in found]
    assert places == [(0, 13), (10, 0)]


def test_segments_end_with_their_videos():
    rng = np.random.default_rng(2)
    a, b = collection(rng, 3), collection(rng, 3)
    a["a.mp4"] = features(scenes(rng, 4)[:-2])
    b["b.mp4"] = a["a.mp4"]
    (found,) = find_duplicates(a, b)
    assert found.test[1:] == found.train[1:] == (0, 3.5)


def test_surer_duplicates_come_first():
    rng = np.random.default_rng(3)
    a, b = collection(rng, 5), collection(rng, 5)
    for name, seconds in (("d.mp4", 4), ("f.mp4", 9), ("e.mp4", 6)):
        a[name] = b[name] = features(scenes(rng, seconds))
    found = [one.test.video for one in find_duplicates(a, b)]
    assert found == ["f.mp4", "e.mp4", "d.mp4"]


def test_a_higher_threshold_finds_only_longer_duplicates():
    rng = np.random.default_rng(4)
    a, b = collection(rng, 5), collection(rng, 5)
    for name, seconds in (("short", 4), ("long", 9)):
        a[name] = b[name] = features(scenes(rng, seconds))
    assert [one.test.video for one in find_duplicates(a, b, threshold_s=6)] == ["long"]


def test_what_many_videos_have_is_no_duplicate():
    """Such as black at the beginning; but a copy with it is still one."""
    rng = np.random.default_rng(5)
    black = np.full((20, WIDTH), -9.0)

    def with_black(count):
        return {f"{i}.mp4": features(np.concatenate([black, scenes(rng, 6)])) for i in range(count)}

    a, b = with_black(40), with_black(40)
    b["copy.mp4"] = a["7.mp4"]
    (found,) = find_duplicates(a, b)
    assert (found.test.video, found.train.video) == ("7.mp4", "copy.mp4")


def test_the_sound_alone_makes_no_duplicate():
    rng = np.random.default_rng(6)
    song = scenes(rng, 10)

    def silent_and(name):
        videos = {f"{i}.mp4": features(scenes(rng, 10), sound=scenes(rng, 10)) for i in range(5)}
        return videos | {name: {"sound": features(song)["frame"]}}

    a, b = silent_and("a.mp3"), silent_and("b.mp3")
    assert find_duplicates(a, b) == []
    (found,) = find_duplicates(a, b, experts=["sound"])
    assert (found.test.video, found.train.video) == ("a.mp3", "b.mp3")


def test_experts_that_one_video_lacks_do_not_count():
    rng = np.random.default_rng(7)
    a = {f"{i}.mp4": features(scenes(rng, 10), sound=scenes(rng, 10)) for i in range(5)}
    b = {f"{i}.mp4": features(scenes(rng, 10), sound=scenes(rng, 10)) for i in range(5)}
    b["silent.mp4"] = {"frame": a["2.mp4"]["frame"]}
    (found,) = find_duplicates(a, b)
    assert (found.test.video, found.train.video) == ("2.mp4", "silent.mp4")


def test_blocks_of_any_size_give_the_same(monkeypatch):
    rng = np.random.default_rng(8)
    a, b = collection(rng, 6), collection(rng, 6)
    a["a.mp4"] = b["b.mp4"] = features(scenes(rng, 30))
    found = find_duplicates(a, b)
    monkeypatch.setattr(duplicates, "ROWS_A", 7)
    monkeypatch.setattr(duplicates, "ROWS_B", 11)
    assert find_duplicates(a, b) == found != []


def test_short_and_empty_videos_are_no_trouble():
    rng = np.random.default_rng(9)
    a = collection(rng, 3) | {"empty.mp4": {}, "short.mp4": features(scenes(rng, 1)[:1])}
    assert find_duplicates(a, a) == []


@pytest.mark.parametrize(
    ("values", "times_s", "complaint"),
    [
        (np.ones((3, WIDTH)), np.full((3, 2), np.nan), "the times of the features are unknown"),
        (np.ones((3, WIDTH)), np.array([[2, 3], [1, 2], [0, 1]]), "out of order"),
        (np.ones((3, WIDTH + 1)), np.arange(6).reshape(3, 2), "expected"),
        (np.full((3, WIDTH), np.nan), np.arange(6).reshape(3, 2), "holds NaN"),
    ],
)
def test_a_bad_video_is_named(values, times_s, complaint):
    a = collection(np.random.default_rng(10), 3)
    b = a | {"bad.mp4": {"frame": ExpertFeatures(values, times_s)}}
    with pytest.raises(InputError, match=r"'bad\.mp4', expert frame") as raised:
        find_duplicates(a, b)
    assert complaint in str(raised.value)


def test_sets_without_a_common_expert_are_refused():
    a = collection(np.random.default_rng(11), 2)
    b = {name: {"motion": one["frame"]} for name, one in a.items()}
    with pytest.raises(InputError, match="features of frame and motion, expected at least one"):
        find_duplicates(a, b)
    with pytest.raises(InputError, match="do not both have features of CLIP, expected some of"):
        find_duplicates(a, a, experts=["CLIP"])


def test_the_command_has_the_threshold_of_the_function():
    assert duplicates.THRESHOLD_S == DEFAULT_THRESHOLD_S


@pytest.mark.slow
def test_copies_of_real_files_are_found(tmp_path):
    """Encoded anew, cropped, and cut out of a longer file at no whole second."""
    folders = test, train, parts = [tmp_path / name for name in ("test", "train", "parts")]
    for folder in folders:
        folder.mkdir()
    clips = [clip.path for clip in draw_sample_clips(train, 16, seed=90)]
    for path in draw_sample_clips(test, 8, seed=91):  # of which the other set has none
        path.path.rename(test / f"new-{path.path.name}")
    join([clip.path for clip in draw_sample_clips(parts, 5, seed=92)], train / "film.mp4")
    (train / BIKES).symlink_to(footage(BIKES))
    for path in (*clips[:4], train / BIKES):
        copy(path, test / path.name, "re-encoded")
    for path in clips[4:8]:
        copy(path, test / path.name, "cropped 5 %")
    cut_out(train / "film.mp4", test / "film-cut.mp4", 3.35, 6.0)
    cut_out(train / BIKES, test / "bikes-cut.mp4", 2.6, 5.0)
    experts = load(LIGHT_EXPERTS)
    a, b = (
        {path.name: extract(path, experts) for path in sorted(one.iterdir())}
        for one in (test, train)
    )
    found = find_duplicates(a, b)
    copied = [*(path.name for path in clips[:8]), BIKES]
    expected = {(name, name) for name in copied}
    expected |= {("film-cut.mp4", "film.mp4"), ("bikes-cut.mp4", BIKES)}
    assert {(one.test.video, one.train.video) for one in found} == expected
    began_s = {one.test.video: one.train.start_s - one.test.start_s for one in found}
    assert began_s["film-cut.mp4"] == pytest.approx(3.35, abs=0.5)
    assert began_s["bikes-cut.mp4"] == pytest.approx(2.6, abs=0.5)

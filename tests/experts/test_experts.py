"""The light experts: what they promise on plain pictures and sounds, and on real footage."""

import numpy as np
import pytest
from media import BIG_BUCK_BUNNY, BIKES, flat, footage, write_video

from mdmmt.errors import InputError
from mdmmt.experts import (
    LIGHT_EXPERTS,
    AudioSpec,
    FrameSpec,
    expert_classes,
)
from mdmmt.experts.frame import BRIGHTNESSES, DIRECTIONS, HUES
from mdmmt.experts.motion import THIRDS
from mdmmt.features.extraction import BATCH_SIZE, extract

EXPERTS = expert_classes(LIGHT_EXPERTS)
FRAME, MOTION, SOUND = (expert() for expert in EXPERTS.values())
# The columns of `motion` that say what it fits over the whole second.
RIGHT, DOWN, GROWTH, FLICKER, DRIFT_RIGHT, DRIFT_DOWN = range(4 * THIRDS, 4 * THIRDS + 6)


def block(x, y, side=14, colour=(220, 40, 40)):
    """A square on grey: (64, 64, 3)."""
    frame = np.full((64, 64, 3), 40, dtype=np.uint8)
    frame[y : y + side, x : x + side] = colour
    return frame


def moved(step_x, step_y):
    return np.stack([block(25 + i * step_x, 25 + i * step_y) for i in range(12)])


def similar(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("name", LIGHT_EXPERTS)
def test_features_are_as_declared_and_repeatable(name):
    expert, rng = EXPERTS[name](), np.random.default_rng(0)
    if isinstance(expert.spec, FrameSpec):
        size = (5, expert.spec.clip_frames, expert.spec.crop, expert.spec.crop, 3)
        clips = rng.integers(0, 256, size, dtype=np.uint8)
    else:
        assert isinstance(expert.spec, AudioSpec)
        samples = round(expert.spec.sample_rate_hz * expert.spec.window_s)
        clips = rng.uniform(-1, 1, (5, samples)).astype(np.float32)
    before = clips.copy()
    features = expert.features(clips)
    assert expert.name == name
    assert features.shape == (5, expert.dim) and features.dtype == np.float32
    assert np.isfinite(features).all() and np.abs(features).max() < 5
    assert np.array_equal(features, EXPERTS[name]().features(clips))
    np.testing.assert_allclose(features[2:3], expert.features(clips[2:3]), atol=1e-6)
    assert np.array_equal(clips, before)


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("expert", [FRAME, MOTION, SOUND], ids=lambda e: e.name)
def test_emptiness_is_finite(expert, value):
    if isinstance(expert.spec, FrameSpec):
        clips = np.full((1, expert.spec.clip_frames, 64, 64, 3), value, dtype=np.uint8)
    else:
        clips = np.full((1, 8000), value / 255, dtype=np.float32)
    assert np.isfinite(expert.features(clips)).all()


def test_frame_tells_colour_and_shape_wherever_they_are():
    y, x = np.mgrid[:64, :64]
    disc = block(0, 0, side=0)
    disc[(x - 40) ** 2 + (y - 20) ** 2 < 64] = (220, 40, 40)
    bar = block(0, 0, side=0)
    bar[10:50, 30:36] = (220, 40, 40)
    pictures = [block(5, 10), block(40, 45), block(5, 10, colour=(40, 60, 220)), disc, bar]
    features = FRAME.features(np.stack(pictures)[:, None])
    hues, edges = features[:, :HUES], features[:, HUES + BRIGHTNESSES :][:, :DIRECTIONS]
    assert similar(hues[0], hues[1]) > 0.99 and similar(edges[0], edges[1]) > 0.99
    assert similar(hues[0], hues[2]) < 0.1
    assert similar(edges[0], edges[3]) < 0.9
    outline = features[:, HUES + BRIGHTNESSES + DIRECTIONS : -4]
    assert similar(outline[0], outline[1]) > 0.95 and similar(outline[0], outline[4]) < 0.8


@pytest.mark.parametrize("step_x, step_y", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_motion_tells_the_direction(step_x, step_y):
    (features,) = MOTION.features(moved(step_x, step_y)[None])
    along = features[[RIGHT, DOWN]] @ (step_x, step_y)
    across = features[[RIGHT, DOWN]] @ (step_y, step_x)
    assert along > 0.4 and abs(across) < 0.1 and abs(features[GROWTH]) < 0.2
    np.testing.assert_allclose(
        features[[DRIFT_RIGHT, DRIFT_DOWN]] / np.hypot(*features[[DRIFT_RIGHT, DRIFT_DOWN]]),
        (step_x, step_y),
        atol=0.1,
    )


def test_motion_follows_what_blinks_as_it_moves():
    clip = moved(1, 0)
    clip[2:5] = clip[8:10] = 40
    (features,) = MOTION.features(clip[None])
    assert features[DRIFT_RIGHT] > 0.2 and abs(features[DRIFT_DOWN]) < 0.05


def test_motion_tells_growing_and_blinking_from_standing_still():
    still = moved(0, 0)
    grows = np.stack([block(30 - i, 30 - i, side=6 + 2 * i) for i in range(12)])
    blinks = still.copy()
    blinks[3:6] = blinks[9:] = 40
    still, grows, shrinks, blinks = MOTION.features(np.stack([still, grows, grows[::-1], blinks]))
    assert np.abs(still[[RIGHT, DOWN, GROWTH, FLICKER, DRIFT_RIGHT, DRIFT_DOWN]]).max() < 0.01
    assert grows[GROWTH] > 0.2 and shrinks[GROWTH] < -0.2
    assert blinks[FLICKER] > 0.3 and abs(blinks[GROWTH]) < 0.1


def test_sound_tells_rising_from_falling():
    t = np.arange(8000) / 16000
    rising = np.sin(2 * np.pi * (400 * t + 600 * t**2))
    rise, fall = SOUND.features(np.stack([rising, rising[::-1]]).astype(np.float32) * 0.3)
    assert rise[-1] > 0.1 and fall[-1] < -0.1


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


def test_experts_that_found_nothing_are_left_out(tmp_path):
    silent = write_video(tmp_path / "silent.mkv", flat([5, 5, 5]))
    short = write_video(tmp_path / "short.mkv", flat([5] * 5), 10, np.zeros((1, 1000)))
    assert list(extract(silent, ["sound", "frame"])) == ["frame"]
    assert list(extract(short, ["sound", "frame"])) == ["frame"]
    assert extract(silent, ["sound"]) == {}


def test_an_unknown_expert_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"speech.*frame, motion, sound"):
        extract(tmp_path / "a.mp4", ["frame", "speech"])


@pytest.mark.parametrize("size", [(16, 400), (300, 18), (2, 2)])
@pytest.mark.parametrize("count", [1, 7])
def test_any_size_and_length(tmp_path, size, count):
    frames = np.random.default_rng(0).integers(0, 255, (count, *size, 3), dtype=np.uint8)
    found = extract(write_video(tmp_path / "a.mkv", frames), ["frame", "motion"])
    assert set(found) == {"frame", "motion"}
    assert all(np.isfinite(one.values).all() for one in found.values())


@pytest.mark.parametrize(
    "name, seconds, experts",
    [(BIG_BUCK_BUNNY, 5.3, {"frame", "motion", "sound"}), (BIKES, 10.0, {"frame", "motion"})],
)
def test_real_footage(name, seconds, experts):
    found = extract(footage(name), LIGHT_EXPERTS)
    assert set(found) == experts
    for one in found.values():
        features, times = one.values, one.times_s
        assert np.isfinite(features).all()
        assert np.abs(features).max() < 5 and features.std(axis=0).max() > 0.05
        assert abs(times[-1, 1] - seconds) <= 1

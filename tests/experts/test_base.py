"""The contract of an expert, held by the light ones."""

import numpy as np
import pytest

from mdmmt.experts import LIGHT_EXPERTS, expert_classes
from mdmmt.media.specs import AudioSpec, FrameSpec

EXPERTS = expert_classes(LIGHT_EXPERTS)


@pytest.mark.parametrize("name", LIGHT_EXPERTS)
def test_light_experts_give_the_declared_features_repeatably(name):
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
@pytest.mark.parametrize("name", LIGHT_EXPERTS)
def test_light_experts_give_finite_features_of_emptiness(name, value):
    expert = EXPERTS[name]()
    if isinstance(expert.spec, FrameSpec):
        clips = np.full((1, expert.spec.clip_frames, 64, 64, 3), value, dtype=np.uint8)
    else:
        clips = np.full((1, 8000), value / 255, dtype=np.float32)
    assert np.isfinite(expert.features(clips)).all()

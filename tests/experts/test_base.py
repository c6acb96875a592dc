"""The contract of an expert, held by the light ones."""

import numpy as np
import pytest
import torch

import mdmmt
from mdmmt.errors import InputError, MissingDependency
from mdmmt.experts import LIGHT_EXPERTS, expert_classes, load
from mdmmt.experts.base import check_precision
from mdmmt.kernels import cpu
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


def test_check_precision_refuses_an_unknown_one():
    with pytest.raises(InputError, match="'int4', expected exact or float16 or int8"):
        check_precision("int4", torch.device("cpu"))
    with pytest.raises(InputError, match="'int4', expected exact or float16 or int8"):
        mdmmt.load("sample", experts_precision="int4")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_check_precision_refuses_8_bits_without_their_instructions(device, monkeypatch):
    monkeypatch.setattr(cpu, "has_instructions", lambda name: False)
    with pytest.raises(InputError, match=rf"AVX512-VNNI; on this {device} device, use 'exact'"):
        check_precision("int8", torch.device(device))


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_check_precision_refuses_float16_without_cuda(device):
    with pytest.raises(InputError, match=f"needs CUDA; on this {device} device, use 'exact'"):
        check_precision("float16", torch.device(device))
    assert check_precision("float16", torch.device("cuda", 1)) == "float16"


def test_check_precision_names_the_extra_that_8_bits_need(monkeypatch):
    monkeypatch.setattr(cpu, "has_onednn", lambda device: True)
    monkeypatch.setattr(cpu, "has_instructions", lambda name: True)
    monkeypatch.setattr(cpu, "has_openvino", lambda device: False)
    with pytest.raises(MissingDependency, match=r"'int8' .* pip install 'mdmmt\[openvino\]'"):
        check_precision("int8", torch.device("cpu"))


def test_light_experts_are_the_same_in_every_precision():
    for name, expert in load(LIGHT_EXPERTS, precision="int8").items():
        assert type(expert) is EXPERTS[name] and expert.version == EXPERTS[name].version

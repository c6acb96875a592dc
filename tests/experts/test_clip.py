"""The CLIP expert: transformers' image tower on the authors' pixels, loaded strictly."""

import json
from typing import Any

import numpy as np
import pytest
import seeded
import torch
from closeness import centred_cosines
from media import flat, write_video
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from mdmmt.errors import WeightsError
from mdmmt.experts.clip import MEAN, STD, ClipExpert
from mdmmt.experts.pretrained import normalise
from mdmmt.features import extract
from mdmmt.kernels import private

TINY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 32,
    "projection_dim": 512,
}
TEXT = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.fixture(scope="module")
def tower() -> CLIPVisionModelWithProjection:
    torch.manual_seed(0)
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY)).eval()


@pytest.fixture(scope="module")
def folder(tower, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-clip")
    tower.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expert(folder) -> ClipExpert:
    return ClipExpert.load(folder)


def lively_tower(**other: Any) -> CLIPVisionModelWithProjection:
    """A tower whose features tell pictures apart."""
    torch.manual_seed(1)
    network = CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY | other)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def frames(count: int) -> np.ndarray:
    return seeded.pictures(0, 4 * count, 228)[::4, None]


def test_features_are_those_of_the_tower_for_the_authors_pixels(tower, expert):
    clips = frames(3)
    before = clips.copy()
    colours = clips[:, 0].astype(np.float64)[:, 0:224, 0:224] / 255
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = torch.from_numpy((colours - mean) / std).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        wanted = tower(pixel_values=pixels).image_embeds.numpy()
    features = expert.features(clips)
    assert features.shape == (3, 512) and features.dtype == np.float32
    np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(expert.features(clips[1:2]), features[1:2], rtol=1e-4, atol=1e-6)
    assert np.array_equal(clips, before)


@pytest.mark.parametrize(
    "other",
    [{"patch_size": 30}, {"hidden_act": "gelu"}, {"num_hidden_layers": 1, "layer_norm_eps": 0.1}],
)
@pytest.mark.parametrize("is_packed", [True, False])
def test_features_of_other_towers_are_those_of_transformers(other, is_packed, monkeypatch):
    if not is_packed:
        monkeypatch.setattr(private, "has_packed_linear", lambda _: False)
    network = lively_tower(**other)
    clips = frames(2)
    pixels = normalise(torch.from_numpy(clips[:, 0, :224, :224]), MEAN, STD).permute(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = network(pixel_values=pixels).image_embeds.numpy()
    features = ClipExpert(network, torch.device("cpu")).features(clips)
    np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_float16_keeps_pictures_apart(device, request):
    """Less their mean, which a constant output would not keep."""
    if device == "cuda":
        request.getfixturevalue("cuda_without_tf32")
    clips = frames(8)
    exact, half = (
        ClipExpert(lively_tower(), torch.device(device), precision=precision)
        for precision in ("exact", "float16")
    )
    wanted, features = exact.features(clips), half.features(clips)
    assert features.dtype == np.float32 and not np.array_equal(wanted, features)
    assert "float16" in half.version and "float16" not in exact.version
    assert centred_cosines(wanted, features).min() >= 0.999


@pytest.mark.parametrize("row, column, seen", [(0, 0, 1), (223, 223, 1), (224, 0, 0), (0, 224, 0)])
def test_features_depend_on_the_upper_left_224_pixels(expert, row, column, seen):
    clips = frames(2)
    clips[1] = clips[0]
    clips[1, 0, row, column] = 255 - clips[1, 0, row, column]
    one, other = expert.features(clips)
    assert bool(np.abs(one - other).max() > 1e-6) == bool(seen)


def test_spec_is_as_the_authors_cut_frames():
    spec = ClipExpert.spec
    assert (spec.fps, spec.short_side, spec.crop, spec.clip_frames) == (1, 228, 228, 1)


def test_load_takes_the_image_tower_of_a_whole_clip_model(tower, expert, tmp_path):
    config = CLIPConfig(text_config=TEXT, vision_config=TINY, projection_dim=512)
    whole = CLIPModel(config)
    whole.vision_model.load_state_dict(tower.vision_model.state_dict())
    whole.visual_projection.load_state_dict(tower.visual_projection.state_dict())
    whole.save_pretrained(tmp_path)
    features = ClipExpert.load(tmp_path).features(frames(1))
    np.testing.assert_array_equal(features, expert.features(frames(1)))


def published_layout(folder, tower) -> None:
    """The kind of file that openai/clip-vit-base-patch32 holds."""
    old = {f"text_model.{name}": torch.ones(1) for name in ("encoder.x", "final_layer_norm.bias")}
    old |= {"logit_scale": torch.ones(()), "text_projection.weight": torch.ones(1)}
    old |= {"vision_model.embeddings.position_ids": torch.arange(50)[None]}
    torch.save(tower.state_dict() | old, folder / "pytorch_model.bin")
    config = {"model_type": "clip", "projection_dim": 512, "vision_config": TINY}
    (folder / "config.json").write_text(json.dumps(config))


def test_load_reads_the_published_layout(tower, expert, tmp_path):
    published_layout(tmp_path, tower)
    features = ClipExpert.load(tmp_path).features(frames(1))
    np.testing.assert_array_equal(features, expert.features(frames(1)))


def test_load_names_the_tensor_that_is_not_finite(tower, tmp_path):
    published_layout(tmp_path, tower)
    name = "vision_model.pre_layrnorm.bias"
    wrong = tower.state_dict() | {name: torch.full((16,), torch.inf)}
    torch.save(wrong, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=f"model.bin holds NaN or infinity .* in {name},"):
        ClipExpert.load(tmp_path)


@pytest.mark.slow
def test_load_builds_vit_b_32(tmp_path):
    with torch.device("meta"):
        tower = CLIPVisionModelWithProjection(CLIPVisionConfig())
    shapes = {name: tensor.shape for name, tensor in tower.state_dict().items()}
    assert sum(tensor.numel() for tensor in tower.parameters()) == 87_849_216
    assert shapes["visual_projection.weight"] == (512, 768)
    assert shapes["vision_model.embeddings.patch_embedding.weight"] == (768, 3, 32, 32)
    assert shapes["vision_model.embeddings.position_embedding.weight"] == (50, 768)
    hollow = {name: torch.full((1,), 0.01).expand(shape) for name, shape in shapes.items()}
    torch.save(hollow, tmp_path / "pytorch_model.bin")
    config = {"model_type": "clip", "projection_dim": 512, "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    features = ClipExpert.load(tmp_path).features(frames(2))
    assert features.shape == (2, 512) and np.isfinite(features).all()


def test_load_lists_keys_that_do_not_fit(tower, tmp_path):
    published_layout(tmp_path, tower)
    wrong = dict(tower.state_dict())
    del wrong["vision_model.pre_layrnorm.bias"]
    wrong["vision_model.post_layernorm.weight"] = torch.ones(3)
    wrong["vision_model.more"] = torch.ones(1)
    torch.save(wrong, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError) as caught:
        ClipExpert.load(tmp_path)
    for part in ("pre_layrnorm.bias", "post_layernorm.weight (3,)", "vision_model.more"):
        assert part in str(caught.value)


@pytest.mark.parametrize("other", [{"projection_dim": 256}, {"image_size": 256}])
def test_load_refuses_another_clip(tmp_path, other):
    CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY | other)).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"256.*expected 224 and 512"):
        ClipExpert.load(tmp_path)


def test_load_refuses_an_unknown_activation(tmp_path):
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(**TINY | {"hidden_act": "relu"})
    ).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"activation 'relu', expected quick_gelu or gelu"):
        ClipExpert.load(tmp_path)


def test_load_refuses_weights_without_their_configuration(tower, tmp_path):
    published_layout(tmp_path, tower)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin needs its config\.json"):
        ClipExpert.load(tmp_path)


def test_extract_gives_a_feature_a_second(expert, tmp_path):
    path = write_video(tmp_path / "a.mkv", flat([40] * 10 + [200] * 10), 10)
    found = extract(path, {"CLIP": expert})
    features, times = found["CLIP"].values, found["CLIP"].times_s
    assert list(found) == ["CLIP"]
    assert features.shape == (2, 512) and times.tolist() == [[0.0, 1.0], [1.0, 2.0]]

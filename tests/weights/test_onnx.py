"""The towers as ONNX files: equal to ours in ONNX Runtime, and built by Towhee for Triton."""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime
import pytest
import torch
import towhee
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.torch_version import TorchVersion
from towhee import ops, pipe

import mdmmt
from mdmmt.errors import InputError, MissingDependency
from mdmmt.sample.batches import pad_texts
from mdmmt.weights.onnx import MIN_TORCH, export_onnx

TOLERANCE = 1e-4
can_export = pytest.mark.skipif(
    torch.__version__ < MIN_TORCH, reason=f"an export needs PyTorch {MIN_TORCH}"
)


@pytest.fixture(scope="module")
def model(tiny_folder):
    return mdmmt.load(tiny_folder, "cpu")


@pytest.fixture(scope="module")
def sessions(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    towers = {"video": model.read_video_tower(), "text": model.read_text_tower()}
    for name, tower in towers.items():
        export_onnx(tower, folder / f"{name}.onnx")
    assert sorted(path.name for path in folder.iterdir()) == ["text.onnx", "video.onnx"]
    return {name: onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in towers}


def tensors(model, seed: int, b: int, lengths: list[int]):
    """Inputs of the video tower, ragged, with NaN in the padding and an unknown time."""
    rng = np.random.default_rng(seed)
    feed = {}
    for expert, n in zip(model.config.video.experts, lengths, strict=True):
        features = rng.normal(size=(b, n, expert.dim)).astype(np.float32)
        times = rng.uniform(-3, 45, (b, n)).astype(np.float32)
        mask = rng.random((b, n)) < 0.7
        features[~mask] = np.nan
        times[0, 0] = np.nan
        for part, array in (("features", features), ("times", times), ("mask", mask)):
            feed[f"{part}.{expert.name}"] = array
    return feed


@can_export
@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(data=st.data(), b=st.integers(1, 5))
def test_export_onnx_of_the_video_tower_takes_ragged_input(data, b, model, sessions):
    experts = model.config.video.experts
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=len(experts), max_size=len(experts)))
    feed = tensors(model, b, b, lengths)
    parts = [
        {e.name: torch.from_numpy(feed[f"{part}.{e.name}"]) for e in experts}
        for part in ("features", "times", "mask")
    ]
    with torch.inference_mode():
        ours = model.read_video_tower()(*parts).numpy()
    (theirs,) = sessions["video"].run(["vector"], feed)
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(theirs, ours, atol=TOLERANCE)


@can_export
@pytest.mark.slow
def test_export_onnx_of_the_text_tower_takes_any_length(model, sessions):
    tokenizer = model.tokenizer
    texts = ["red", "a man is playing the ball in the park with a dog", "Hello world"]
    for batch in (texts, texts[:1]):
        ids, mask = pad_texts(tokenizer(batch), tokenizer)
        feed = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        (theirs,) = sessions["text"].run(["vector"], feed)
        np.testing.assert_allclose(theirs, model.encode_text(batch), atol=TOLERANCE)


@can_export
@pytest.mark.slow
@pytest.mark.towhee
@pytest.mark.parametrize("modality", ["video", "text"])
def test_build_pipeline_model_writes_a_tower_for_triton(modality, model, tiny_folder, tmp_path):
    operator = ops.video_text_embedding.mdmmt(modality=modality, weight_path=str(tiny_folder))
    p = pipe.input("x").map("x", "vec", operator).output("vec")
    root = tmp_path / "models"
    assert towhee.build_pipeline_model(p, str(root), ["onnx"])
    (file,) = root.rglob("*.onnx")
    inputs = {one.name for one in onnxruntime.InferenceSession(file).get_inputs()}
    assert inputs == set(
        tensors(model, 0, 1, [1, 1, 1]) if modality == "video" else ["input_ids", "attention_mask"]
    )
    configs = [path.read_text() for path in root.rglob("config.pbtxt")]
    assert any("onnxruntime" in config for config in configs)


def test_save_model_refuses_other_formats(tiny_folder, tmp_path):
    features = mdmmt.MDMMT("features", str(tiny_folder), "cpu")
    assert features.supported_formats == []
    text = mdmmt.MDMMT("text", str(tiny_folder), "cpu")
    with pytest.raises(InputError, match="cannot be written as 'tensorrt', expected one of"):
        text.save_model("tensorrt", tmp_path / "a")


@can_export
@pytest.mark.cuda
def test_save_model_writes_a_tower_that_is_on_cuda(tiny_folder, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    operator = mdmmt.MDMMT("text", str(tiny_folder), "cuda")
    operator.save_model("onnx", tmp_path / "text.onnx")
    assert onnxruntime.InferenceSession(tmp_path / "text.onnx").get_outputs()[0].name == "vector"


def test_export_onnx_refuses_an_older_torch(model, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.7.1"))
    with pytest.raises(InputError, match=r"needs PyTorch 2\.8 or newer, and this is 2\.7\.1"):
        export_onnx(model.read_video_tower(), tmp_path / "a.onnx")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0"))  # newer than 2.8 it is
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependency):
        export_onnx(model.read_video_tower(), tmp_path / "a.onnx")


@can_export
@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_export_onnx_names_the_extra_for_a_missing_package(model, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=r"pip install 'mdmmt\[onnx\]'"):
        export_onnx(model.read_video_tower(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())

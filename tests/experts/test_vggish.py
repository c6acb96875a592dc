"""The tf_vggish expert: equal to torchvggish, from PyTorch's and TensorFlow's spellings."""

import sys
from pathlib import Path

import numpy as np
import pytest
import seeded
import torch
from media import flat, write_video
from tensorflow_vggish import variables
from torch.nn import functional as F

from mdmmt.errors import WeightsError
from mdmmt.experts.vggish import VGGish, VggishExpert, from_tensorflow, log_mel
from mdmmt.features import extract
from mdmmt.kernels import private

GOLDENS = Path(__file__).parents[1] / "goldens"
FILE = "vggish-10086976.pth"
TORCHAUDIO = {"features": "features_network", "embeddings": "embedding_network"}


def shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in VGGish().state_dict().items()}


def hollow() -> dict[str, torch.Tensor]:
    """A checkpoint of the right shapes that takes next to no room, each tensor of one value."""
    return {
        name: torch.full((1,), float(number)).expand(shape)
        for number, (name, shape) in enumerate(shapes().items())
    }


def windows(wave: np.ndarray) -> np.ndarray:
    """Cut by the book: 15,600 samples every 15,360."""
    starts = range(0, len(wave) - 15600 + 1, 15360)
    return np.stack([wave[start : start + 15600] for start in starts]).astype(np.float32)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return seeded.state(0, shapes())


def published(state: dict[str, torch.Tensor]) -> VGGish:
    network = VGGish()
    network.load_state_dict(state, assign=True)
    return network.eval()


@pytest.fixture(scope="module")
def expert(state) -> VggishExpert:
    return VggishExpert(published(state), torch.device("cpu"))


@pytest.mark.slow
def test_features_equal_torchvggish(expert):
    goldens = np.load(GOLDENS / "vggish.npz")
    clips = windows(seeded.sound(1, 3.5, 16000))
    before = clips.copy()
    np.testing.assert_allclose(log_mel(clips)[:, ::12, ::6], goldens["log_mel"], atol=1e-5)
    features = expert.features(clips)
    assert features.shape == (3, 128) and features.dtype == np.float32
    assert np.abs(features - goldens["features"]).max() <= 1e-4 * goldens["features"].max()
    np.testing.assert_allclose(expert.features(clips[1:2]), features[1:2], rtol=1e-4, atol=1e-5)
    assert np.array_equal(clips, before)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 5, 17])
def test_features_equal_the_plain_network(state, expert, count, threads):
    """Each row of a batch by itself, as the plain network computes it."""
    clips = seeded.sound(4, 17.0, 16000)[: count * 15600].reshape(count, 15600).astype(np.float32)
    with torch.inference_mode():
        plain = published(state)
        wanted = torch.cat([plain(patch) for patch in torch.from_numpy(log_mel(clips)).split(1)])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        features = expert.features(clips)
    finally:
        torch.set_num_threads(before)
    assert np.abs(features - wanted.numpy()).max() <= 1e-5 * wanted.max().item()


@pytest.mark.slow
def test_features_without_private_operators_equal_the_others(state, expert, monkeypatch):
    monkeypatch.setattr(private, "has_packed_convolution", lambda: False)
    plain = VggishExpert(published(state), torch.device("cpu"))
    assert isinstance(plain.network, VGGish)
    clips = windows(seeded.sound(5, 3, 16000))
    wanted, features = plain.features(clips), expert.features(clips)
    assert np.abs(features - wanted).max() <= 1e-5 * wanted.max()


def test_features_of_silence_are_finite(expert):
    clips = np.zeros((1, 15600), np.float32)
    np.testing.assert_allclose(log_mel(clips), np.log(0.01), atol=1e-6)
    assert np.isfinite(expert.features(clips)).all()


def test_features_are_not_negative_and_not_quantised(expert):
    features = expert.features(windows(seeded.sound(2, 3, 16000)))
    assert features.min() == 0 and (features > 0).any()
    assert not np.array_equal(features, features.round())


def test_extract_gives_successive_windows_and_drops_the_rest(expert, tmp_path):
    wave = seeded.sound(3, 2.5, 16000)
    for samples, count in ((15599, 0), (15600, 1), (30959, 1), (30960, 2)):
        path = write_video(tmp_path / f"{samples}.mkv", sound=wave[None, :samples])
        found = extract(path, {"tf_vggish": expert})
        assert len(found.get("tf_vggish", ())) == count
    features, times = found["tf_vggish"].values, found["tf_vggish"].times_s
    np.testing.assert_allclose(times, [[0, 0.96], [0.96, 1.92]], atol=1e-12)
    heard = np.trunc(wave[:30960] * 32768) / 32768  # as the file holds it
    np.testing.assert_allclose(features, expert.features(windows(heard)), rtol=1e-4, atol=1e-4)


def test_extract_leaves_the_expert_out_of_a_silent_film(expert, tmp_path):
    path = write_video(tmp_path / "silent.mkv", flat([1] * 20))
    assert extract(path, {"tf_vggish": expert}) == {}


@pytest.mark.parametrize("spelling", ["common", "torchaudio", "with more behind"])
def test_read_knows_the_names_of_every_port(tmp_path, spelling):
    state = hollow()
    if spelling == "torchaudio":
        spelt = {}
        for name, tensor in state.items():
            part, rest = name.split(".", 1)
            spelt[f"{TORCHAUDIO[part]}.{rest}"] = tensor
    elif spelling == "common":
        spelt = state
    else:
        spelt = state | {"pproc.pca_means": torch.ones(1), "classifier.0.bias": torch.ones(1)}
    torch.save(spelt, tmp_path / FILE)
    network = VggishExpert.read(VggishExpert.find(tmp_path))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_load_lists_keys_that_do_not_fit(tmp_path):
    wrong = hollow()
    del wrong["features.3.bias"]
    wrong["features.4.bias"] = torch.ones(1)
    wrong["embeddings.4.weight"] = torch.ones(5)
    torch.save(wrong, tmp_path / FILE)
    with pytest.raises(WeightsError) as caught:
        VggishExpert.load(tmp_path)
    for part in (FILE, "features.3.bias", "features.4.bias", "embeddings.4.weight (5,)"):
        assert part in str(caught.value)


def test_load_names_the_tensor_that_is_not_finite(tmp_path):
    torch.save(hollow() | {"features.3.bias": torch.full((128,), torch.nan)}, tmp_path / FILE)
    with pytest.raises(WeightsError, match=r"holds NaN or infinity .* in features\.3\.bias,"):
        VggishExpert.load(tmp_path)


@pytest.mark.slow
def test_read_gives_tensorflow_variables_their_meaning(tmp_path):
    given = variables()
    np.savez(tmp_path / "vggish_model.npz", **given)
    network = VggishExpert.read(VggishExpert.find(tmp_path))
    (tmp_path / "vggish_model.npz").unlink()  # 288 MB
    random = np.random.default_rng(1)

    picture = random.random((6, 8, 64))  # height, width, channels
    weights = given["vggish/conv2/weights"].astype(np.float64)
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)))
    wanted = given["vggish/conv2/biases"] + sum(
        padded[i : i + 6, j : j + 8] @ weights[i, j] for i in range(3) for j in range(3)
    )
    ours = network.features[3](torch.from_numpy(picture).permute(2, 0, 1)[None].float())
    np.testing.assert_allclose(ours[0].permute(1, 2, 0).detach().numpy(), wanted, rtol=1e-4)

    last = random.random((6, 4, 512), dtype=np.float32)  # what TensorFlow flattens, channels last
    wanted = last.reshape(-1) @ given["vggish/fc1/fc1_1/weights"] + given["vggish/fc1/fc1_1/biases"]
    network.features = torch.nn.Sequential(FromChannelsLast(last))
    heard = []
    network.embeddings[0].register_forward_hook(lambda *call: heard.append(call[2].detach()))
    network(torch.zeros(1, 96, 64))
    np.testing.assert_allclose(F.relu(heard[0][0]).numpy(), wanted, rtol=1e-4)


class FromChannelsLast(torch.nn.Module):
    """Stands in for the convolutions: gives one picture, channels first, as PyTorch's do."""

    def __init__(self, picture: np.ndarray) -> None:
        super().__init__()
        self.picture = torch.from_numpy(picture).permute(2, 0, 1)[None]

    def forward(self, x):
        return self.picture


def test_from_tensorflow_lists_unknown_variables():
    with pytest.raises(WeightsError, match="vggish/conv9/weights"):
        from_tensorflow({"vggish/conv9/weights": np.ones((3, 3, 1, 1))}, Path("a.npz"))


def test_load_refuses_a_damaged_npz_and_runs_nothing(tmp_path):
    path = tmp_path / "vggish_model.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(WeightsError, match=r"vggish_model\.npz"):
        VggishExpert.load(tmp_path)
    np.savez(path, **{"vggish/conv1/weights": np.array([object()])}, allow_pickle=True)
    with pytest.raises(WeightsError, match=r"vggish_model\.npz"):
        VggishExpert.load(tmp_path)


def test_load_says_what_a_checkpoint_needs_without_tensorflow(tmp_path, monkeypatch):
    """With it: tests/oracles/test_tensorflow.py."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "vggish_model.ckpt").write_bytes(b"a checkpoint")
    with pytest.raises(WeightsError, match=r"vggish_model\.ckpt.* pip install tensorflow"):
        VggishExpert.load(tmp_path)

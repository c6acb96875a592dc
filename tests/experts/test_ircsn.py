"""The VIDEO expert: equal to torchvision's construction, from VMZ's and mmaction2's files."""

from pathlib import Path

import numpy as np
import pytest
import seeded
import torch
from closeness import check_apart, different_clips, relative, unchanged_neighbours
from fast_towers import CPU, computing_with
from media import flat, write_video
from plain_csn import PlainCSN, lively_experts, noise, normalised
from safetensors.torch import save_file

from mdmmt.errors import WeightsError
from mdmmt.experts import expert_classes
from mdmmt.experts.ircsn import (
    IrCSN,
    PublishedIrCSN,
    TorchBottleneck,
    VideoExpert,
)
from mdmmt.features import extract
from mdmmt.kernels import cpu, private

GOLDENS = Path(__file__).parents[1] / "goldens"
FILE = "irCSN_152_ig65m_from_scratch_f125286141.pth"
# The threads that each of five clips gets, by the number of all threads.
SHARES = {1: [1] * 5, 2: [1] * 4 + [2], 3: [1] * 3 + [3] * 2, 8: [2] * 4 + [8]}


def shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in PublishedIrCSN().state_dict().items()}


def hollow() -> dict[str, torch.Tensor]:
    """A checkpoint of the right shapes that takes next to no room: every value the same."""
    return {name: torch.ones(()).expand(shape) for name, shape in shapes().items()}


def clip(seed: int, frames: int, size: int) -> torch.Tensor:
    """Frames [1, t, h, w, 3] uint8."""
    return torch.from_numpy(seeded.pictures(seed, frames, size))[None]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return seeded.state(0, shapes())


@pytest.fixture(scope="module")
def file(state, tmp_path_factory) -> Path:
    """What VMZ publishes: these tensors, and the classifier."""
    path = tmp_path_factory.mktemp("vmz") / FILE
    head = {"fc.weight": torch.zeros(5, 2048), "fc.bias": torch.zeros(5)}
    torch.save(state | head, path)
    yield path
    path.unlink()  # 116 MB


@pytest.fixture(autouse=True)
def without_openvino(monkeypatch):
    """test_ircsn_openvino.py tests VIDEO with it."""
    monkeypatch.setattr(cpu, "has_openvino", lambda device: False)


@pytest.fixture(scope="module")
def expert(file) -> VideoExpert:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "has_openvino", lambda device: False)
        return VideoExpert.load(file)


@pytest.fixture(scope="module")
def plain(state) -> PlainCSN:
    with torch.device("meta"):
        network = PlainCSN()
    network.load_state_dict(state, assign=True)
    return network.eval()


@pytest.mark.slow
def test_features_of_a_second_equal_torchvision(expert):
    frames = seeded.pictures(1, 32, 224)
    before = frames.copy()
    features = expert.features(frames[None])
    assert features.shape == (1, 2048) and features.dtype == np.float32
    assert relative(features[0, ::8], np.load(GOLDENS / "video.npz")["second"]) <= 1e-4
    assert np.array_equal(frames, before)


@pytest.mark.slow
def test_network_equals_torchvision_on_a_short_small_clip(expert):
    with torch.inference_mode():
        (features,) = expert.network(clip(2, 7, 61)).numpy()
    assert relative(features[::8], np.load(GOLDENS / "video.npz")["short"]) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1, 33, 47), (2, 9, 40, 64), (3, 4, 17, 17)])
def test_network_equals_the_plain_one(plain, expert, size):
    frames = noise(*size)
    with torch.inference_mode():
        ours = expert.network(frames).numpy()
        theirs = plain(normalised(frames)).numpy()
    assert relative(ours, theirs) <= 1e-5


@pytest.mark.slow
def test_network_without_private_operators_equals_the_plain_one(state, plain, monkeypatch):
    monkeypatch.setattr(private, "has_packed_convolution", lambda: False)
    published = PublishedIrCSN()
    published.load_state_dict(state)
    network = IrCSN(published.eval())
    assert {type(block) for block in network.bottlenecks} == {TorchBottleneck}
    frames = noise(2, 9, 40, 64)
    with torch.inference_mode():
        theirs = plain(normalised(frames)).numpy()
        assert relative(network(frames).numpy(), theirs) <= 1e-5


@pytest.mark.slow
def test_float16_keeps_clips_apart():
    """On the CPU, where public operators compute what Triton's kernels do on CUDA."""
    clips = different_clips(16, frames=4, size=56)
    exact, half = lively_experts(clips, CPU, "exact", "float16")
    wanted, features = exact.features(clips), half.features(clips)
    assert features.dtype == np.float32
    assert "float16" in half.version and "float16" not in exact.version
    check_apart(wanted, features, 0.9995, 0.999)


@pytest.mark.cuda
def test_float16_keeps_clips_apart_on_cuda(cuda_without_tf32):
    clips = different_clips(37, frames=32, size=224)
    exact, half = lively_experts(clips, torch.device("cuda"), "exact", "float16")
    wanted, features = exact.features(clips), half.features(clips)
    check_apart(wanted, features, 0.9999, 0.9998)
    assert unchanged_neighbours(wanted, features) >= 0.97
    assert relative(half.features(clips[[5, 3]]), features[[5, 3]]) <= 5e-3  # in any batch


def test_features_are_the_same_for_any_number_of_threads(expert, monkeypatch):
    """Workers compute clips side by side. Each clip that is left over gets all threads."""
    clips, seen, forward = seeded.pictures(0, 10, 16).reshape(5, 2, 16, 16, 3), [], IrCSN.forward

    def watched(network, frames):
        seen.append((len(frames), torch.get_num_threads()))
        return forward(network, frames)

    monkeypatch.setattr(IrCSN, "forward", watched)
    alone = np.concatenate([expert.features(one[None]) for one in clips])
    for threads, wanted in SHARES.items():
        seen.clear()
        with computing_with(threads):
            assert np.array_equal(expert.features(clips), alone)
        assert seen == [(1, share) for share in wanted]


def test_sizes_are_those_of_the_paper_and_the_authors():
    assert sum(p.numel() for p in PublishedIrCSN().parameters()) == 28_883_968
    assert len(PublishedIrCSN().state_dict()) == 930
    spec = VideoExpert.spec
    assert (spec.fps, spec.short_side, spec.crop, spec.clip_frames) == (32, 224, 224, 32)


def mmaction2_names(names: list[str]) -> dict[str, str]:
    """VMZ's names -> those of mmaction2's backbone, spelt out part by part."""
    parts = {"0": "conv", "1": "bn"}
    result = {}
    for name in names:
        *place, layer, part, kind = name.split(".")
        layer = {"stem": "conv1", "conv2": "conv2.0"}.get(layer, layer)
        result[name] = ".".join([*place, layer, parts[part], kind])
    return result


def test_mmaction2_names_are_those_of_its_port():
    names = mmaction2_names(list(shapes()))
    assert names["stem.0.weight"] == "conv1.conv.weight"
    assert names["layer1.0.conv2.1.bias"] == "layer1.0.conv2.0.bn.bias"
    assert names["layer2.0.downsample.0.weight"] == "layer2.0.downsample.conv.weight"


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
def test_read_takes_the_port_to_mmaction2(state, tmp_path, prefix):
    """Ports from Caffe2 may lack the counters of batch norms, as the one without prefix here."""
    ported = {
        prefix + new: state[old]
        for old, new in mmaction2_names(list(state)).items()
        if prefix or not old.endswith("num_batches_tracked")
    }
    if prefix:
        ported[prefix.replace("backbone", "cls_head") + "fc_cls.weight"] = torch.zeros(1, 2048)
        ported = {"meta": {"epoch": 58}, "state_dict": ported}
    torch.save(ported, tmp_path / "ported.pth")
    ours = VideoExpert.read(tmp_path / "ported.pth").state_dict()
    (tmp_path / "ported.pth").unlink()
    assert ours.keys() == state.keys()
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert all(torch.equal(ours[name], state[name]) for name in state.keys() - counters)


@pytest.mark.slow
def test_load_reads_safetensors(state, expert, tmp_path):
    save_file(state, tmp_path / "own.safetensors")
    network = VideoExpert.load(tmp_path / "own.safetensors").network
    (tmp_path / "own.safetensors").unlink()
    x = clip(3, 4, 17)
    with torch.inference_mode():
        assert torch.equal(network(x), expert.network(x))


def test_load_lists_keys_that_do_not_fit(tmp_path):
    wrong = hollow()
    del wrong["layer3.35.conv2.0.weight"]
    wrong["layer5.0.conv1.0.weight"] = torch.ones(1)
    wrong["stem.0.weight"] = torch.ones(64, 3, 1, 7, 7)
    torch.save(wrong, tmp_path / FILE)
    with pytest.raises(WeightsError) as caught:
        VideoExpert.load(tmp_path)
    for part in (FILE, "layer3.35.conv2.0.weight", "layer5.0.conv1.0.weight", "(64, 3, 1, 7, 7)"):
        assert part in str(caught.value)


@pytest.mark.slow
def test_load_names_the_tensor_that_is_not_finite(state, tmp_path):
    name = "layer3.35.conv2.1.running_var"  # which is folded into a weight
    wrong = hollow() | {key: one for key, one in state.items() if not one.is_floating_point()}
    wrong[name] = torch.full(shapes()[name], torch.nan)
    torch.save(wrong, tmp_path / FILE)
    with pytest.raises(WeightsError, match=rf"{FILE} holds NaN or infinity .* in {name},"):
        VideoExpert.load(tmp_path)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil-was-here"),)


def test_load_refuses_a_pickle_that_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(hollow() | {"more": Evil()}, FILE)
    with pytest.raises(WeightsError, match=r"more is .*getattr, expected a tensor"):
        VideoExpert.load(FILE)
    assert not Path("evil-was-here").exists()


@pytest.mark.slow
def test_extract_gives_one_feature_of_a_file_of_one_second(expert, tmp_path):
    path = write_video(tmp_path / "a.mkv", flat([40, 90, 140, 190] * 8), 32)
    found = extract(path, {"VIDEO": expert})
    features, times = found["VIDEO"].values, found["VIDEO"].times_s
    assert list(found) == ["VIDEO"]
    assert features.shape == (1, 2048) and times.tolist() == [[0.0, 1.0]]
    assert expert_classes(["VIDEO"]) == {"VIDEO": VideoExpert}


@pytest.mark.cuda
def test_features_are_the_same_on_cuda(file, expert, cuda_without_tf32):
    frames = seeded.pictures(1, 32, 224)[None]
    features = VideoExpert.load(file, "cuda").features(frames)
    assert relative(features, expert.features(frames)) <= 1e-4

"""Where the pretrained experts find their weights, and the message if they do not."""

import pytest
import torch

from mdmmt.errors import InputError, WeightsError
from mdmmt.experts import PRETRAINED_EXPERTS, expert_classes, load, pretrained
from mdmmt.experts.pretrained import EXPERTS_VARIABLE, PretrainedExpert
from mdmmt.experts.vggish import VggishExpert

NAMES = ("VIDEO", "CLIP", "tf_vggish")
PUBLISHED = {
    "VIDEO": "irCSN_152_ig65m_from_scratch_f125286141.pth",
    "CLIP": "pytorch_model.bin",
    "tf_vggish": "vggish.pt",
}


@pytest.fixture(autouse=True)
def nothing_there(monkeypatch, tmp_path):
    monkeypatch.delenv(EXPERTS_VARIABLE, raising=False)
    monkeypatch.setattr(pretrained, "EXPERTS_FOLDER", tmp_path / "weights" / "experts")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MDMMT_HOME", str(tmp_path / "home"))


@pytest.fixture
def found(monkeypatch):
    """Which file each expert reads."""
    files = {}
    for expert in expert_classes(PRETRAINED_EXPERTS).values():

        def read(file, name=expert.name):
            files[name] = file
            return torch.nn.Identity()

        monkeypatch.setattr(expert, "read", staticmethod(read))
        monkeypatch.setattr(expert, "arrange", lambda expert, network: network)
    return files


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def in_hub_cache(root, repository, *names):
    """Files as huggingface_hub's cache holds them."""
    folder = root / "hub" / f"models--{repository.replace('/', '--')}"
    put(folder / "refs" / "main").write_text("0" * 40)
    return [put(folder / "snapshots" / ("0" * 40) / name) for name in names]


def test_pretrained_experts_are_those_of_the_released_model():
    from mdmmt.config import RELEASED

    assert PRETRAINED_EXPERTS == NAMES
    assert [(e.name, e.dim) for e in expert_classes(PRETRAINED_EXPERTS).values()] == [
        (e.name, e.dim) for e in RELEASED.video.experts
    ]


def test_load_finds_all_weights_in_one_folder(found, tmp_path):
    folder = tmp_path / "all"
    wanted = {
        "VIDEO": put(folder / PUBLISHED["VIDEO"]),
        "CLIP": put(folder / "CLIP" / "pytorch_model.bin"),
        "tf_vggish": put(folder / "tf_vggish" / "model.safetensors"),
    }
    assert list(load(NAMES, folder)) == list(NAMES)
    assert found == wanted


def test_load_prefers_the_variable_to_the_folder_beside_the_operator(found, monkeypatch, tmp_path):
    beside = put(tmp_path / "weights" / "experts" / PUBLISHED["VIDEO"])
    load(["VIDEO"])
    assert found["VIDEO"] == beside
    named = put(tmp_path / "named" / PUBLISHED["VIDEO"])
    monkeypatch.setenv(EXPERTS_VARIABLE, str(tmp_path / "named"))
    load(["VIDEO"])
    assert found["VIDEO"] == named


def test_load_looks_into_the_cache_last(found, monkeypatch, tmp_path):
    """In each place, and where an earlier place holds other experts alone."""
    in_home = {
        "VIDEO": put(tmp_path / "home" / "experts" / PUBLISHED["VIDEO"]),
        "CLIP": put(tmp_path / "home" / "experts" / "CLIP" / PUBLISHED["CLIP"]),
        "tf_vggish": put(tmp_path / "home" / "experts" / PUBLISHED["tf_vggish"]),
    }
    in_hub_cache(tmp_path, "openai/clip-vit-base-patch32", "config.json", "pytorch_model.bin")
    load(NAMES)
    assert found == in_home
    beside = put(tmp_path / "weights" / "experts" / PUBLISHED["VIDEO"])
    named = put(tmp_path / "named" / PUBLISHED["tf_vggish"])
    monkeypatch.setenv(EXPERTS_VARIABLE, str(tmp_path / "named"))
    load(NAMES)
    assert found == {"VIDEO": beside, "CLIP": in_home["CLIP"], "tf_vggish": named}
    with pytest.raises(WeightsError, match="VIDEO"):  # a folder that is given stands alone
        load(["VIDEO"], tmp_path / "named")


def test_load_refuses_a_variable_that_names_no_folder(monkeypatch, tmp_path):
    put(tmp_path / "home" / "experts" / PUBLISHED["VIDEO"])
    monkeypatch.setenv(EXPERTS_VARIABLE, str(tmp_path / "typo"))
    with pytest.raises(WeightsError, match=r"MDMMT_EXPERTS is .*typo', expected a folder"):
        load(["VIDEO"])


def test_load_takes_a_place_for_each_expert(found, tmp_path):
    file = put(tmp_path / "any name.pth")
    folder = put(tmp_path / "clip" / "model.safetensors").parent
    (hub,) = in_hub_cache(tmp_path, "owner/sound", "vggish.pt")
    load(NAMES, {"VIDEO": file, "CLIP": str(folder), "tf_vggish": "owner/sound"})
    assert found == {"VIDEO": file, "CLIP": folder / "model.safetensors", "tf_vggish": hub}


def test_load_takes_clip_from_its_repository_if_no_folder_holds_it(found, tmp_path):
    names = ("config.json", "pytorch_model.bin")
    _, file = in_hub_cache(tmp_path, "openai/clip-vit-base-patch32", *names)
    load(["CLIP"])
    assert found["CLIP"] == file and (file.parent / "config.json").is_file()


def test_load_refuses_a_repository_without_the_configuration_of_clip(tmp_path):
    in_hub_cache(tmp_path, "openai/clip-vit-base-patch32", "pytorch_model.bin")
    with pytest.raises(WeightsError, match="the expert CLIP needs its weights"):
        load(["CLIP"])


@pytest.mark.parametrize("name", NAMES)
def test_load_names_a_missing_expert_its_file_and_where_to_get_it(name, tmp_path):
    with pytest.raises(WeightsError) as caught:
        load([name])
    message = str(caught.value)
    assert "\n" not in message
    command = f"mdmmt download --only {name}"
    for part in (PUBLISHED[name], "https://", "weights/experts", EXPERTS_VARIABLE, command):
        assert part in message
    for weights in (tmp_path, tmp_path / "no folder", "owner/nothing", {name: "a/b.pth"}):
        with pytest.raises(WeightsError, match=name):
            load([name], weights)


def test_load_needs_only_the_weights_of_the_named_experts(found, tmp_path):
    put(tmp_path / "CLIP" / "model.safetensors")
    assert list(load(["CLIP"], tmp_path)) == ["CLIP"]
    assert list(found) == ["CLIP"]


def test_load_needs_no_weights_for_light_experts():
    assert list(load(["frame", "sound"])) == ["frame", "sound"]


def test_load_refuses_weights_for_an_unknown_expert(tmp_path):
    with pytest.raises(InputError, match=r"'vggish' cannot be run.*tf_vggish"):
        load(["CLIP"], {"CLIP": tmp_path, "vggish": tmp_path})


def test_pretrained_expert_puts_its_network_in_evaluation_mode():
    class AsItIs(VggishExpert):
        arrange = PretrainedExpert.arrange

    network = AsItIs(torch.nn.Dropout(), torch.device("cpu")).network
    assert isinstance(network, torch.nn.Dropout) and not network.training

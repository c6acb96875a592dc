"""Broken model folders: every one is a WeightsError that names file and key, and comes at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY
from transformers import BertConfig, BertModel

import mdmmt
from mdmmt import WeightsError
from mdmmt.towers.tokenizer import Tokenizer
from mdmmt.weights.convert import convert
from mdmmt.weights.info import info


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A model folder that the test may change."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


CONFIGS: dict[str, tuple[str, object]] = {
    "no heads": ("video.encoder.num_attention_heads", 0),
    "negative heads": ("text.bert.num_attention_heads", -4),
    "negative width": ("video.encoder.hidden_size", -24),
    "vast width": ("text.bert.hidden_size", 10**18),
    "digits": ("text.bert.hidden_size", 10**40),
    "a string": ("video.encoder.hidden_size", "24"),
    "a float": ("video.encoder.hidden_size", 24.0),
    "a bool": ("video.encoder.num_hidden_layers", True),
    "a list": ("text.bert.intermediate_size", [48]),
    "10^5 layers": ("video.encoder.num_hidden_layers", 10**5),
    "10^9 layers": ("text.bert.num_hidden_layers", 10**9),
    "NaN eps": ("video.encoder.layer_norm_eps", float("nan")),
    "infinite eps": ("video.encoder.layer_norm_eps", float("inf")),
    "negative eps": ("text.bert.layer_norm_eps", -1.0),
    "vast eps": ("text.bert.layer_norm_eps", 10**400),
    "no eps": ("text.bert.layer_norm_eps", 0.0),
    "dropout": ("text.dropout", 2.0),
    "no words": ("text.bert.vocab_size", 0),
    "a type": ("video.experts[0].type_id", "x"),
    "no tokens": ("video.experts[0].max_tokens", 0),
    "a dotted name": ("video.experts[0].name", "a.b"),
    "torch's name": ("video.experts[0].name", "keys"),
    "no name": ("video.experts[0].name", ""),
    "experts as a string": ("text.experts", "wide"),
    "experts as numbers": ("text.experts", [1, 2, 3]),
    "an expert twice": ("text.experts", ["wide", "wide", "middle"]),
    "an expert as a number": ("video.experts", [3]),
    "a thousand experts": ("text.experts", [f"e{i}" for i in range(1000)]),
    "a section as a list": ("video.encoder", []),
    "a section as a number": ("text", 3),
    "same_dim": ("text.same_dim", 0),
    "max_length": ("text.max_length", "30"),
    "a flag": ("text.add_dot", "yes"),
    "an activation": ("text.bert.hidden_act", ["gelu"]),
}


@pytest.mark.parametrize(("key", "value"), CONFIGS.values(), ids=CONFIGS)
def test_load_names_the_key_of_a_wrong_configuration(key, value, folder):
    config = json.loads((folder / "config.json").read_text())
    section = config
    *parents, last = key.replace("[0]", ".0").split(".")
    for name in parents:
        section = section[int(name) if name == "0" else name]
    section[int(last) if last == "0" else last] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError) as error:
        mdmmt.load(folder, "cpu")
    assert "config.json" in str(error.value) and last in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"3",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model_type": ' + b"9" * 5000 + b"}",
        b'{"model_type": "mdmmt", "video": NaN, "text": {}}',
        b" " * (1 << 21),
    ],
    ids=["empty", "bytes", "null", "number", "deep list", "deep dict", "digits", "NaN", "large"],
)
def test_load_refuses_other_content(content, folder):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"config\.json"):
        mdmmt.load(folder, "cpu")


TENSORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "int8": lambda x: x.to(torch.int8),
    "int64": lambda x: x.long(),
    "bool": lambda x: x > 0,
    "complex": lambda x: x.to(torch.complex64),
    "sparse": lambda x: x.to_sparse(),
    "sparse rows": lambda x: x.to_sparse_csr(),
    "quantised": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    "meta": lambda x: x.to("meta"),
    "expanded": lambda x: torch.zeros(1).expand(10**6, 10**6),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_read_video_tower_names_the_tensor_of_another_kind(
    kind, suffix, tiny, tiny_is_released, tmp_path
):
    path = tmp_path / f"a{suffix}"
    name = "vid_bert.encoder.layer.0.attention.output.dense.weight"
    state = dict(tiny.both_towers)
    state[name] = TENSORS[kind](state[name])
    try:
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    except (ValueError, RuntimeError, KeyError, NotImplementedError):
        pytest.skip("the format cannot hold it")
    with pytest.raises(WeightsError) as error:
        _ = mdmmt.load(path, "cpu").video_encoder
    assert str(path) in str(error.value)
    assert name in str(error.value) or "objects" in str(error.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("video_dim_reduce.wide.fc.bias", lambda model: model.video_encoder),
        ("vid_bert.embeddings.position_embeddings.weight", mdmmt.Model.read_video_tower),
        ("moe_fc_txt.wide.bias", lambda model: model.encode_text("a dog plays")),
    ],
)
def test_load_names_the_tensor_that_is_not_finite(
    name, read, suffix, tiny, tiny_is_released, tiny_vocabulary, tmp_path
):
    path = shutil.copytree(tiny_vocabulary, tmp_path / "source") / f"a{suffix}"
    state = dict(tiny.both_towers)
    state[name] = state[name].clone()
    state[name].view(-1)[-1] = float("nan")
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    with pytest.raises(WeightsError) as error:
        read(mdmmt.load(path, "cpu"))
    assert f"{path} holds NaN or infinity (as float32) in {name}, expected" in str(error.value)
    assert name in info(path).misfit
    with pytest.raises(WeightsError, match=name):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_read_text_tower_names_a_tensor_of_a_module(tiny, tiny_is_released, tmp_path, text_params):
    state = tiny.theirs_text.state_dict()
    heads = {name: tensor for name, tensor in state.items() if not name.startswith("txt_bert.")}
    torch.save({"txt_state_dict": heads}, tmp_path / "heads.pth")
    bert = BertModel(BertConfig(**vars(TINY.text.bert)))
    params = text_params | {"txt_bert": bert, "tokenizer": tiny.tokenizer}
    model = mdmmt.load(tmp_path / "heads.pth", "cpu", mmttxt_params=params)
    model.read_text_tower()
    with torch.no_grad():
        bert.pooler.dense.bias[0] = float("inf")
    with pytest.raises(WeightsError, match=r"the module txt_bert holds.*txt_bert\.pooler\.dense"):
        model.read_text_tower()


def change_json(change):
    def write(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return write


TOKENIZERS = {
    "ids beyond": (
        "tokenizer.json",
        change_json(lambda t: t["model"]["vocab"].update({"dog": 10**6})),
    ),
    "a bad expression": (
        "tokenizer.json",
        change_json(
            lambda t: t.update(
                pre_tokenizer={
                    "type": "Split",
                    "pattern": {"Regex": "(("},
                    "behavior": "Isolated",
                    "invert": False,
                }
            )
        ),
    ),
    "a list": ("tokenizer.json", lambda path: path.write_text("[]")),
    "a model of no kind": ("tokenizer.json", change_json(lambda t: t.update(model=[]))),
    "cut": ("tokenizer.json", lambda path: path.write_bytes(path.read_bytes()[:100])),
    "empty": ("tokenizer.json", lambda path: path.write_text("")),
    "deep": ("tokenizer.json", lambda path: path.write_text("[" * 100_000)),
    "settings as a list": ("tokenizer_config.json", lambda path: path.write_text("[1]")),
    "settings as a number": ("tokenizer_config.json", lambda path: path.write_text("1")),
    "deep settings": ("tokenizer_config.json", lambda path: path.write_text("[" * 100_000)),
    "class as a list": (
        "tokenizer_config.json",
        lambda path: path.write_text('{"tokenizer_class": [3]}'),
    ),
    "class of no name": (
        "tokenizer_config.json",
        lambda path: path.write_text('{"tokenizer_class": "../x"}'),
    ),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_encode_text_refuses_a_broken_tokenizer(kind, folder):
    name, change = TOKENIZERS[kind]
    change(folder / name)
    with pytest.raises(WeightsError, match="tokenizer"):
        mdmmt.load(folder, "cpu").encode_text("a dog plays")


@pytest.mark.parametrize("ids", [[2, 400], [10**9], [-1, 3]])
def test_tokenizer_refuses_ids_that_the_tower_lacks(ids):
    """A tokenizer's template may add ids that its vocabulary does not name."""
    tokenizer = Tokenizer(lambda *_args, **_kwargs: {"input_ids": [ids]}, TINY.text)
    with pytest.raises(WeightsError, match="the text tower has 400 words"):
        tokenizer(["a dog"])

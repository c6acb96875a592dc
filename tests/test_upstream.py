"""Parameters in upstream's spelling."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import TINY
from transformers import BertConfig, BertModel

import mdmmt
from mdmmt.config import RELEASED, ExpertConfig
from mdmmt.errors import InputError, InputTypeError, WeightsError
from mdmmt.upstream import (
    VID_BERT_KEYS,
    bert_config,
    with_mmttxt_params,
    with_mmtvid_params,
)

TEXTS = ["Hello world", "a man is playing with the red ball and the dog sings"]

UPSTREAM_VID_BERT = {
    "vocab_size_or_config_json_file": 10,
    "hidden_size": 512,
    "num_hidden_layers": 9,
    "num_attention_heads": 8,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.2,
    "max_position_embeddings": 32,
    "type_vocab_size": 19,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
}
UPSTREAM_EXPERTS = {
    "VIDEO": {"dim": 2048, "idx": 1, "max_tok": 30},
    "CLIP": {"dim": 512, "idx": 2, "max_tok": 30},
    "tf_vggish": {"dim": 128, "idx": 3, "max_tok": 30},
}


@pytest.mark.parametrize("as_given", [dict, lambda keys: SimpleNamespace(**keys)])
def test_with_mmtvid_params_turns_upstreams_own_into_the_released_model(as_given):
    params = {
        "expert_dims": UPSTREAM_EXPERTS,
        "vid_bert_config": as_given(UPSTREAM_VID_BERT),
        "same_dim": 512,
        "hidden_size": 512,
    }
    assert with_mmtvid_params(TINY.video, params) == RELEASED.video
    assert set(VID_BERT_KEYS) == set(UPSTREAM_VID_BERT)


def test_with_mmtvid_params_reads_attributes_of_a_class():
    class Config:
        num_hidden_layers = 3

        def to_dict(self):
            return {}

    video = with_mmtvid_params(RELEASED.video, {"vid_bert_config": Config()})
    assert video.encoder.num_hidden_layers == 3


def test_params_change_only_what_they_name():
    assert with_mmtvid_params(RELEASED.video, None) == RELEASED.video
    assert with_mmtvid_params(RELEASED.video, {}) == RELEASED.video
    video = with_mmtvid_params(
        RELEASED.video, {"same_dim": 64, "vid_bert_config": {"num_hidden_layers": 2}}
    )
    assert (video.same_dim, video.encoder.num_hidden_layers) == (64, 2)
    assert (video.experts, video.encoder.hidden_size) == (RELEASED.video.experts, 512)
    assert with_mmtvid_params(RELEASED.video, {"hidden_size": 64}).encoder.hidden_size == 64
    experts = with_mmtvid_params(
        RELEASED.video, {"expert_dims": {"CLIP": {"max_tok": 4}, "new": {"dim": 5, "idx": 7}}}
    ).experts
    assert experts == (ExpertConfig("CLIP", 512, 2, 4), ExpertConfig("new", 5, 7, 30))
    text = with_mmttxt_params(RELEASED.text, {"max_length": 12, "dout_prob": 0.3})
    assert (text.max_length, text.dropout, text.same_dim) == (12, 0.3, 512)
    text = with_mmttxt_params(
        RELEASED.text,
        {"modalities": ["CLIP"], "add_dot": False, "add_special_tokens": False, "same_dim": 8},
    )
    assert (text.experts, text.add_dot, text.add_special_tokens) == (("CLIP",), False, False)
    assert text.embedding_dim == 8


def test_params_ignore_none():
    assert with_mmtvid_params(RELEASED.video, dict.fromkeys(["expert_dims"])) == RELEASED.video
    assert with_mmttxt_params(RELEASED.text, dict.fromkeys(["modalities"])) == RELEASED.text


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"hidden": 3}, "mmtvid_params has unknown hidden; known: expert_dims, vid_bert_config"),
        ({"vid_bert_config": {"layers": 3}}, "vid_bert_config has unknown layers; known: .*hidden"),
        ({"vid_bert_config": SimpleNamespace(layers=3)}, "unknown layers"),
        ({"vid_bert_config": 3}, "vid_bert_config is a int"),
        ({"expert_dims": {"VIDEO": {"width": 3}}}, "'VIDEO'.* unknown width; known: dim, idx"),
        ({"expert_dims": {"new": {"dim": 3}}}, "'new'.* lacks idx"),
        ({"expert_dims": {"VIDEO": {"idx": 19}}}, "'VIDEO' has the type id .idx. 19.* 0 to 18"),
        ({"expert_dims": {}}, "no expert"),
        ({"expert_dims": ["VIDEO"]}, "expert_dims is a list"),
        ({"expert_dims": {"VIDEO": 2048}}, "is a int, expected a dict"),
        ({"hidden_size": 64, "vid_bert_config": {"hidden_size": 32}}, "64 .* 32"),
        ({"hidden_size": 63}, "63 is not a multiple of num_attention_heads 8"),
        ({"vid_bert_config": {"hidden_act": "tanh"}}, "'tanh', expected one of gelu"),
        (["same_dim"], "mmtvid_params is a list"),
    ],
)
def test_with_mmtvid_params_refuses_bad_values(params, words):
    with pytest.raises(InputError, match=words):
        with_mmtvid_params(RELEASED.video, params)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"lenght": 3}, "mmttxt_params has unknown lenght; known: txt_bert, tokenizer, max_length"),
        ({"modalities": "VIDEO"}, "modalities is a str"),
        ({"modalities": []}, "no modality"),
        ({"max_length": 0}, "max_length is 0, expected 1 to 512"),
        ({"max_length": 513}, "max_length is 513"),
        ("x", "mmttxt_params is a str"),
    ],
)
def test_with_mmttxt_params_refuses_bad_values(params, words):
    with pytest.raises(InputError, match=words):
        with_mmttxt_params(RELEASED.text, params)


def test_with_mmttxt_params_raises_type_errors():
    with pytest.raises(InputTypeError):
        with_mmttxt_params(RELEASED.text, [])


def test_bert_config_of_transformers_defaults_is_bert_base_cased():
    config = BertConfig(vocab_size=28996)  # its defaults are those of bert-base
    assert bert_config(config) == RELEASED.text.bert
    with pytest.raises(InputError, match="'gpt2' model"):
        bert_config(SimpleNamespace(model_type="gpt2"))
    with pytest.raises(InputError, match="lacks hidden_size"):
        bert_config(SimpleNamespace(num_hidden_layers=3))


@pytest.fixture
def only_heads(tiny, tmp_path) -> Path:
    """Weights of a text tower without those of BERT."""
    state = tiny.theirs_text.state_dict()
    path = tmp_path / "heads.pth"
    heads = {name: tensor for name, tensor in state.items() if not name.startswith("txt_bert.")}
    torch.save({"txt_state_dict": heads}, path)
    return path


def test_txt_bert_may_be_a_module(tiny, only_heads, txt_bert, text_params, tiny_model):
    """Its configuration and state are taken over, as copies."""
    bert = BertModel(BertConfig(**vars(TINY.text.bert)))
    bert.load_state_dict(tiny.theirs_text.txt_bert.state_dict())
    params = {**text_params, "txt_bert": bert, "tokenizer": tiny.tokenizer}
    model = mdmmt.load(only_heads, "cpu", mmttxt_params=params)
    assert model.config.text.bert == TINY.text.bert
    np.testing.assert_array_equal(model.encode_text(TEXTS), tiny_model.encode_text(TEXTS))
    with torch.no_grad():
        bert.embeddings.word_embeddings.weight.zero_()
    np.testing.assert_array_equal(model.encode_text(TEXTS), tiny_model.encode_text(TEXTS))
    with pytest.raises(WeightsError, match=r"missing keys: txt_bert\."):
        mdmmt.load(only_heads, "cpu", mmttxt_params=text_params).read_text_tower()


def test_txt_bert_module_yields_to_weights_with_bert(tiny, tmp_path, text_params, tiny_model):
    """As upstream, where the checkpoint is loaded into the tower made of the module."""
    torch.save(tiny.released_layout, tmp_path / "model.pth")
    bert = BertModel(BertConfig(**vars(TINY.text.bert)))
    params = {**text_params, "txt_bert": bert, "tokenizer": tiny.tokenizer}
    model = mdmmt.load(tmp_path / "model.pth", "cpu", mmttxt_params=params)
    np.testing.assert_array_equal(model.encode_text(TEXTS), tiny_model.encode_text(TEXTS))


@pytest.mark.parametrize(
    ("txt_bert", "error", "words"),
    [
        (3, InputError, "txt_bert is a int"),
        (torch.nn.Linear(2, 2), InputError, "a module without a config"),
        ("no/such-bert", WeightsError, "txt_bert 'no/such-bert'"),
    ],
    ids=["number", "module", "hub id"],
)
def test_read_bert_config_refuses_other_arguments(txt_bert, error, words, tiny_folder):
    with pytest.raises(error, match=words):
        mdmmt.load(tiny_folder, "cpu", mmttxt_params={"txt_bert": txt_bert})

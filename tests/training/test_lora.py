"""LoRA learns beside BERT's weights, and is part of them in what is written."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from safetensors.torch import load_file

import mdmmt
from mdmmt.errors import InputError
from mdmmt.towers.tokenizer import Tokenizer
from mdmmt.training import loop
from mdmmt.training.config import from_mapping
from mdmmt.training.lora import add_lora, merged
from mdmmt.training.packed import encode_texts

TEXTS = ("Hello world", "the red ball and the dog")


@pytest.mark.slow
def test_merged_weights_give_what_lora_gives(tiny):
    tower = copy.deepcopy(tiny.ours_text)
    ids = Tokenizer(tiny.tokenizer, tower.config)(TEXTS)
    before = encode_texts(tower, ids)
    add_lora(tower, 2, seed=0)
    assert torch.equal(encode_texts(tower, ids), before)  # it begins with a product of zero
    trained = [name for name, one in tower.txt_bert.named_parameters() if one.requires_grad]
    assert len(trained) == 8 and all(".lora_" in name for name in trained)
    with torch.no_grad():
        for name in trained:
            tower.txt_bert.get_parameter(name).normal_()
    after = encode_texts(tower, ids)
    assert (after - before).abs().max() > 0.1
    plain = merged(tower)
    assert plain.state_dict().keys() == tiny.ours_text.state_dict().keys()
    torch.testing.assert_close(encode_texts(plain, ids), after, atol=1e-5, rtol=0)
    assert torch.equal(encode_texts(tower, ids), after)  # the tower itself goes on


def test_a_run_writes_a_plain_model(make_config, tiny_folder, tmp_path):
    loop.train(make_config(lora_rank=2, epochs=1))
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tiny_folder, tmp_path / "run")
    )
    assert before.keys() == after.keys()
    for name, value in before.items():
        if name.startswith("txt_bert"):
            learned = name.endswith((".query.weight", ".value.weight"))
            assert torch.equal(value, after[name]) != learned, name
    assert mdmmt.load(tmp_path / "run", "cpu").encode_text("dog").shape == (72,)


@pytest.mark.slow
def test_a_run_with_lora_goes_on_exactly(make_config, tmp_path):
    config = make_config(lora_rank=2, epochs=1)
    loop.train(config)
    more = dataclasses.replace(config, epochs=2)
    loop.train(more)
    loop.train(dataclasses.replace(more, out=str(tmp_path / "whole")))
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_frozen_tower_takes_no_lora():
    values = {"out": "x", "datasets": [{"data": "a", "features": "b"}]}
    with pytest.raises(InputError, match="freeze is 'text' and lora_rank is given"):
        from_mapping({**values, "lora_rank": 4, "freeze": "text"}, "x")

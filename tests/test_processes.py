"""A model in copies, pickles, spawned processes and forked children."""

from __future__ import annotations

import copy
import os
import pickle
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from fast_towers import computing_with
from towhee import ops, pipe
from transformers import BertConfig, BertModel

import mdmmt
from mdmmt.errors import InputError

TEXT = "a red ball moves left"


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


def test_deepcopy_shares_what_a_pipeline_maps(model):
    operator = mdmmt.operator.MDMMT("text", "sample", "cpu")
    assert copy.deepcopy(model) is model
    assert copy.copy(model).path == model.path
    assert copy.deepcopy(operator).model is operator.model
    assert copy.deepcopy(partial(model.encode_text, batch_size=2)).func.__self__ is model
    assert copy.deepcopy({"a": [model.encode_video]})["a"][0].__self__ is model


@pytest.mark.towhee
def test_pipelines_map_methods_operators_and_partials(model):
    operator = ops.video_text_embedding.mdmmt(modality="text", weight_path="sample", device="cpu")
    wanted = model.encode_text(TEXT)
    for mapped in (model.encode_text, operator, partial(model.encode_text, batch_size=1)):
        embed = pipe.input("t").map("t", "v", mapped).output("v")
        np.testing.assert_array_equal(embed(TEXT).get()[0], wanted)


def test_pickle_keeps_path_and_options(tmp_path, monkeypatch):
    model = mdmmt.load("sample", "cpu", experts=["frame"], mmttxt_params={"max_length": 4})
    data = pickle.dumps(model)
    assert len(data) < 10_000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(data)
    assert again.expert_names == ("frame",)
    assert again.config == model.config
    np.testing.assert_array_equal(again.encode_text(TEXT), model.encode_text(TEXT))
    operator = pickle.loads(pickle.dumps(mdmmt.operator.MDMMT("text", "sample", "cpu")))
    assert operator(TEXT).shape == (384,)


def test_pickle_refuses_weights_given_as_a_module(tiny_folder):
    small = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1}
    module = BertModel(BertConfig(**small, intermediate_size=8, vocab_size=9))
    model = mdmmt.load(tiny_folder, "cpu", mmttxt_params={"txt_bert": module})
    with pytest.raises(TypeError, match="cannot be pickled, since txt_bert is a module"):
        pickle.dumps(model)
    assert copy.deepcopy(model) is model


def test_pickle_refuses_an_open_index(tmp_path, model):
    from mdmmt.search import Index

    with Index.open(tmp_path / "x.db", model) as index:
        assert copy.deepcopy(index.search).__self__ is index
        with pytest.raises(InputError, match="open index cannot be pickled"):
            pickle.dumps(index)


@pytest.mark.slow
def test_spawned_process_loads_its_own_model(model):
    with get_context("spawn").Pool(1) as pool:
        vector = pool.apply_async(model.encode_text, (TEXT,)).get(120)
    np.testing.assert_allclose(vector, model.encode_text(TEXT), atol=1e-6)


def work_of_torch() -> list[float]:
    """Products and sums that are large enough for all of OpenMP's threads."""
    x = torch.linspace(-1, 1, 1 << 20).view(2048, 512)
    with torch.inference_mode():
        return torch.nn.functional.layer_norm(x @ x[:512].T, (512,)).relu().sum(0)[:4].tolist()


def work_of_model(model) -> list[float]:
    return model.encode_text([TEXT + " and on" * n for n in range(64)])[:, 0].tolist()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
@pytest.mark.parametrize("name", ["torch", "model"])
def test_forked_child_computes_after_its_parent(model, name):
    work = work_of_torch if name == "torch" else partial(work_of_model, model)
    with computing_with(2):
        wanted = work(), work_of_torch()
        receiver, sender = get_context("fork").Pipe(duplex=False)
        child = get_context("fork").Process(target=lambda: sender.send((work(), work_of_torch())))
        child.start()
        try:
            assert receiver.poll(30)
            for got, expected in zip(receiver.recv(), wanted, strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
        finally:
            child.kill()
            child.join()

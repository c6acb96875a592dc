"""Local weights: where they are found, every layout and spelling, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from oracle import random_batch, run_video
from safetensors.torch import save_file
from tiny import TINY
from transformers import BertConfig, BertModel

import mdmmt
from mdmmt import InputError, WeightsError
from mdmmt.config import from_dict
from mdmmt.storage.paths import SAMPLE, SAMPLE_FOLDER, WEIGHTS_FOLDER, WEIGHTS_VARIABLE
from mdmmt.weights import layout, locate, released
from mdmmt.weights.folder import save_model
from mdmmt.weights.locate import find_weights

TEXTS = ["Hello world", "a man is playing with the red ball and the dog sings"]

# The tiny model in upstream's words: what a bare weights file needs to be one of another size.
VIDEO_PARAMS = {
    "expert_dims": {
        e.name: {"dim": e.dim, "idx": e.type_id, "max_tok": e.max_tokens}
        for e in TINY.video.experts
    },
    "vid_bert_config": {k: v for k, v in vars(TINY.video.encoder).items() if k != "vocab_size"},
    "same_dim": 24,
    "hidden_size": 24,
}


@pytest.fixture(scope="session")
def txt_bert(tiny_vocabulary, tmp_path_factory) -> Path:
    """A folder with BERT's configuration and tokenizer, and none of its weights."""
    folder = tmp_path_factory.mktemp("txt-bert")
    shutil.copytree(tiny_vocabulary, folder, dirs_exist_ok=True)
    BertConfig(**vars(TINY.text.bert)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_params(txt_bert) -> dict:
    return {"txt_bert": str(txt_bert), "modalities": list(TINY.text.experts), "same_dim": 24}


@pytest.fixture(scope="session")
def expected(tiny_model, tiny_video) -> tuple[np.ndarray, np.ndarray]:
    """What the model folder says of some texts and a video."""
    return tiny_model.encode_text(TEXTS), tiny_model.encode_video(tiny_video())


@pytest.fixture
def assert_loads(expected, text_params, tiny_video):
    """A weights file, or a folder of one, is the tiny model, bit for bit."""

    def check(path) -> None:
        model = mdmmt.load(path, "cpu", VIDEO_PARAMS, text_params)
        np.testing.assert_array_equal(model.encode_text(TEXTS), expected[0])
        np.testing.assert_array_equal(model.encode_video(tiny_video()), expected[1])

    return check


def refuses_video(path, words):
    with pytest.raises(WeightsError, match=words) as caught:
        _ = mdmmt.load(path, "cpu", VIDEO_PARAMS).read_video_tower()
    return str(caught.value)


def refuses_text(path, words, params):
    with pytest.raises(WeightsError, match=words):
        _ = mdmmt.load(path, "cpu", mmttxt_params=params).read_text_tower()


def both(pair) -> dict[str, torch.Tensor]:
    return {**pair.theirs_video.state_dict(), **pair.theirs_text.state_dict()}


# Layouts and spellings


def test_full_size_stand_in_of_the_released_file(full, full_file, assert_parity):
    """Its true format, read as a user reads it, says what the oracle says."""
    model = mdmmt.load(full_file, device="cpu")
    assert model.config == full.config
    features, times, mask = random_batch(full.config.video.experts, 2, 30)
    mask["CLIP"][0] = 0
    mask["VIDEO"][:, 25:] = 0
    theirs = run_video(full.theirs_video, features, times, mask)
    videos = [
        {
            part: {name: one[row].numpy() for name, one in by_expert.items()}
            for part, by_expert in zip(
                ("features", "features_t", "features_ind"), (features, times, mask), strict=True
            )
        }
        for row in range(2)
    ]
    ours = model.encode_video(videos)
    assert model.encode_video(videos[0]).shape == (1536,)
    assert ours.dtype == np.float32
    assert_parity(torch.tensor(ours), theirs, "video, full size, from .pth")
    assert np.linalg.norm(ours, axis=1) == pytest.approx(3**0.5, abs=1e-4)
    with torch.inference_mode():
        theirs = full.theirs_text(TEXTS)
    ours = model.encode_text(TEXTS)
    assert model.encode_text("Hello world").shape == (1536,)
    assert ours.dtype == np.float32
    assert_parity(torch.tensor(ours), theirs, "text, full size, from .pth")
    assert (np.linalg.norm(ours, axis=1) <= 1).all()


def old_spelling(name: str) -> str:
    name = name.replace("text_gu.", "text_GU.")
    if "LayerNorm" in name:
        name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
    return name


LAYOUTS = {
    "released": lambda pair: pair.released_layout,
    "released, with more beside": lambda pair: {**pair.released_layout, "epoch": 3, "args": None},
    "MMT": lambda pair: {
        "epoch": 3,
        "state_dict": {old_spelling(k): v for k, v in both(pair).items()},
    },
    "DataParallel": lambda pair: {
        k: {"module." + name: tensor for name, tensor in state.items()}
        for k, state in pair.released_layout.items()
    },
    "DataParallel and MMT": lambda pair: {
        "state_dict": {"module." + old_spelling(k): v for k, v in both(pair).items()}
    },
    "position_ids": lambda pair: {
        "state_dict": {
            **both(pair),
            "txt_bert.embeddings.position_ids": torch.arange(64)[None],
        }
    },
    "bare": both,
    "half of it in another precision": lambda pair: {
        k: v.double() if "weight" in k else v for k, v in both(pair).items()
    },
    "parameters": lambda pair: {
        k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in both(pair).items()
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_and_old_spellings(layout, tiny, tmp_path, assert_loads):
    torch.save(layout(tiny), tmp_path / "model.pth")
    assert_loads(tmp_path / "model.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_suffixes_of_torch_files(suffix, tiny, tmp_path, assert_loads):
    torch.save(tiny.released_layout, tmp_path / f"model{suffix}")
    assert_loads(str(tmp_path / f"model{suffix}"))


def test_torch_files_older_than_the_zip_format(tiny, tmp_path, assert_loads):
    path = tmp_path / "old.pth"
    torch.save(tiny.released_layout, path, _use_new_zipfile_serialization=False)
    assert_loads(path)


def test_safetensors(tiny, tmp_path, assert_loads):
    path = tmp_path / "tiny.safetensors"
    save_file(both(tiny), path)
    assert_loads(path)
    old = {"module." + old_spelling(name): tensor for name, tensor in both(tiny).items()}
    save_file(old, path)
    assert_loads(path)


def test_the_weights_are_float32(tiny, tmp_path, tiny_video):
    path = tmp_path / "half.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in both(tiny).items()}, path)
    tower = mdmmt.load(path, "cpu", VIDEO_PARAMS).read_video_tower()
    assert {p.dtype for p in tower.parameters()} == {torch.float32}


# Where weights are found


def test_a_folder_of_one_weights_file(tiny, tmp_path, assert_loads, txt_bert):
    torch.save(tiny.released_layout, tmp_path / "any name.pth")
    assert_loads(tmp_path)
    shutil.copytree(txt_bert, tmp_path, dirs_exist_ok=True)  # BERT's own config.json beside it
    assert_loads(tmp_path)
    shutil.copy(tmp_path / "any name.pth", tmp_path / "second.pt")
    with pytest.raises(WeightsError, match=r"exactly one .*: any name\.pth, second\.pt"):
        mdmmt.load(tmp_path, "cpu")


def test_none_looks_beside_the_operator_then_in_the_variable(
    tiny, tiny_folder, tmp_path, monkeypatch, assert_loads
):
    for module in (locate, released):
        monkeypatch.setattr(module, "WEIGHTS_FOLDER", tmp_path / "weights")
    with pytest.raises(WeightsError) as caught:
        mdmmt.load(None, "cpu")
    for way_out in ("weight_path", "'sample'", WEIGHTS_VARIABLE, str(tmp_path / "weights")):
        assert way_out in str(caught.value)
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tiny_folder))
    assert mdmmt.load(None, "cpu").path == tiny_folder
    (tmp_path / "weights").mkdir()
    torch.save(tiny.released_layout, tmp_path / "weights" / "mdmmt_3mod.pth")
    assert mdmmt.load(None, "cpu").path == tmp_path / "weights" / "mdmmt_3mod.pth"
    assert_loads(None)


def test_beside_the_operator_is_beside_the_package():
    package = Path(mdmmt.__file__).parent
    assert package.parent / "weights" == WEIGHTS_FOLDER


def test_sample():
    assert find_weights(SAMPLE) == SAMPLE_FOLDER
    model = mdmmt.load(SAMPLE, "cpu")
    names = tuple(expert.name for expert in model.config.video.experts)
    assert names == model.config.text.experts == ("frame", "motion", "sound")
    vector = model.encode_text("a red ball")
    assert vector.shape == (model.config.text.embedding_dim,)
    assert np.isfinite(vector).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere.pth", "'nowhere.pth', where there is no file"),
        (3, "weight_path is a int"),
        (__file__, r"expected one of \.safetensors, \.pth"),
    ],
)
def test_no_weights_there(given, words):
    with pytest.raises(WeightsError, match=words):
        mdmmt.load(given, "cpu")


def test_a_home_path_is_expanded(tiny_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_folder.parent))
    assert mdmmt.load(f"~/{tiny_folder.name}", "cpu").path == tiny_folder


# Safe and strict


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("style", ["zip", "old", "bare pickle", "inside a state dict"])
def test_a_malicious_pickle_runs_nothing(style, tiny, tmp_path):
    path, trace = tmp_path / "evil.pth", tmp_path / "it-ran"
    payload = Payload(trace)
    if style == "bare pickle":
        path.write_bytes(pickle.dumps(payload, protocol=2))
    elif style == "inside a state dict":
        layout = tiny.released_layout
        torch.save({**layout, "vid_state_dict": {**layout["vid_state_dict"], "x": payload}}, path)
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=style == "zip")
    refuses_video(path, "holds Python objects")
    assert not trace.exists()
    if style == "bare pickle":  # the payload is real
        pickle.loads(path.read_bytes())
        assert trace.exists()


def test_unknown_missing_and_misshaped_keys_are_listed(tiny, tmp_path, text_params):
    path = tmp_path / "wrong.pth"
    state = both(tiny)
    state["vid_bert.surplus"] = torch.zeros(1)
    state["text_gu.extra.fc.weight"] = torch.zeros(1)
    del state["vid_bert.pooler.dense.bias"], state["moe_fc_txt.wide.bias"]
    state["video_dim_reduce.narrow.fc.weight"] = torch.zeros(24, 4)
    torch.save({"state_dict": state}, path)
    message = refuses_video(path, "wrong.pth does not fit the model")
    assert "unknown keys: vid_bert.surplus" in message
    assert "missing keys: vid_bert.pooler.dense.bias" in message
    assert "video_dim_reduce.narrow.fc.weight (24, 4) instead of (24, 3)" in message
    refuses_text(
        path,
        r"unknown keys: text_gu\.extra\.fc\.weight; missing keys: moe_fc_txt\.wide\.bias",
        text_params,
    )


def test_keys_of_neither_tower_and_double_keys(tiny, tmp_path):
    path = tmp_path / "wrong.pth"
    state = both(tiny)
    torch.save({**state, "vid_head.weight": torch.zeros(1)}, path)
    refuses_video(path, r"keys of neither tower: vid_head\.weight")
    torch.save({**state, "module.vid_bert.pooler.dense.bias": torch.zeros(24)}, path)
    refuses_video(path, r"holds vid_bert\.pooler\.dense\.bias twice")
    save_file({**state, "vid_head.weight": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    refuses_video(tmp_path / "wrong.safetensors", r"neither tower: vid_head\.weight")
    torch.save({**state, "vid_bert.note": "hello"}, path)
    refuses_video(path, r"vid_bert\.note is a str, expected a tensor")
    torch.save([1, 2], path)
    refuses_video(path, "holds a list, expected a dict")


def test_a_long_list_of_keys_is_cut(tmp_path):
    path = tmp_path / "released.pth"
    torch.save({f"stranger.{i}": torch.zeros(1) for i in range(20)}, path)
    refuses_video(path, r"stranger\.0, .*stranger\.7 and 12 more$")


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", b"<!DOCTYPE html><html></html>"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_something_else(content, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    refuses_video(path, f"model{suffix} (is no|holds)")


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_cut_or_damaged_file(kind, tmp_path):
    """Wherever it is cut: torch's readers raise nearly any exception on such files."""
    state = {f"vid_bert.{i}": torch.randn(3, 4) for i in range(6)}
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, max(1, len(whole) // 150)):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError, match=r"a\.(pth|safetensors)"):
            layout.read_tower(path, layout.VIDEO_PREFIXES)


# One tower needs nothing of the other


def test_each_operator_needs_its_own_tower_only(
    tiny, tmp_path, monkeypatch, expected, text_params, tiny_video
):
    video_file, text_file = tmp_path / "video.pth", tmp_path / "text.pth"
    layout = tiny.released_layout
    torch.save({"vid_state_dict": layout["vid_state_dict"]}, video_file)
    torch.save({"txt_state_dict": layout["txt_state_dict"]}, text_file)
    video = mdmmt.MDMMT("video", video_file, "cpu", VIDEO_PARAMS)
    with monkeypatch.context() as patch:
        patch.setattr("mdmmt.model.load_tokenizer", None)  # a call would raise
        np.testing.assert_array_equal(video(tiny_video()), expected[1])
    text = mdmmt.MDMMT("text", text_file, "cpu", None, text_params)
    np.testing.assert_array_equal(text(TEXTS), expected[0])
    assert text.model._video_encoder is None
    assert video.model._text_encoder is None
    refuses_video(text_file, "holds nothing of this tower")
    refuses_text(video_file, "holds nothing of this tower", text_params)


def test_a_video_operator_does_not_import_transformers(tiny, tmp_path):
    """Nor does it look for a tokenizer, whose absence would be an error."""
    torch.save({"vid_state_dict": tiny.theirs_video.state_dict()}, tmp_path / "video.pth")
    code = (
        "import sys, mdmmt\n"
        f"mdmmt.load({str(tmp_path / 'video.pth')!r}, 'cpu', {VIDEO_PARAMS!r}).read_video_tower()\n"
        "assert 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# BERT and its tokenizer


@pytest.fixture
def only_heads(tiny, tmp_path) -> Path:
    """Weights of a text tower without those of BERT."""
    state = tiny.theirs_text.state_dict()
    path = tmp_path / "heads.pth"
    heads = {name: tensor for name, tensor in state.items() if not name.startswith("txt_bert.")}
    torch.save({"txt_state_dict": heads}, path)
    return path


def test_txt_bert_as_a_module(tiny, only_heads, txt_bert, text_params, expected):
    """Its configuration and state are taken over, as copies."""
    bert = BertModel(BertConfig(**vars(TINY.text.bert)))
    bert.load_state_dict(tiny.theirs_text.txt_bert.state_dict())
    params = {**text_params, "txt_bert": bert, "tokenizer": tiny.tokenizer}
    model = mdmmt.load(only_heads, "cpu", mmttxt_params=params)
    assert model.config.text.bert == TINY.text.bert
    np.testing.assert_array_equal(model.encode_text(TEXTS), expected[0])
    with torch.no_grad():
        bert.embeddings.word_embeddings.weight.zero_()
    np.testing.assert_array_equal(model.encode_text(TEXTS), expected[0])
    refuses_text(only_heads, r"missing keys: txt_bert\.", text_params)


def test_weights_that_hold_bert_go_before_the_modules_own(tiny, tmp_path, text_params, expected):
    """As upstream, where the checkpoint is loaded into the tower made of the module."""
    torch.save(tiny.released_layout, tmp_path / "model.pth")
    bert = BertModel(BertConfig(**vars(TINY.text.bert)))
    params = {**text_params, "txt_bert": bert, "tokenizer": tiny.tokenizer}
    model = mdmmt.load(tmp_path / "model.pth", "cpu", mmttxt_params=params)
    np.testing.assert_array_equal(model.encode_text(TEXTS), expected[0])


def test_tokenizer_parameter_goes_before_that_of_txt_bert(
    tiny, tiny_folder, tiny_vocabulary, txt_bert, tmp_path, expected
):
    (tmp_path / "config.json").write_bytes((txt_bert / "config.json").read_bytes())
    for tokenizer in (tiny.tokenizer, tiny_vocabulary, str(tiny_vocabulary)):
        params = {"txt_bert": tmp_path, "tokenizer": tokenizer}
        model = mdmmt.load(tiny_folder, "cpu", mmttxt_params=params)
        np.testing.assert_array_equal(model.encode_text(TEXTS), expected[0])
    model = mdmmt.load(tiny_folder, "cpu", mmttxt_params={"txt_bert": tmp_path})
    with pytest.raises(WeightsError, match=r"no tokenizer could be loaded .*tokenizer': FOLDER"):
        model.encode_text("a dog")


def test_the_tokenizer_beside_a_bare_file(tiny, tmp_path, tiny_vocabulary, text_params, expected):
    torch.save(tiny.released_layout, tmp_path / "model.pth")
    bert = BertModel(BertConfig(**vars(TINY.text.bert)))
    params = {**text_params, "txt_bert": bert}
    with pytest.raises(WeightsError, match=r"google-bert/bert-base-cased .*vocab\.txt"):
        mdmmt.load(tmp_path / "model.pth", "cpu", mmttxt_params=params).encode_text("a dog")
    shutil.copy(tiny_vocabulary / "vocab.txt", tmp_path)
    model = mdmmt.load(tmp_path / "model.pth", "cpu", mmttxt_params=params)
    np.testing.assert_array_equal(model.encode_text(TEXTS), expected[0])


def test_a_tokenizer_of_another_vocabulary_is_refused(tiny_folder, tmp_path):
    from tiny import write_vocabulary

    write_vocabulary(tmp_path, 500)
    model = mdmmt.load(tiny_folder, "cpu", mmttxt_params={"tokenizer": tmp_path})
    with pytest.raises(WeightsError, match="500 tokens and the text tower 400"):
        model.encode_text("a dog")


@pytest.mark.parametrize(
    ("txt_bert", "error", "words"),
    [
        (3, InputError, "txt_bert is a int"),
        (torch.nn.Linear(2, 2), InputError, "a module without a config"),
        ("no/such-bert", WeightsError, "txt_bert 'no/such-bert'"),
    ],
    ids=["number", "module", "hub id"],
)
def test_bad_txt_bert(txt_bert, error, words, tiny_folder):
    with pytest.raises(error, match=words):
        mdmmt.load(tiny_folder, "cpu", mmttxt_params={"txt_bert": txt_bert})


def test_of_bert_only_the_tokenizer_is_downloaded(full_file, tmp_path):
    """A hub on this machine notes what a fresh machine with the bare released file asks for."""
    vocabulary = full_file.parent
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def answer(self):
            asked.append(self.path)
            name = self.path.rsplit("/", 1)[-1]
            served = {"vocab.txt", "tokenizer_config.json", "config.json"}
            found = "/resolve/" in self.path and name in served
            body = b""
            if found:
                file = vocabulary / name
                body = file.read_bytes() if file.is_file() else b'{"model_type": "bert"}'
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{name}"')
            if not found:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD = answer

        def log_message(self, *_):
            pass

    alone = tmp_path / "alone"
    alone.mkdir()
    os.link(full_file, alone / "mdmmt_3mod.pth")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        Thread(target=hub.serve_forever, daemon=True).start()
        environment = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")} | {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
        }
        code = (
            "import mdmmt\n"
            f"model = mdmmt.load({str(alone / 'mdmmt_3mod.pth')!r}, 'cpu')\n"
            "print(model.encode_text('Hello world').shape)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        hub.shutdown()
    assert done.stdout == "(1536,)\n", done.stderr
    assert any(path.endswith("bert-base-cased/resolve/main/vocab.txt") for path in asked)
    assert not [path for path in asked if path.endswith((".safetensors", ".bin", ".h5", ".pt"))]


def test_the_network_is_blocked():
    for host in ("192.0.2.1", "huggingface.co"):
        with pytest.raises(pytest.fail.Exception, match=host):
            socket.create_connection((host, 443), timeout=1)


# Model folders


def test_saved_models_load_bit_for_bit(tiny_model, tmp_path, expected, tiny_video):
    tower, tokenizer = tiny_model.read_text_tower(), tiny_model.tokenizer
    folder = tmp_path / "new" / "folder"
    save_model(folder, tiny_model.config, tiny_model.read_video_tower(), tower, tokenizer.tokenizer)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(folder))
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    model = mdmmt.load(folder, "cpu")
    assert model.config == tiny_model.config
    np.testing.assert_array_equal(model.encode_text(TEXTS), expected[0])
    np.testing.assert_array_equal(model.encode_video(tiny_video()), expected[1])
    save_model(folder, model.config, model.read_video_tower(), *text_parts(model))  # onto itself
    np.testing.assert_array_equal(mdmmt.load(folder, "cpu").encode_text(TEXTS), expected[0])


def text_parts(model):
    return model.read_text_tower(), model.tokenizer.tokenizer


@pytest.mark.parametrize("breaks", ["save_file", "json.dumps"])
def test_saving_that_fails_leaves_the_old_folder_whole(
    breaks, tiny, tiny_folder, tmp_path, monkeypatch, expected
):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def disk_full(*_args, **_kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(f"mdmmt.weights.folder.{breaks}", disk_full)
    other = replace(tiny.config, text=replace(tiny.config.text, max_length=4))
    with pytest.raises(OSError, match="no space"):
        save_model(folder, other, tiny.ours_video, tiny.ours_text, tiny.tokenizer)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    np.testing.assert_array_equal(mdmmt.load(folder, "cpu").encode_text(TEXTS), expected[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "does not describe a model"),
        ("[]", "config.json is a list"),
        ('{"model_type": "bert"}', "'bert', not 'mdmmt'"),
        ('{"model_type": "mdmmt"}', "'video'"),
        ('{"model_type": "mdmmt", "surplus": 1}', "unknown surplus; known: model_type"),
    ],
)
def test_a_model_folder_whose_configuration_is_wrong(content, words, tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=words):
        mdmmt.load(folder, "cpu")


def test_a_model_folder_without_its_weights(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no model folder .*found: none"):
        mdmmt.load(folder, "cpu")


def test_parameters_change_what_a_model_folder_says(tiny_folder):
    model = mdmmt.load(tiny_folder, "cpu", mmttxt_params={"max_length": 4})
    assert model.config.text == replace(TINY.text, max_length=4)
    long = "the dog is playing with a red ball"
    np.testing.assert_array_equal(model.encode_text(long), model.encode_text("the dog"))
    written = json.loads((tiny_folder / "config.json").read_text())
    assert from_dict(written).text.max_length == 30
    with pytest.raises(WeightsError, match=r"missing keys: video_dim_reduce_out\.wide"):
        _ = mdmmt.load(tiny_folder, "cpu", {"same_dim": 8}).read_video_tower()

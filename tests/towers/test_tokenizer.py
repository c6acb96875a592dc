"""The text preparation, and where tokenizers are found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from tiny import TINY, write_vocabulary
from transformers import BertConfig, BertModel

import mdmmt
from mdmmt import InputError, WeightsError
from mdmmt.towers.tokenizer import Tokenizer, end_sentence, load_tokenizer, tokenizer_source

TEXTS = ["Hello world", "a man is playing with the red ball and the dog sings"]


@pytest.mark.parametrize(
    ("given", "ended"),
    [
        ("a dog", "a dog."),
        (" a dog \t", "a dog."),
        ("a dog.", "a dog."),
        ("a dog?", "a dog?"),
        ("a dog!", "a dog!"),
        ("a dog…", "a dog…."),
        ("a dog. ", "a dog."),
    ],
)
def test_end_sentence_adds_a_full_stop_where_none_ends(given, ended):
    assert end_sentence(given) == ended


@pytest.mark.parametrize(
    "files",
    [
        ("vocab.txt",),
        ("vocab.txt", "config.json"),
        ("vocab.txt", "tokenizer_config.json"),
        ("tokenizer.json",),
        ("tokenizer.json", "tokenizer_config.json"),
    ],
    ids=" ".join,
)
def test_load_tokenizer_needs_either_file_and_stays_cased(files, tiny, tiny_vocabulary, tmp_path):
    """transformers lower-cases a bare vocab.txt, refuses it, or finds no padding token."""
    tiny.tokenizer.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "got").mkdir()
    for name in files:
        folder = tiny_vocabulary if name == "vocab.txt" else tmp_path / "saved"
        (tmp_path / "got" / name).write_bytes((folder / name).read_bytes())
    texts = ["Hello hello HELLO é world."]
    tokenizer = Tokenizer(load_tokenizer(tmp_path / "got"), tiny.config.text)
    assert tokenizer(texts) == Tokenizer(tiny.tokenizer, tiny.config.text)(texts)
    assert tokenizer.tokenizer.pad_token_id == 0


def test_load_tokenizer_obeys_the_settings_of_an_uncased_one(tiny_vocabulary, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((tiny_vocabulary / "vocab.txt").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer("Hello")["input_ids"] == tokenizer("hello")["input_ids"]


def test_tokenizer_parameter_goes_before_that_of_txt_bert(
    tiny, tiny_folder, tiny_vocabulary, txt_bert, tmp_path, tiny_model
):
    (tmp_path / "config.json").write_bytes((txt_bert / "config.json").read_bytes())
    for tokenizer in (tiny.tokenizer, tiny_vocabulary, str(tiny_vocabulary)):
        params = {"txt_bert": tmp_path, "tokenizer": tokenizer}
        model = mdmmt.load(tiny_folder, "cpu", mmttxt_params=params)
        np.testing.assert_array_equal(model.encode_text(TEXTS), tiny_model.encode_text(TEXTS))
    model = mdmmt.load(tiny_folder, "cpu", mmttxt_params={"txt_bert": tmp_path})
    with pytest.raises(WeightsError, match=r"no tokenizer could be loaded .*tokenizer': FOLDER"):
        model.encode_text("a dog")


def test_tokenizer_source_is_beside_a_bare_file(
    tiny, tmp_path, tiny_vocabulary, text_params, tiny_model
):
    torch.save(tiny.released_layout, tmp_path / "model.pth")
    bert = BertModel(BertConfig(**vars(TINY.text.bert)))
    params = {**text_params, "txt_bert": bert}
    with pytest.raises(WeightsError, match=r"google-bert/bert-base-cased .*vocab\.txt"):
        mdmmt.load(tmp_path / "model.pth", "cpu", mmttxt_params=params).encode_text("a dog")
    shutil.copy(tiny_vocabulary / "vocab.txt", tmp_path)
    model = mdmmt.load(tmp_path / "model.pth", "cpu", mmttxt_params=params)
    np.testing.assert_array_equal(model.encode_text(TEXTS), tiny_model.encode_text(TEXTS))


def test_tokenizer_source_is_the_cache_after_the_weights_own(
    tiny_folder, tiny_vocabulary, tmp_path, monkeypatch
):
    monkeypatch.setenv("MDMMT_HOME", str(tmp_path))
    bare = tmp_path / "weights.pth"
    assert tokenizer_source(bare) == "google-bert/bert-base-cased"
    shutil.copytree(tiny_vocabulary, tmp_path / "bert-base-cased")
    assert tokenizer_source(bare) == tmp_path / "bert-base-cased"
    assert tokenizer_source(tiny_folder) == tiny_folder


def test_check_vocabulary_refuses_the_tokenizer_of_another_model(tiny_folder, tmp_path):
    write_vocabulary(tmp_path, 500)
    model = mdmmt.load(tiny_folder, "cpu", mmttxt_params={"tokenizer": tmp_path})
    with pytest.raises(WeightsError, match="500 tokens and the text tower 400"):
        model.encode_text("a dog")


@pytest.mark.slow
def test_load_downloads_only_the_tokenizer_of_bert(full_file, tmp_path):
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


LONG_TEXTS = [
    "the dog sings with a red ball " * 400_000,
    "\x00 \u200b \u0301 the, dog-- [SEP] x\x00 y\u00a0z \x1c " * 5000,
    "... !? the " * 30_000,
    "\x00 \u200b \x7f the " * 30_000,
]


@pytest.mark.parametrize(
    "text",
    LONG_TEXTS,
    ids=["ten megabytes", "odd characters", "marks", "characters that are dropped"],
)
def test_tokenizer_gives_the_first_tokens_of_a_long_text(tmp_path, text):
    write_vocabulary(tmp_path, TINY.text.bert.vocab_size)
    tokenizer = Tokenizer(load_tokenizer(tmp_path), TINY.text)
    began_s = time.monotonic()
    (ids,) = tokenizer([text])
    assert time.monotonic() - began_s < 0.5
    whole = tokenizer.tokenizer(
        end_sentence(text[:20_000]), max_length=TINY.text.max_length, truncation=True
    )
    assert ids == whole["input_ids"] and len(ids) == TINY.text.max_length


def test_tokenizer_refuses_a_text_beyond_the_bound(tmp_path):
    write_vocabulary(tmp_path, TINY.text.bert.vocab_size)
    tokenizer = Tokenizer(load_tokenizer(tmp_path), TINY.text)
    said = "text 'x{60}…' has 10000001 characters .* at most 100000"
    with pytest.raises(InputError, match=said):
        tokenizer(["a dog", "x" * 10**7])
    with pytest.raises(InputError, match="the text '\u72d7\u72d7\u72d7"):
        tokenizer(["\u72d7" * 10**7])

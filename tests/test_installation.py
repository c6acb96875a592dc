"""What `mdmmt info` says without a path: the first thing to run when something is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mdmmt import installation
from mdmmt.cli import main
from mdmmt.config import DOWNLOADS
from mdmmt.experts import pretrained
from mdmmt.experts.pretrained import EXPERTS_VARIABLE
from mdmmt.storage.paths import SAMPLE_FOLDER, WEIGHTS_VARIABLE
from mdmmt.version import VERSION
from mdmmt.weights import locate

FILES = {
    "tokenizer": "bert-base-cased/vocab.txt",
    "model": "mdmmt_3mod/model.safetensors",
    "VIDEO": "experts/ircsn_from_scratch_r152_ig65m_20200807-771c4135.pth",
    "CLIP": "experts/CLIP/pytorch_model.bin",
    "tf_vggish": "experts/vggish-10086976.pth",
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """The cache of a user who has no weights."""
    monkeypatch.setenv("MDMMT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(EXPERTS_VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(locate, "WEIGHTS_FOLDER", tmp_path / "weights")
    monkeypatch.setattr(pretrained, "EXPERTS_FOLDER", tmp_path / "weights" / "experts")
    return tmp_path / "home"


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345")
    return path


def test_info_tells_a_fresh_user_what_is_missing(home, capsys):
    assert main(["info"]) == 0
    captured = capsys.readouterr()
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in captured.out.splitlines())
    assert not captured.err
    assert lines["mdmmt"].startswith(f"{VERSION} in ")
    for name in ("torch", "transformers", "towhee", "av", "huggingface-hub", "pymilvus"):
        assert re.search(rf"\b{name} (\d|is not installed)", lines["packages"])
    assert f"torch {torch.__version__}" in lines["packages"]
    for name in DOWNLOADS:
        assert lines[name].startswith("missing, about ") and "https://" in lines[name]
    assert lines["missing"].startswith("tokenizer, model, VIDEO, CLIP, tf_vggish: `mdmmt download`")
    assert lines["device"].startswith("cuda: " if torch.cuda.is_available() else "cpu, ")
    assert re.match(r"exact; 'auto' would be (exact|bfloat16|int8)$", lines["precision"])
    assert str(home) in lines["downloads"] and "MDMMT_HOME" in lines["downloads"]
    assert "HF_HUB_OFFLINE is set" in lines["downloads"]
    assert not home.exists()  # nothing is written


def test_facts_tell_where_everything_is(home):
    for file in (*FILES.values(), "mdmmt_3mod/config.json"):
        put(home / file)
    found = installation.facts()
    assert "missing" not in found
    assert found["model"] == f"{home / 'mdmmt_3mod'} (the cache)"
    assert found["tokenizer"] == str(home / "bert-base-cased")
    for name in ("VIDEO", "CLIP", "tf_vggish"):
        assert found[name] == f"{home / FILES[name]}, 5 bytes"


def test_facts_follow_the_order_of_the_search(home, tmp_path, monkeypatch):
    put(home / FILES["tf_vggish"])
    beside = put(tmp_path / "weights" / "experts" / "vggish.pt")
    assert installation.facts()["tf_vggish"] == f"{beside}, 5 bytes"
    weights = put(tmp_path / "weights" / "mdmmt_3mod.pth")
    monkeypatch.setenv(WEIGHTS_VARIABLE, "sample")
    assert installation.facts()["model"] == f"{weights} (weights/ beside the operator)"
    weights.unlink()
    found = installation.facts()
    assert found["model"] == f"{SAMPLE_FOLDER} (MDMMT_WEIGHTS)"
    assert found["tokenizer"] == str(SAMPLE_FOLDER)


def test_facts_count_what_the_hubs_cache_holds(tmp_path):
    for repository, name in (
        ("openai--clip-vit-base-patch32", "pytorch_model.bin"),
        ("google-bert--bert-base-cased", "tokenizer.json"),
    ):
        folder = tmp_path / "hub" / f"models--{repository}"
        put(folder / "refs" / "main").write_text("0" * 40)
        put(folder / "snapshots" / ("0" * 40) / name)
    found = installation.facts()
    assert str(tmp_path / "hub") in found["CLIP"] and str(tmp_path / "hub") in found["tokenizer"]


def test_facts_ask_no_server_for_a_repository(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv(WEIGHTS_VARIABLE, "owner/name")
    assert installation.facts()["model"] == "owner/name on Hugging Face"


def test_facts_show_what_is_wrong_and_everything_else(home, tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "typo.pth"))
    monkeypatch.setenv(EXPERTS_VARIABLE, str(tmp_path / "typo"))
    monkeypatch.setattr(installation, "resolve_device", broken)
    found = installation.facts()
    assert found["model"].startswith("wrong: MDMMT_WEIGHTS is ") and "typo.pth" in found["model"]
    assert found["VIDEO"].startswith("wrong: MDMMT_EXPERTS is ")
    assert found["device"] == "wrong: RuntimeError: the driver is too old"
    assert found["mdmmt"].startswith(VERSION)


def broken(_: object) -> None:
    raise RuntimeError("the driver is too old")


def test_facts_name_packages_that_are_missing(monkeypatch):
    monkeypatch.setattr(installation, "PACKAGES", ("torch", "no-such-package"))
    assert installation.facts()["packages"].endswith(", no-such-package is not installed")

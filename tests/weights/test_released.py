"""The released weights from Google Drive, against a loopback server in its place."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from servers import Drive, Hub
from tiny import TINY

import mdmmt
from mdmmt.cli import main
from mdmmt.config import to_dict
from mdmmt.errors import MissingDependency, WeightsError
from mdmmt.storage import folders, google_drive, http
from mdmmt.towers.tokenizer import BERT_BASE_CASED_ID, load_tokenizer
from mdmmt.weights import folder, layout, locate, released

FOLDER = "mdmmt_3mod"
WAYS_OUT = (
    "weight_path",
    "no-weights-here",
    "MDMMT_WEIGHTS",
    "'sample'",
    "mdmmt download",
    "https://drive.google.com/file/d/1dVDouFZFEDrjqhvtjNFP633y0JjHf4Ya/view",
)
TEXTS = ["Hello world", "a man is playing"]


def as_file(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def content(tiny) -> bytes:
    """A small stand-in of the released file."""
    return as_file(tiny.released_layout)


@pytest.fixture
def drive(content, monkeypatch):
    server = Drive(content)
    monkeypatch.setattr(google_drive, "DRIVE_URL", f"{server.url}/uc")
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path, monkeypatch, tiny_vocabulary) -> Path:
    """An empty cache of a user who is online and has the tokenizer at hand; the model is tiny."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(released, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for module in (locate, released):
        monkeypatch.setattr(module, "WEIGHTS_FOLDER", tmp_path / "no-weights-here")
    monkeypatch.setattr(layout, "RELEASED", TINY)
    monkeypatch.setattr(http, "BLOCK_SIZE", 1024)
    monkeypatch.setattr(released, "load_tokenizer", lambda _: load_tokenizer(tiny_vocabulary))
    return tmp_path / "cache"


@pytest.fixture
def same(tiny_model, tiny_video):
    """Checks that what `weight_path=None` finds gives the vectors of the tiny model."""

    def check(texts: bool = True) -> None:
        model = mdmmt.load(None, "cpu")
        video = tiny_video()
        assert np.array_equal(model.encode_video(video), tiny_model.encode_video(video))
        if texts:
            assert np.array_equal(model.encode_text(TEXTS), tiny_model.encode_text(TEXTS))

    return check


def names(cache: Path) -> set[str]:
    """What the cache holds; locks do not count."""
    held = cache.iterdir() if cache.exists() else ()
    return {path.name for path in held if path.suffix != ".lock"}


def part(cache: Path) -> Path:
    (path,) = cache.glob(f"{FOLDER}.*.pth")
    return path


def fails() -> str:
    """The error of a download; it says every way out."""
    with pytest.raises(WeightsError) as error:
        locate.find_weights(None)
    for way in WAYS_OUT:
        assert way in str(error.value)
    return str(error.value)


def test_released_weights_downloads_once_and_converts(drive, cache, same, caplog):
    with caplog.at_level("INFO", "mdmmt"):
        same()
    assert drive.transfers == [0]
    assert names(cache) == {FOLDER}
    assert (cache / FOLDER / "model.safetensors").is_file()
    assert released.FILE_PAGE in caplog.text and str(cache / FOLDER) in caplog.text
    requests = len(drive.requests)
    same()
    assert len(drive.requests) == requests


def test_released_weights_logs_rather_than_prints(drive, cache, capsys):
    locate.find_weights(None)
    captured = capsys.readouterr()
    assert not captured.out and not captured.err


def test_download_command_tells_where_the_weights_go(drive, cache, capsys):
    assert main(["download", "--only", "model"]) == 0
    captured = capsys.readouterr()
    assert f"mdmmt: downloading the released weights from {released.FILE_PAGE}" in captured.err
    assert captured.out.split() == ["model", str(cache / FOLDER)]


def test_released_weights_names_the_source_in_the_card(drive, cache):
    card = (locate.find_weights(None) / "README.md").read_text()
    assert "mdmmt_3mod.pth" in card and released.FILE_PAGE in card


def test_find_weights_looks_in_local_places_first(drive, cache, tiny_folder, monkeypatch):
    monkeypatch.setenv(locate.WEIGHTS_VARIABLE, str(tiny_folder))
    assert locate.find_weights(None) == tiny_folder
    assert not drive.requests and not cache.exists()


def test_released_weights_names_every_other_way(cache, monkeypatch):
    monkeypatch.setattr(google_drive, "DRIVE_URL", "http://127.0.0.1:9/uc")
    assert "127.0.0.1 cannot be reached: Connection refused" in fails()


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["random", "half", "code", "shapes", "one tower"])
def test_released_weights_deletes_a_file_with_other_content(
    drive, cache, same, content, tiny, tmp_path, wrong
):
    shapes = {
        part: {name: tensor[..., :1] for name, tensor in state.items() if tensor.ndim}
        for part, state in tiny.released_layout.items()
    }
    drive.content = {
        "random": np.random.default_rng(0).bytes(len(content)),
        "half": content[: len(content) // 2],
        "code": as_file({"vid_state_dict": Harm(tmp_path / "harm")}),
        "shapes": as_file(shapes),
        "one tower": as_file({"vid_state_dict": tiny.released_layout["vid_state_dict"]}),
    }[wrong]
    assert "not the released model, and was deleted" in fails()
    assert not names(cache) and not (tmp_path / "harm").exists()
    drive.content = content
    same()


def test_released_weights_keeps_the_file_if_the_disk_is_full(drive, cache, same, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "save_file", full)
        assert "No space left on device" in fails()
    assert names(cache) == {part(cache).name}
    drive.requests.clear()
    drive.end = 1000  # what came is whole, and is not fetched again
    same()
    assert names(cache) == {FOLDER}


def test_released_weights_names_a_cache_that_cannot_be_made(drive, monkeypatch, cache):
    monkeypatch.setattr(released, "cache_folder", lambda: Path("/sys/mdmmt"))
    assert "/sys/mdmmt" in fails()
    assert not drive.requests


def test_released_weights_only_reads_a_filled_cache(drive, cache, same, monkeypatch):
    same()
    (cache / f"{FOLDER}.lock").unlink(missing_ok=True)
    before = {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob("*"))}
    same()
    assert before == {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob("*"))}


def test_released_weights_replaces_an_incomplete_folder(drive, cache, same, monkeypatch):
    (cache / FOLDER).mkdir(parents=True)
    (cache / FOLDER / "config.json").write_text("{}")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folders, "_remove_built", lambda *_: None)  # as when it is killed
        with folders.atomic_folder(cache / FOLDER):
            raise KeyboardInterrupt
    assert len(names(cache)) == 2
    same()
    assert names(cache) == {FOLDER}


def test_released_weights_downloads_nothing_offline(drive, cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in fails()
    assert not drive.requests and not cache.exists()


@pytest.mark.parametrize("package", ["filelock", "requests"])
def test_released_weights_names_the_extra_for_a_missing_package(drive, cache, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for name in ("google_drive", "http"):
        monkeypatch.delitem(sys.modules, f"mdmmt.storage.{name}")
        monkeypatch.delattr(f"mdmmt.storage.{name}")
    with pytest.raises(MissingDependency, match=r"pip install 'mdmmt\[download\]'"):
        locate.find_weights(None)
    assert not drive.requests and not cache.exists()


def test_released_weights_come_without_the_tokenizer_if_that_is_not_at_hand(
    drive, cache, same, monkeypatch, tiny_vocabulary
):
    def not_at_hand(source):
        raise WeightsError(f"no tokenizer could be loaded from {source}")

    with monkeypatch.context() as patch:
        patch.setattr(released, "load_tokenizer", not_at_hand)
        same(texts=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=f"{BERT_BASE_CASED_ID}.*tokenizer.json or vocab.txt"):
        mdmmt.load(None, "cpu").encode_text("Hello")
    monkeypatch.setenv("MDMMT_HOME", str(cache))  # which `mdmmt download --only tokenizer` fills
    (cache / "bert-base-cased").mkdir()
    shutil.copy(tiny_vocabulary / "vocab.txt", cache / "bert-base-cased")
    same()


CHILD = """
import json, os, sys
from mdmmt.storage import google_drive, http
from mdmmt.weights import layout, locate
from mdmmt.config import from_dict
locate.WEIGHTS_FOLDER = locate.Path(os.environ["TEST_HOME"], "none")
layout.RELEASED = from_dict(json.loads(os.environ["TEST_CONFIG"]))
google_drive.DRIVE_URL = os.environ["TEST_DRIVE"]
http.BLOCK_SIZE = 1024
from mdmmt.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_download_command_in_several_processes(drive, tmp_path, tiny_vocabulary, tiny_model):
    """One is killed in the middle; two at once end well; then it works offline."""
    files = {path.name: path.read_bytes() for path in tiny_vocabulary.iterdir()}
    files["config.json"] = b'{"model_type": "bert"}'
    files["pytorch_model.bin"] = b"must not be fetched"
    hub = Hub({BERT_BASE_CASED_ID: files})
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "PYTHONPATH": str(Path(mdmmt.__file__).parent.parent),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url,
        "NO_PROXY": "127.0.0.1",
        "TEST_HOME": str(tmp_path),
        "TEST_CONFIG": json.dumps(to_dict(TINY)),
        "TEST_DRIVE": f"{drive.url}/uc",
    }
    cache = tmp_path / "cache" / "mdmmt"

    def start(name: str, *arguments: str, **variables: str) -> subprocess.Popen:
        with open(tmp_path / name, "w") as said:
            command = [sys.executable, "-c", CHILD, *arguments]
            return subprocess.Popen(command, env=environment | variables, stderr=said)

    def wait_until(condition, *processes: subprocess.Popen) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline and all(p.poll() is None for p in processes), [
                (tmp_path / name).read_text() for name in ("killed", "one", "two")
            ]
            time.sleep(0.02)

    def waiting() -> list[bool]:
        said = [(tmp_path / name).read_text() for name in ("one", "two")]
        return sorted("waiting for another process" in text for text in said)

    drive.gate.clear()
    killed = start("killed", "download", "--only", "model")
    wait_until(lambda: any(path.stat().st_size > 8192 for path in cache.glob("*.pth")), killed)
    killed.kill()
    killed.wait()
    kept = part(cache).stat().st_size
    assert names(cache) == {part(cache).name}

    drive.requests.clear()
    both = [start(name, "download", "--only", "model") for name in ("one", "two")]
    wait_until(lambda: waiting() == [False, True], *both)
    drive.gate.set()
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert drive.transfers == [0, kept]
    assert names(cache) == {FOLDER}
    assert "pytorch_model.bin" not in hub.fetched

    drive.close()
    hub.close()
    out = tmp_path / "out.npy"
    offline = start("offline", "embed", "--text", TEXTS[0], "--out", str(out), HF_HUB_OFFLINE="1")
    assert offline.wait(timeout=60) == 0, (tmp_path / "offline").read_text()
    assert "[transformers]" not in (tmp_path / "offline").read_text()
    assert np.array_equal(np.load(out)[0], tiny_model.encode_text(TEXTS[0]))

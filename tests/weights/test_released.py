"""The released weights from Google Drive, against a loopback server in its place."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from safetensors import SafetensorError
from servers import QUOTA, Drive, Hub
from tiny import TINY

import mdmmt
from mdmmt.cli import main
from mdmmt.config import to_dict
from mdmmt.errors import WeightsError
from mdmmt.towers.tokenizer import BERT_BASE_CASED_ID, load_tokenizer
from mdmmt.weights import folder, layout, locate
from mdmmt.weights import released as download

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
def released(tiny) -> bytes:
    """A small stand-in of the released file."""
    return as_file(tiny.released_layout)


@pytest.fixture
def drive(released, monkeypatch):
    server = Drive(released)
    monkeypatch.setattr(download, "DRIVE_URL", f"{server.url}/uc")
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path, monkeypatch, tiny_vocabulary) -> Path:
    """An empty cache of a user who is online and has the tokenizer at hand; the model is tiny."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for module in (locate, download):
        monkeypatch.setattr(module, "WEIGHTS_FOLDER", tmp_path / "no-weights-here")
    monkeypatch.setattr(layout, "RELEASED", TINY)
    monkeypatch.setattr(download, "BLOCK_SIZE", 1024)
    monkeypatch.setattr(download, "TIMEOUT_S", 5.0)
    monkeypatch.setattr(download, "load_tokenizer", lambda _: load_tokenizer(tiny_vocabulary))
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


@pytest.mark.parametrize("page", ["confirm", None])
def test_downloaded_once_and_converted(drive, cache, same, page, capsys):
    drive.page = page
    same()
    assert drive.transfers == [0]
    assert names(cache) == {FOLDER}
    assert (cache / FOLDER / "model.safetensors").is_file()
    said = capsys.readouterr().err
    assert download.FILE_PAGE in said and str(cache / FOLDER) in said and "100%" in said
    asked = len(drive.requests)
    same()
    assert len(drive.requests) == asked


def test_the_card_names_the_file_and_where_it_is_from(drive, cache):
    card = (locate.find_weights(None) / "README.md").read_text()
    assert "mdmmt_3mod.pth" in card and download.FILE_PAGE in card


def test_local_places_come_first(drive, cache, tiny_folder, monkeypatch):
    monkeypatch.setenv(locate.WEIGHTS_VARIABLE, str(tiny_folder))
    assert locate.find_weights(None) == tiny_folder
    assert not drive.requests and not cache.exists()


def test_real_address():
    assert download.DRIVE_URL == "https://drive.google.com/uc"


@pytest.mark.parametrize(
    ("page", "status", "said"),
    [
        (QUOTA, 200, "Quota exceeded Sorry, you can't view or download this file"),
        ("<title>Error 404 (Not Found)</title>", 404, "status 404: Error 404 (Not Found)"),
        ("<title>Meet Google Drive</title><form id='login' action='/x'>", 200, "Meet Google Drive"),
        ("<form id='download-form' action='/uc'>again and again</form>", 200, "again and again"),
        ("", 500, "status 500"),
    ],
)
def test_page_instead_of_the_file(drive, cache, released, page, status, said):
    drive.end = 5000
    fails()
    kept = part(cache).read_bytes()
    drive.page, drive.page_status = page, status
    assert said in (error := fails()) and "hidden" not in error
    assert part(cache).read_bytes() == kept and names(cache) == {part(cache).name}


def test_cut_is_taken_up_again(drive, cache, same, released):
    drive.piece = 100_000
    same()
    starts = [start for start in drive.transfers if start]
    assert len(starts) == len(released) // drive.piece and starts == sorted(starts)
    assert names(cache) == {FOLDER}


def test_cut_for_good_keeps_what_came(drive, cache, same, released):
    drive.end = 5000
    assert "Connection broken" in fails()
    kept = part(cache).read_bytes()
    assert 0 < len(kept) <= 5000 and released.startswith(kept)
    drive.end = None
    drive.requests.clear()
    same()
    assert drive.transfers == [0, len(kept)]


def test_a_cut_that_the_http_library_overlooks(drive, cache, same, released, monkeypatch):
    """As urllib3 1 does."""
    iterate = requests.Response.iter_content

    def overlook(answer, size):
        with suppress(requests.RequestException):
            yield from iterate(answer, size)

    with monkeypatch.context() as patch:
        patch.setattr(requests.Response, "iter_content", overlook)
        drive.end = 5000
        assert f"of {len(released)} bytes came" in fails()
    assert released.startswith(part(cache).read_bytes())
    drive.end = None
    same()


def test_stall_ends(drive, cache, same, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    drive.end, drive.silent = 5000, True
    start = time.monotonic()
    assert "timed out" in fails()
    assert time.monotonic() - start < 5
    kept = part(cache).stat().st_size
    assert 0 < kept <= 5000
    drive.end = None
    drive.requests.clear()
    same()
    assert drive.transfers == [0, kept]


def test_nothing_there(cache, monkeypatch):
    monkeypatch.setattr(download, "DRIVE_URL", "http://127.0.0.1:9/uc")
    assert "Connection refused" in fails()


def test_another_version_is_not_continued(drive, cache, same, released):
    drive.content, drive.end = bytes(len(released)), 5000
    fails()
    drive.content, drive.end = released, None
    drive.requests.clear()
    same()
    assert drive.transfers == [0]
    assert names(cache) == {FOLDER}


def test_another_version_between_two_requests(drive, cache, same, released):
    drive.end = 5000
    fails()
    drive.end = None
    drive.versions = [released, released[::-1]]
    drive.requests.clear()
    same()
    assert len(drive.transfers) == 3 and drive.transfers[2] == 0


@pytest.mark.parametrize("lacking", ["ranges", "validators"])
def test_without_the_means_to_resume(drive, cache, same, lacking):
    setattr(drive, lacking, False)
    drive.end = 5000
    fails()
    drive.end = None
    drive.requests.clear()
    same()
    assert any(drive.transfers) == (lacking == "ranges")


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrong", ["random", "half", "code", "shapes", "one tower"])
def test_wrong_content(drive, cache, same, released, tiny, tmp_path, wrong):
    shapes = {
        part: {name: tensor[..., :1] for name, tensor in state.items() if tensor.ndim}
        for part, state in tiny.released_layout.items()
    }
    drive.content = {
        "random": np.random.default_rng(0).bytes(len(released)),
        "half": released[: len(released) // 2],
        "code": as_file({"vid_state_dict": Harm(tmp_path / "harm")}),
        "shapes": as_file(shapes),
        "one tower": as_file({"vid_state_dict": tiny.released_layout["vid_state_dict"]}),
    }[wrong]
    assert "what came is not it" in fails()
    assert not names(cache) and not (tmp_path / "harm").exists()
    drive.content = released
    same()


def test_full_disk_while_downloading(drive, cache, same):
    """A part file that leads to /dev/full, which refuses every byte as a full disk does."""
    drive.end = 5000
    fails()
    drive.end = None
    target = part(cache)
    target.unlink()
    target.symlink_to("/dev/full")
    assert "No space left on device" in fails()
    target.unlink()
    same()


def test_full_disk_while_converting(drive, cache, same, monkeypatch):
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


def test_cache_that_cannot_be_made(drive, monkeypatch, cache):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: "/sys/mdmmt")
    assert "/sys/mdmmt" in fails()
    assert not drive.requests


def test_a_filled_cache_is_only_read(drive, cache, same, monkeypatch):
    same()
    (cache / f"{FOLDER}.lock").unlink(missing_ok=True)
    before = {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob("*"))}
    same()
    assert before == {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob("*"))}


def test_half_a_folder_is_not_taken_for_whole(drive, cache, same):
    (cache / FOLDER).mkdir(parents=True)
    (cache / FOLDER / "config.json").write_text("{}")
    (cache / f".{FOLDER}-killed" / "built").mkdir(parents=True)
    same()
    assert names(cache) == {FOLDER}


def test_offline_is_offline(drive, cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in fails()
    assert not drive.requests and not cache.exists()


def test_without_platformdirs(drive, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert "pip install platformdirs filelock requests" in fails()


def test_without_the_tokenizer(drive, cache, same, monkeypatch, capsys):
    def unreachable(source):
        raise WeightsError(f"no tokenizer could be loaded from {source}")

    with monkeypatch.context() as patch:
        patch.setattr(download, "load_tokenizer", unreachable)
        assert main(["download"]) == 1
        said = capsys.readouterr().err
        assert f"the weights are in {cache / FOLDER}" in said and BERT_BASE_CASED_ID in said
        same(texts=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=f"{BERT_BASE_CASED_ID}.*tokenizer.json or vocab.txt"):
        mdmmt.load(None, "cpu").encode_text("Hello")
    asked = len(drive.requests)
    assert main(["download"]) == 0
    assert len(drive.requests) == asked
    same()


CHILD = """
import json, os, sys
from mdmmt.weights import released as download
from mdmmt.weights import layout, locate
from mdmmt.config import from_dict
locate.WEIGHTS_FOLDER = locate.Path(os.environ["TEST_HOME"], "none")
layout.RELEASED = from_dict(json.loads(os.environ["TEST_CONFIG"]))
download.DRIVE_URL = os.environ["TEST_DRIVE"]
download.BLOCK_SIZE = 1024
from mdmmt.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_processes(drive, tmp_path, tiny_vocabulary, tiny_model):
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
    killed = start("killed", "download")
    wait_until(lambda: any(path.stat().st_size > 8192 for path in cache.glob("*.pth")), killed)
    killed.kill()
    killed.wait()
    kept = part(cache).stat().st_size
    assert names(cache) == {part(cache).name}

    drive.requests.clear()
    both = [start("one", "download"), start("two", "download")]
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

"""Model folders on Hugging Face, against a loopback server in its place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from servers import Hub

import mdmmt
from mdmmt.errors import WeightsError
from mdmmt.experts.clip import ClipExpert
from mdmmt.storage.huggingface import fetch_file, fetch_snapshot, is_repository, repository_of
from mdmmt.towers.tokenizer import load_tokenizer
from mdmmt.weights.locate import find_weights

NAME = "someone/mdmmt-tiny"
TOKEN = "hf_secret"


@pytest.fixture
def hub(tiny_folder):
    files = {path.name: path.read_bytes() for path in tiny_folder.iterdir()}
    strangers = ("pytorch_model.bin", "mdmmt_3mod.pth", "model.py", "README.md", "more/config.json")
    server = Hub(
        {
            NAME: {**files, **dict.fromkeys(strangers, b"must not be fetched")},
            "someone/pickle": {"mdmmt_3mod.pth": b"", "config.json": b"{}"},
        }
    )
    yield server
    server.close()


@pytest.fixture
def online(hub, tmp_path, monkeypatch):
    """A user with an empty cache who reaches the hub."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for module in ("constants", "file_download"):  # before 1.0 the latter has one of its own
        name = f"huggingface_hub.{module}.HUGGINGFACE_CO_URL_TEMPLATE"
        monkeypatch.setattr(name, template, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    forget_sessions()
    yield tmp_path / "hf"
    forget_sessions()


def forget_sessions():
    """Before 1.0 they keep to whether the hub was to be reached when they were made."""
    getattr(huggingface_hub, "configure_http_backend", lambda: None)()


@pytest.mark.slow
@pytest.mark.parametrize("revision", ["", "@main", "@v1", f"@{Hub.COMMIT}"])
def test_fetch_snapshot_gives_the_same_vectors(
    online, hub, tiny_folder, tiny_model, tiny_video, revision
):
    model = mdmmt.load(NAME + revision, "cpu")
    assert np.array_equal(model.encode_text("Hello"), tiny_model.encode_text("Hello"))
    assert np.array_equal(model.encode_video(tiny_video()), tiny_model.encode_video(tiny_video()))
    assert hub.fetched == {path.name for path in tiny_folder.iterdir()}
    assert Path(model.path).is_relative_to(online)
    assert repository_of(model.path) == f"{NAME}@{Hub.COMMIT}"
    assert repository_of(tiny_folder) is None


def test_fetch_snapshot_works_offline_from_the_cache(online, hub, monkeypatch):
    folder = find_weights(f"{NAME}@v1")
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    forget_sessions()
    assert find_weights(f"{NAME}@v1") == folder
    assert not hub.requests
    with pytest.raises(WeightsError, match=r"its cache lacks it.*HF_HUB_OFFLINE"):
        find_weights("someone/else")


def test_find_weights_prefers_a_local_path(online, hub, tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "someone").mkdir()
    (tmp_path / NAME).symlink_to(tiny_folder)
    monkeypatch.chdir(tmp_path)
    assert find_weights(NAME) == Path(NAME)
    (tmp_path / "someone" / "file").touch()
    with pytest.raises(WeightsError, match=r"expected one of \.safetensors"):
        find_weights("someone/file")
    assert not hub.requests


def refused(name: str) -> str:
    with pytest.raises(WeightsError) as error:
        find_weights(name)
    message = str(error.value)
    assert repr(name) in message and "does not exist" in message and "\n" not in message
    return message


def test_fetch_snapshot_tells_what_is_missing(online):
    assert "the repository does not exist" in refused("someone/else")
    assert "it has no revision 'v7'" in refused(f"{NAME}@v7")
    assert "model folder (config.json and model.safetensors)" in refused("someone/pickle")
    assert "cannot be had" in refused("someone/a--b")


def test_fetch_snapshot_tells_who_has_access(online, hub, monkeypatch):
    hub.private = TOKEN
    assert "your token cannot read it" in refused(NAME)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.gated = True
    assert "its owner must grant you access" in refused(NAME)
    hub.gated = False
    assert find_weights(NAME).is_dir()


def test_fetch_snapshot_reports_a_missing_network(online, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "the hub cannot be reached" in refused(NAME)


def test_fetch_snapshot_reports_a_broken_transfer(online, hub, monkeypatch):
    def cut(request, content):
        request.send_response(200)
        for name, value in {
            "ETag": '"x"',
            "X-Repo-Commit": hub.COMMIT,
            "Content-Length": 99,
        }.items():
            request.send_header(name, str(value))
        request.end_headers()
        request.close_connection = True

    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub._send_file = cut
    assert "cannot be had" in refused(NAME)


def test_fetch_file_gives_the_first_file_that_is_there(online, hub):
    file = fetch_file("someone/pickle", ["none.bin", "config.json", "mdmmt_3mod.pth"])
    assert file.name == "config.json" and file.read_bytes() == b"{}"
    assert hub.fetched == {"config.json"}
    with pytest.raises(WeightsError, match="holds no such file"):
        fetch_file("someone/pickle", ["none.bin"])
    with pytest.raises(WeightsError, match="no revision 'v7'"):
        fetch_file("someone/pickle@v7", ["config.json"])


def test_load_tokenizer_refuses_code_of_a_repository(monkeypatch):
    """Rather than asked about at the terminal, which is what transformers does by itself."""
    given = {}
    monkeypatch.setattr(
        "transformers.AutoTokenizer.from_pretrained", lambda _, **o: given.update(o)
    )
    with suppress(WeightsError):  # what it gives is no tokenizer
        load_tokenizer("someone/evil")
    assert given["trust_remote_code"] is False


@pytest.mark.parametrize(
    ("spelling", "is_one"),
    [
        ("owner/name", True),
        ("owner/name@v1.0", True),
        ("owner/name@refs/pr/1", True),
        ("Owner-1/name_2.x", True),
        ("name", False),
        ("/owner/name", False),
        ("./owner/name", False),
        ("./name", False),
        ("../name", False),
        ("~/name", False),
        ("a/b/c", False),
        ("owner/name@", False),
        ("owner/", False),
        ("weights/mdmmt_3mod.pth", False),
        ("weights/model.safetensors", False),
        ("owner/na me", False),
        ("owner/name\n", False),
    ],
)
def test_is_repository_knows_the_spelling(spelling, is_one):
    assert is_repository(spelling) == is_one


@pytest.mark.slow
def test_info_command_finds_the_cache_without_a_network(online, hub, tmp_path):
    """Another process finds in huggingface_hub's cache what this one put there."""
    folder = find_weights(f"{NAME}@v1")
    hub.close()
    variables = {
        "PYTHONPATH": str(Path(mdmmt.__file__).parent.parent),
        "HF_HUB_CACHE": str(online),
        "HF_HUB_OFFLINE": "1",
    }
    result = subprocess.run(
        [sys.executable, "-m", "mdmmt", "info", f"{NAME}@v1"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert str(folder) in result.stdout and "wide (11 wide)" in result.stdout


class OutOfService(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(503)

    do_GET = do_HEAD  # the name is that of http.server

    def log_message(self, *_):
        pass


@pytest.fixture(params=["silent", "refusing", "out of service"])
def unreachable(request, online, monkeypatch):
    """A hub that cannot be reached, and an empty cache."""
    server = HTTPServer(("127.0.0.1", 0), OutOfService)  # silent until it serves
    if request.param == "out of service":
        threading.Thread(target=server.serve_forever, daemon=True).start()
    if request.param == "refusing":
        server.server_close()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for module in ("constants", "file_download"):  # see `online`
        name = f"huggingface_hub.{module}.HUGGINGFACE_CO_URL_TEMPLATE"
        monkeypatch.setattr(name, template, raising=False)
    yield
    if request.param == "out of service":
        server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fetch", "option"),
    [
        (lambda: fetch_snapshot(NAME, ["*"]), "its cache lacks it"),
        (lambda: load_tokenizer(NAME), "mmttxt_params"),
        (lambda: ClipExpert.fetch(NAME), "MDMMT_EXPERTS"),
    ],
    ids=["snapshot", "tokenizer", "CLIP"],
)
def test_unreachable_hub_is_told_within_five_seconds(unreachable, fetch, option):
    start = time.monotonic()
    with pytest.raises(WeightsError, match=option):
        fetch()
    assert time.monotonic() - start < 5

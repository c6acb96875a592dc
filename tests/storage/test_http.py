"""Downloads over HTTP against loopback servers; tests/storage/test_google_drive.py has more."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from servers import Files, Server, keep_silent

from mdmmt.storage import http
from mdmmt.storage.http import download, unreachable

NAME = "weights.pth"


@pytest.fixture(scope="module")
def content() -> bytes:
    return np.random.default_rng(0).bytes(100_000)


@pytest.fixture
def server(content, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(http, "BLOCK_SIZE", 1024)
    server = Files({NAME: content})
    yield server
    server.close()


def fails(url: str, folder: Path) -> str:
    with pytest.raises(OSError) as error:
        download(url, NAME, folder)
    return str(error.value)


def cut(server: Files, folder: Path) -> int:
    """Bytes that came before the connection broke."""
    server.end = 5000
    assert "Connection broken" in fails(f"{server.url}/{NAME}", folder)
    server.end = None
    server.requests.clear()
    (part,) = folder.iterdir()
    assert 0 < part.stat().st_size <= 5000
    return part.stat().st_size


def test_download_gets_the_whole_file(server, content, tmp_path):
    file = download(f"{server.url}/{NAME}", NAME, tmp_path)
    assert file.read_bytes() == content and list(tmp_path.iterdir()) == [file]
    assert server.transfers == [(NAME, 0)]


def test_download_resumes_a_cut_file_and_names_its_version(server, content, tmp_path):
    received = cut(server, tmp_path)
    assert download(f"{server.url}/{NAME}", NAME, tmp_path).read_bytes() == content
    assert server.transfers == [(NAME, 0), (NAME, received)]
    first, second = (headers for _, _, headers in server.requests)
    assert "If-Range" not in first and second["If-Range"].startswith('"')


def test_download_starts_again_on_a_server_without_ranges(server, content, tmp_path):
    cut(server, tmp_path)
    server.ranges = False
    assert download(f"{server.url}/{NAME}", NAME, tmp_path).read_bytes() == content
    assert server.transfers[-1] == (NAME, 0)


def test_download_starts_again_with_a_file_that_changed(server, content, tmp_path):
    cut(server, tmp_path)
    server.files[NAME] = content[::-1]
    assert download(f"{server.url}/{NAME}", NAME, tmp_path).read_bytes() == content[::-1]
    assert server.transfers == [(NAME, 0)]


def test_download_reports_the_status_of_a_missing_file(server, tmp_path):
    assert fails(f"{server.url}/none.pth", tmp_path) == "the server answered 404 Not Found"
    assert not list(tmp_path.iterdir())


def test_download_needs_room_for_what_is_still_to_come(server, content, tmp_path, monkeypatch):
    received = cut(server, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    missing = len(content) - received
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=missing - 1))
    error = fails(f"{server.url}/{NAME}", tmp_path)
    for part in (NAME, str(tmp_path), "are free", "MDMMT_HOME"):
        assert part in error
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=missing))
    assert download(f"{server.url}/{NAME}", NAME, tmp_path).read_bytes() == content


class Redirecting(Server):
    target = "http://192.0.2.1/weights.pth"

    def answer(self, request):
        self.send(request, b"", 302, {"Location": self.target})


def test_download_is_not_led_away_from_https(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    server = Redirecting()
    assert "http://192.0.2.1/weights.pth is not HTTPS" in fails(f"{server.url}/a", tmp_path)
    server.target = "http://127.0.0.1:80@192.0.2.1/weights.pth"  # a name and a password, no host
    assert "is not HTTPS" in fails(f"{server.url}/a", tmp_path)
    server.close()


def test_unreachable_tells_a_refused_connection():
    url = "http://127.0.0.1:9/a"
    assert unreachable([url]) == {url: "127.0.0.1 cannot be reached: Connection refused"}


def test_unreachable_is_done_in_time_for_many_names_that_nobody_answers(monkeypatch):
    """A name server that keeps silent, as behind many firewalls."""
    monkeypatch.setattr(http, "REACH_S", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", keep_silent)
    urls = [f"https://{name}.invalid/a" for name in "abcdefgh"]
    start = time.monotonic()
    found = unreachable(urls)
    assert time.monotonic() - start < 1.5
    assert list(found) == urls
    assert found[urls[0]] == "a.invalid cannot be reached: no connection within 0.3 seconds"


def test_download_tries_the_proxy_in_place_of_the_server(tmp_path, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert "127.0.0.1 cannot be reached" in fails("https://weights.invalid/a", tmp_path)


def test_reaching_takes_less_than_five_seconds():
    assert http.REACH_S < 5


def test_requests_errors_are_os_errors():
    assert issubclass(requests.RequestException, OSError)

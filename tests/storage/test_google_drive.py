"""Downloads from Google Drive, against a loopback server in its place."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import requests
from servers import QUOTA, Drive

from mdmmt.storage import google_drive, http
from mdmmt.storage.google_drive import download

NAME = "mdmmt_3mod.pth"


@pytest.fixture(scope="module")
def content() -> bytes:
    return np.random.default_rng(0).bytes(350_000)


@pytest.fixture
def drive(content, monkeypatch):
    server = Drive(content)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(google_drive, "DRIVE_URL", f"{server.url}/uc")
    monkeypatch.setattr(http, "BLOCK_SIZE", 1024)
    monkeypatch.setattr(http, "TIMEOUT_S", 5.0)
    yield server
    server.close()


@pytest.fixture
def same(content, tmp_path):
    """Checks that a download gives the whole file, and nothing beside it."""

    def check() -> None:
        file = download("the-id", NAME, tmp_path)
        assert file.read_bytes() == content
        assert list(tmp_path.iterdir()) == [file]

    return check


def part(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def fails(folder: Path) -> str:
    with pytest.raises(OSError) as error:
        download("the-id", NAME, folder)
    return str(error.value)


def test_drive_url_is_google_drives():
    assert google_drive.DRIVE_URL == "https://drive.google.com/uc"


@pytest.mark.parametrize("page", ["confirm", None])
def test_download_gets_the_file_once(drive, same, page):
    drive.page = page
    same()
    assert drive.transfers == [0]
    assert all("id=the-id" in path for _, path, _ in drive.requests)
    same()  # the file is complete
    assert drive.transfers == [0, 0]


@pytest.mark.parametrize("terminal", [True, False])
def test_download_draws_a_bar_on_a_terminal(drive, same, monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    same()
    assert ("100%" in capsys.readouterr().err) == terminal


@pytest.mark.parametrize(
    ("page", "status", "words"),
    [
        (QUOTA, 200, "Quota exceeded Sorry, you can't view or download this file"),
        ("<title>Error 404 (Not Found)</title>", 404, "status 404: Error 404 (Not Found)"),
        ("<title>Meet Google Drive</title><form id='login' action='/x'>", 200, "Meet Google Drive"),
        ("<form id='download-form' action='/uc'>again and again</form>", 200, "again and again"),
        ("", 500, "status 500"),
    ],
)
def test_download_quotes_a_page_that_comes_instead(drive, tmp_path, page, status, words):
    drive.end = 5000
    fails(tmp_path)
    received = part(tmp_path).read_bytes()
    drive.page, drive.page_status = page, status
    assert words in (error := fails(tmp_path)) and "hidden" not in error
    assert part(tmp_path).read_bytes() == received


def test_download_renews_broken_connections(drive, same, content):
    drive.piece = 100_000
    same()
    starts = [start for start in drive.transfers if start]
    assert len(starts) == len(content) // drive.piece and starts == sorted(starts)


def test_download_resumes_in_a_later_run(drive, same, content, tmp_path):
    drive.end = 5000
    assert "Connection broken" in fails(tmp_path)
    received = part(tmp_path).read_bytes()
    assert 0 < len(received) <= 5000 and content.startswith(received)
    drive.end = None
    drive.requests.clear()
    same()
    assert drive.transfers == [0, len(received)]


def test_download_notices_a_cut_that_the_http_library_overlooks(
    drive, same, content, tmp_path, monkeypatch
):
    """As urllib3 1 does."""
    iterate = requests.Response.iter_content

    def overlook(answer, size):
        with suppress(requests.RequestException):
            yield from iterate(answer, size)

    with monkeypatch.context() as patch:
        patch.setattr(requests.Response, "iter_content", overlook)
        drive.end = 5000
        assert f"of {len(content)} bytes came" in fails(tmp_path)
    assert content.startswith(part(tmp_path).read_bytes())
    drive.end = None
    same()


@pytest.mark.slow
def test_download_gives_up_on_a_silent_connection(drive, same, tmp_path, monkeypatch):
    monkeypatch.setattr(http, "TIMEOUT_S", 0.3)
    drive.end, drive.silent = 5000, True
    start = time.monotonic()
    assert "timed out" in fails(tmp_path)
    assert time.monotonic() - start < 5
    received = part(tmp_path).stat().st_size
    assert 0 < received <= 5000
    drive.end = None
    drive.requests.clear()
    same()
    assert drive.transfers == [0, received]


def test_download_reports_a_server_that_is_down(tmp_path, monkeypatch):
    monkeypatch.setattr(google_drive, "DRIVE_URL", "http://127.0.0.1:9/uc")
    assert "Connection refused" in fails(tmp_path)


def test_download_does_not_resume_another_version(drive, same, content, tmp_path):
    drive.content, drive.end = bytes(len(content)), 5000
    fails(tmp_path)
    drive.content, drive.end = content, None
    drive.requests.clear()
    same()
    assert drive.transfers == [0]


def test_download_starts_again_if_the_version_changes_between_requests(
    drive, same, content, tmp_path
):
    drive.end = 5000
    fails(tmp_path)
    drive.end = None
    drive.versions = [content, content[::-1]]
    drive.requests.clear()
    same()
    assert len(drive.transfers) == 3 and drive.transfers[2] == 0


@pytest.mark.parametrize("lacking", ["ranges", "validators"])
def test_download_starts_again_on_a_server_that_cannot_resume(drive, same, tmp_path, lacking):
    setattr(drive, lacking, False)
    drive.end = 5000
    fails(tmp_path)
    drive.end = None
    drive.requests.clear()
    same()
    assert any(drive.transfers) == (lacking == "ranges")


def test_download_reports_a_full_disk(drive, same, tmp_path):
    """A part file that links to /dev/full, which refuses every byte as a full disk does."""
    drive.end = 5000
    fails(tmp_path)
    drive.end = None
    target = part(tmp_path)
    target.unlink()
    target.symlink_to("/dev/full")
    assert "No space left on device" in fails(tmp_path)
    target.unlink()
    same()

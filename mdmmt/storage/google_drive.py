"""One public file from Google Drive, which asks to confirm a large download.

The download is that of `http`, and not of gdown, which as of 6.5.1 resumes any part file of an
earlier run, whatever version it is of, and needs four more packages.
"""

from __future__ import annotations

import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import requests

from . import http

DRIVE_URL = "https://drive.google.com/uc"
PAGE_SIZE = 1 << 20  # bytes read of an HTML page


def download(file_id: str, name: str, folder: Path) -> Path:
    """Download a file, or resume its download; see `http.download`."""
    return http.download(DRIVE_URL, name, folder, partial(_request, file_id))


def _request(file_id: str, session: requests.Session, url: str) -> requests.Response:
    """The answer that holds the file; follows the page that asks to confirm a large download."""
    parameters = {"id": file_id, "export": "download"}
    timeout = (http.REACH_S, http.TIMEOUT_S)
    for _ in range(2):
        answer = session.get(url, params=parameters, stream=True, timeout=timeout)
        if answer.ok and "attachment" in answer.headers.get("Content-Disposition", ""):
            return answer
        with answer:
            html = next(answer.iter_content(PAGE_SIZE), b"").decode("utf-8", errors="replace")
        page = _Page(html)
        if page.action is None:
            break
        url, parameters = urljoin(answer.url, page.action), page.inputs
    raise requests.RequestException(
        f"Google Drive sent a page instead of the file, status {answer.status_code}: {page.text}"
    )


class _Page(HTMLParser):
    """A page of Google Drive: its text, and the form that leads to the file, if there is one.

    Attributes:
        text: the visible text, the title first.
        action: the address of the form; None without a form.
        inputs: the hidden fields of the form.
    """

    FORM = "download-form"
    INVISIBLE = ("script", "style")
    MAX_TEXT = 300  # characters

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.inputs: dict[str, str] = {}
        self._words: list[str] = []
        self._is_visible = True
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self._words)).strip()[: self.MAX_TEXT]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form" and values.get("id") == self.FORM:
            self.action = values.get("action") or ""
        elif tag == "input" and self.action is not None and values.get("type") == "hidden":
            self.inputs[values.get("name") or ""] = values.get("value") or ""
        self._is_visible = tag not in self.INVISIBLE

    def handle_endtag(self, tag: str) -> None:
        self._is_visible = True

    def handle_data(self, data: str) -> None:
        if self._is_visible:
            self._words.append(data)

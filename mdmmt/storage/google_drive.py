"""One public file from Google Drive, downloaded in as many connections as it takes.

The download goes into a part file that is named after the server's validators and the size of the
file. A later run therefore resumes only a download of the very same version.

The client is `requests`, which Towhee brings, and not gdown, which as of 6.5.1 resumes any part
file of an earlier run, whatever version it is of, and needs four more packages.
"""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import requests
from tqdm import tqdm

from ..version import VERSION

DRIVE_URL = "https://drive.google.com/uc"
TIMEOUT_S = 30.0  # to connect, and between two blocks of an answer
BLOCK_SIZE = 1 << 16  # bytes
PAGE_SIZE = 1 << 20  # bytes read of an HTML page
VALIDATORS = ("ETag", "Last-Modified", "X-Goog-Hash")  # headers that differ between versions


def download(file_id: str, name: str, folder: Path) -> Path:
    """Download a file, or resume its download. A broken connection that brought bytes is renewed.

    Args:
        name: the file's name, such as 'a.pth', from which those of its part files are made.
        folder: where the part file lies; it must exist. Part files of other versions are deleted.

    Returns:
        The complete file, 'a.VERSION.pth' in the folder.

    Raises:
        OSError: the file cannot be fetched (`requests.RequestException`) or cannot be written.
    """
    with requests.Session() as session:
        # A range counts bytes of the file, so the transfer must not be compressed.
        session.headers.update({"User-Agent": f"mdmmt/{VERSION}", "Accept-Encoding": "identity"})
        while True:
            size_before = _size_on_disk(name, folder)
            try:
                return _transfer(session, file_id, name, folder)
            except requests.RequestException:
                if _size_on_disk(name, folder) <= size_before:
                    raise


def _transfer(session: requests.Session, file_id: str, name: str, folder: Path) -> Path:
    """Receive as much as one connection brings; return the part file when it is complete."""
    answer = _request(session, file_id)
    version = _version(answer)
    size = _total_size(answer)
    part = folder / f"{Path(name).stem}.{version or 'unknown'}{Path(name).suffix}"
    for other in _part_files(name, folder):
        if other != part:
            other.unlink()
    start = part.stat().st_size if version and part.exists() else 0
    if start and start == size:
        answer.close()
        return part
    if start:
        answer.close()
        headers = {"Range": f"bytes={start}-"}
        answer = session.get(answer.url, headers=headers, stream=True, timeout=TIMEOUT_S)
        if not _continues(answer, start, version):
            answer.close()
            part.unlink()
            return _transfer(session, file_id, name, folder)
    # `disable=None`: no bar unless stderr is a terminal.
    bar = tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=name, disable=None)
    with answer, bar, part.open("ab" if start else "wb") as file:
        for block in answer.iter_content(BLOCK_SIZE):
            file.write(block)
            bar.update(len(block))
    if size is not None and part.stat().st_size != size:
        raise requests.ConnectionError(f"{part.stat().st_size} of {size} bytes came")
    return part


def _request(session: requests.Session, file_id: str) -> requests.Response:
    """The answer that holds the file; follows the page that asks to confirm a large download."""
    parameters = {"id": file_id, "export": "download"}
    url = DRIVE_URL
    for _ in range(2):
        answer = session.get(url, params=parameters, stream=True, timeout=TIMEOUT_S)
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


def _total_size(answer: requests.Response) -> int | None:
    """Bytes of the whole file, if the server says so."""
    if answer.status_code == requests.codes.partial_content:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = answer.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _version(answer: requests.Response) -> str | None:
    """A name for this version of the file; None if the server sends no validators."""
    validators = [answer.headers.get(name, "") for name in VALIDATORS]
    size = _total_size(answer)
    if size is None or not any(validators):
        return None
    return hashlib.sha256("\n".join([*validators, str(size)]).encode()).hexdigest()[:16]


def _continues(answer: requests.Response, start: int, version: str | None) -> bool:
    """Whether an answer to a range request is the rest of the same version."""
    return (
        answer.status_code == requests.codes.partial_content
        and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        and _version(answer) == version
    )


def _part_files(name: str, folder: Path) -> list[Path]:
    return list(folder.glob(f"{Path(name).stem}.*{Path(name).suffix}"))


def _size_on_disk(name: str, folder: Path) -> int:
    return max((part.stat().st_size for part in _part_files(name, folder)), default=0)

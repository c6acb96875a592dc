"""The released weights, fetched once from where their authors published them: Google Drive.

The file is kept as a model folder in this user's cache. What comes down is a part file first, named
after what the server says of the file (its validators and size), so a later run goes on where an
earlier one ended only if it is the same file. Nothing is believed before both towers have taken
all of its tensors; then the model folder appears, whole, and the part file goes.

The client is `requests`, which Towhee brings, and not gdown: that one, as of 6.5.1, goes on with
whatever part file an earlier run left, and means four packages more.
The user's offline switch HF_HUB_OFFLINE holds here too.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import requests
from filelock import FileLock, Timeout
from huggingface_hub import constants
from tqdm import tqdm

from ..errors import WeightsError
from ..storage.paths import SAMPLE, WEIGHTS_FOLDER, WEIGHTS_VARIABLE
from ..towers.tokenizer import BERT_BASE_CASED_ID, has_tokenizer, load_tokenizer
from ..version import VERSION
from .folder import write_model_folder
from .layout import is_model_folder

FILE_ID = "1dVDouFZFEDrjqhvtjNFP633y0JjHf4Ya"
FILE_NAME = "mdmmt_3mod.pth"
FILE_PAGE = f"https://drive.google.com/file/d/{FILE_ID}/view"  # for a person with a browser
DRIVE_URL = "https://drive.google.com/uc"  # for a program
TIMEOUT_S = 30.0  # to connect, and between two pieces of an answer
BLOCK_SIZE = 1 << 16  # bytes
PAGE_SIZE = 1 << 20  # bytes read of a page that comes instead of the file
FOLDER_NAME = Path(FILE_NAME).stem
VALIDATORS = ("ETag", "Last-Modified", "X-Goog-Hash")  # headers by which a server names a version


def released_weights() -> Path:
    """The released model, as a model folder in this user's cache; downloaded if it is not there.

    The folder lacks the tokenizer where the Hugging Face hub cannot be reached (see
    `add_tokenizer`); the video tower needs none.

    Raises:
        WeightsError: it is not there and cannot be had; says why, and every other way.
    """
    try:
        cache = cache_folder()
        folder = cache / FOLDER_NAME
        if not is_model_folder(folder):  # a cache that holds it may be read-only
            _fill(cache, folder)
        return folder
    except (WeightsError, OSError) as error:  # requests' errors are OSErrors
        raise WeightsError(
            "no weights: give weight_path (a .pth or .safetensors file, a model folder, "
            f"'owner/name' on Hugging Face, or '{SAMPLE}' for the small sample model), or "
            f"set {WEIGHTS_VARIABLE} to one of these, or put the released {FILE_NAME} into "
            f"{WEIGHTS_FOLDER}; it was to be downloaded from Google Drive, which failed "
            f"({error}); `mdmmt download` goes on where that ended, and a browser gets the file "
            f"from {FILE_PAGE}"
        ) from error


def add_tokenizer(folder: Path) -> None:
    """Put the tokenizer of bert-base-cased into the released model's folder, if it lacks one.

    Raises:
        WeightsError: the tokenizer cannot be had here; the weights are there all the same.
    """
    if has_tokenizer(folder):
        return
    try:
        tokenizer = load_tokenizer(BERT_BASE_CASED_ID)
    except WeightsError as error:
        raise WeightsError(
            f"the weights are in {folder}, but what texts need is missing: {error}"
        ) from error
    with tempfile.TemporaryDirectory(prefix=f".{FOLDER_NAME}-", dir=folder.parent) as scratch:
        tokenizer.save_pretrained(scratch)
        for file in Path(scratch).iterdir():
            os.replace(file, folder / file.name)


def cache_folder() -> Path:
    """Where this user's system keeps caches of this package.

    Raises:
        WeightsError: platformdirs is not installed, which knows.
    """
    try:
        from platformdirs import user_cache_dir
    except ImportError as error:
        raise WeightsError(
            "it needs platformdirs: pip install platformdirs filelock requests"
        ) from error
    return Path(user_cache_dir("mdmmt", appauthor=False))


def _fill(cache: Path, folder: Path) -> None:
    """Download and convert, unless another process did so while this one waited for it."""
    if constants.HF_HUB_OFFLINE:
        raise WeightsError("HF_HUB_OFFLINE is set")
    cache.mkdir(parents=True, exist_ok=True)
    with _one_process(cache):
        if is_model_folder(folder):
            return
        # What is no model folder, and what a conversion left that was killed.
        for leftover in (folder, *cache.glob(f".{FOLDER_NAME}-*")):
            shutil.rmtree(leftover, ignore_errors=True)
        print(f"downloading the released weights from {FILE_PAGE} to {folder}", file=sys.stderr)
        file = _download(cache)
        try:
            tokenizer = load_tokenizer(BERT_BASE_CASED_ID)
        except WeightsError:  # the text tower will say so when it is asked for
            tokenizer = None
        try:
            write_model_folder(file, folder, tokenizer, origin=f"{FILE_NAME} ({FILE_PAGE})")
        except WeightsError as error:
            file.unlink()
            raise WeightsError(f"what came is not it, and was deleted: {error}") from error
        file.unlink()


@contextmanager
def _one_process(cache: Path) -> Iterator[None]:
    """Only one process at a time fills a cache; the others wait, and say so."""
    lock = FileLock(cache / f"{FOLDER_NAME}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("waiting for another process that downloads the weights", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(cache: Path) -> Path:
    """The whole file. A broken connection is taken up again for as long as each brings more."""
    with requests.Session() as session:
        # Offsets count the bytes of the file, so it must not be compressed on the way.
        session.headers.update({"User-Agent": f"mdmmt/{VERSION}", "Accept-Encoding": "identity"})
        while True:
            before = _size_on_disk(cache)
            try:
                return _transfer(session, cache)
            except requests.RequestException:
                if _size_on_disk(cache) <= before:
                    raise


def _transfer(session: requests.Session, cache: Path) -> Path:
    """One connection's worth of the file; returns when it is whole."""
    answer = _request(session)
    version = _version(answer)
    size = _total_size(answer)
    part = cache / f"{FOLDER_NAME}.{version or 'unknown'}.pth"
    for other in _parts(cache):
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
            return _transfer(session, cache)
    bar = tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=FILE_NAME)
    with answer, bar, part.open("ab" if start else "wb") as file:
        for block in answer.iter_content(BLOCK_SIZE):
            file.write(block)
            bar.update(len(block))
    if size is not None and part.stat().st_size != size:
        raise requests.ConnectionError(f"{part.stat().st_size} of {size} bytes came")
    return part


def _request(session: requests.Session) -> requests.Response:
    """The answer that holds the file, past the page that asks for a confirmation."""
    parameters = {"id": FILE_ID, "export": "download"}
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
        url, parameters = requests.compat.urljoin(answer.url, page.action), page.inputs
    raise requests.RequestException(
        f"Google Drive sent a page instead of the file, status {answer.status_code}: {page.text}"
    )


class _Page(HTMLParser):
    """A page of Google Drive: its words, and the form that leads on to the file, if there is one.

    Attributes:
        text: what a reader sees of it, the title first.
        action: where the form leads; None without a form.
        inputs: what the form sends along.
    """

    FORM = "download-form"
    UNSEEN = ("script", "style")
    SHOWN = 300  # characters

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.inputs: dict[str, str] = {}
        self._words: list[str] = []
        self._unseen = False
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self._words)).strip()[: self.SHOWN]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form" and values.get("id") == self.FORM:
            self.action = values.get("action") or ""
        elif tag == "input" and self.action is not None and values.get("type") == "hidden":
            self.inputs[values.get("name") or ""] = values.get("value") or ""
        self._unseen = tag in self.UNSEEN

    def handle_endtag(self, tag: str) -> None:
        self._unseen = False

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._words.append(data)


def _total_size(answer: requests.Response) -> int | None:
    """Bytes of the whole file, if the server says so."""
    if answer.status_code == requests.codes.partial_content:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = answer.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _version(answer: requests.Response) -> str | None:
    """A name for exactly this version of the file; None if the server does not tell versions."""
    told = [answer.headers.get(name, "") for name in VALIDATORS]
    size = _total_size(answer)
    if size is None or not any(told):
        return None
    return hashlib.sha256("\n".join([*told, str(size)]).encode()).hexdigest()[:16]


def _continues(answer: requests.Response, start: int, version: str | None) -> bool:
    """Whether an answer to a range request is the rest of the same file."""
    return (
        answer.status_code == requests.codes.partial_content
        and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        and _version(answer) == version
    )


def _parts(cache: Path) -> list[Path]:
    return list(cache.glob(f"{FOLDER_NAME}.*.pth"))


def _size_on_disk(cache: Path) -> int:
    return max((part.stat().st_size for part in _parts(cache)), default=0)

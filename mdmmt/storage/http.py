"""One public file over HTTPS, downloaded in as many connections as it takes.

The download goes into a part file that is named after the server's validators and the size of the
file. A later run therefore resumes only a download of the very same version.

The client is `requests`, which Towhee brings. Without encryption it talks to this machine alone.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock
import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy
from tqdm import tqdm

from ..errors import describe_error
from ..version import VERSION
from .files import in_units

REACH_S = 4.0  # for a server, or the proxy before it, to take a connection
TIMEOUT_S = 30.0  # for an answer, and between two blocks of it
BLOCK_SIZE = 1 << 16  # bytes
VALIDATORS = ("ETag", "Last-Modified", "X-Goog-Hash")  # headers that differ between versions
PORTS = {"http": 80, "https": 443}

logger = logging.getLogger(__name__)

Request = Callable[[requests.Session, str], requests.Response]


def open_url(session: requests.Session, url: str) -> requests.Response:
    """The answer to a request for a file; its content is not read yet.

    Raises:
        requests.RequestException: there is no answer, or it is not the file.
    """
    answer = session.get(url, stream=True, timeout=(REACH_S, TIMEOUT_S))
    if not answer.ok:
        answer.close()
        raise requests.HTTPError(f"the server answered {answer.status_code} {answer.reason}")
    return answer


def download(url: str, name: str, folder: Path, request: Request = open_url) -> Path:
    """Download a file, or resume its download. A broken connection that brought bytes is renewed.

    Args:
        name: the file's name, such as 'a.pth', from which those of its part files are made.
        folder: where the part file lies; it must exist. Part files of other versions are deleted.
        request: gets the answer that holds the file.

    Returns:
        The complete file, 'a.VERSION.pth' in the folder.

    Raises:
        OSError: the file cannot be fetched (`requests.RequestException`), or the disk has no room
            for it or fails; says why.
    """
    for reason in unreachable([url]).values():
        raise requests.ConnectionError(reason)
    with _session() as session:
        while True:
            size_before = size_on_disk(name, folder)
            try:
                return _transfer(session, url, request, name, folder)
            except requests.RequestException:
                if size_on_disk(name, folder) <= size_before:
                    raise


def unreachable(urls: Iterable[str]) -> dict[str, str]:
    """Find the servers that take no connection within `REACH_S`. All are tried at once.

    Where a proxy stands before a server, it is tried in the server's place. `requests` has a time
    limit for each address of a host alone, and none for the name server.

    Returns:
        URL -> why its server cannot be reached.
    """
    reasons = dict.fromkeys(urls, f"no connection within {REACH_S:g} seconds")

    def connect(url: str) -> None:
        try:
            socket.create_connection(_address(url), REACH_S).close()
        except OSError as error:
            reasons[url] = describe_error(error)
        else:
            reasons[url] = ""

    threads = [threading.Thread(target=connect, args=(url,), daemon=True) for url in reasons]
    for thread in threads:
        thread.start()
    end = time.monotonic() + REACH_S
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    found = dict(reasons)  # a late thread may still write
    return {
        url: f"{_address(url)[0]} cannot be reached: {reason}"
        for url, reason in found.items()
        if reason
    }


def _address(url: str) -> tuple[str, int]:
    """The host and port to connect to for a URL."""
    proxy = select_proxy(url, get_environ_proxies(url))
    parts = urlsplit(prepend_scheme_if_needed(proxy, "http") if proxy else url)
    return parts.hostname or "", parts.port or PORTS.get(parts.scheme, PORTS["https"])


def size_on_disk(name: str, folder: Path) -> int:
    """Bytes that have come of a file whose download is not complete."""
    return max((part.stat().st_size for part in _part_files(name, folder)), default=0)


def check_space(folder: Path, size: int, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        OSError: names the folder, the bytes that are needed, and those that are free.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(
            f"{what} needs {in_units(size)} in {folder}, where {in_units(free)} are free: "
            "free some space, or name a folder on another disk in MDMMT_HOME"
        )


@contextmanager
def one_process(lock_file: Path, what: str) -> Iterator[None]:
    """Let one process at a time download something; the others wait, and log that they do."""
    lock = filelock.FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        logger.info("waiting for another process that downloads %s", what)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _transfer(
    session: requests.Session, url: str, request: Request, name: str, folder: Path
) -> Path:
    """Receive as much as one connection brings; return the part file when it is complete."""
    answer = request(session, url)
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
        headers = {"Range": f"bytes={start}-", **_if_range(answer)}
        answer = session.get(answer.url, headers=headers, stream=True, timeout=(REACH_S, TIMEOUT_S))
        if not _continues(answer, start, version):
            answer.close()
            part.unlink()
            return _transfer(session, url, request, name, folder)
    # `disable=None`: no bar unless stderr is a terminal.
    bar = tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=name, disable=None)
    with answer, bar:
        if size is not None:
            check_space(folder, size - start, name)
        try:
            with part.open("ab" if start else "wb") as file:
                for block in answer.iter_content(BLOCK_SIZE):
                    file.write(block)
                    bar.update(len(block))
        except requests.RequestException:
            raise
        except OSError as error:
            raise OSError(_disk_failure(part, error)) from error
    if size is not None and part.stat().st_size != size:
        raise requests.ConnectionError(f"{part.stat().st_size} of {size} bytes came")
    return part


def _disk_failure(part: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno != errno.ENOSPC:
        return f"{part} could not be written: {reason}"
    return (
        f"{part} could not be written: {reason}; free some space, or name a folder on another "
        "disk in MDMMT_HOME"
    )


class _LoopbackAdapter(HTTPAdapter):
    """Sends requests without encryption to this machine alone."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        host = urlsplit(request.url or "").hostname
        if not isinstance(host, str) or not _is_loopback(host):
            raise requests.exceptions.InvalidSchema(f"{request.url} is not HTTPS")
        return super().send(request, *args, **kwargs)


def _session() -> requests.Session:
    session = requests.Session()
    session.mount("http://", _LoopbackAdapter())
    # A range counts bytes of the file, so the transfer must not be compressed.
    session.headers.update({"User-Agent": f"mdmmt/{VERSION}", "Accept-Encoding": "identity"})
    return session


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


def _if_range(answer: requests.Response) -> dict[str, str]:
    """The header that asks for the whole file if it is no longer this version."""
    etag = answer.headers.get("ETag", "")
    return {"If-Range": etag} if etag.startswith('"') else {}  # a weak one may not stand there


def _continues(answer: requests.Response, start: int, version: str | None) -> bool:
    """Whether an answer to a range request is the rest of the same version."""
    return (
        answer.status_code == requests.codes.partial_content
        and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        and _version(answer) == version
    )


def _part_files(name: str, folder: Path) -> list[Path]:
    return list(folder.glob(f"{Path(name).stem}.*{Path(name).suffix}"))

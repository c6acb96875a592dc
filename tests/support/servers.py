"""Loopback servers that stand for Google Drive and for the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

CONFIRMATION = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>
<style>.uc {{ color: red }}</style></head><body><p>mdmmt_3mod.pth is too large to scan.</p>
<form id="download-form" action="{action}" method="get">
<input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="a&amp;b">
</form></body></html>"""
QUOTA = """<html><head><title>Google Drive - Quota exceeded</title><script>var hidden;</script>
</head><body>
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p>Too many users have viewed or downloaded this file recently.</p></body></html>"""


def keep_silent(*_: object, **__: object) -> None:
    """`socket.getaddrinfo` with a name server that does not answer, as behind many firewalls."""
    time.sleep(2)
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Server:
    """A server on a free port of this machine; `requests` are those it got, in order."""

    def __init__(self) -> None:
        outer = self
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.closing = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append((self.command, self.path, self.headers))
                try:
                    outer.answer(self)
                except OSError:  # the client went away
                    self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # a client that was killed
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        raise NotImplementedError

    @staticmethod
    def send(
        request: BaseHTTPRequestHandler,
        body: bytes,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


class Transfers(Server):
    """A server of large files.

    Attributes:
        end: the byte of a file at which every transfer breaks; piece: bytes after which it does.
        silent: whether a broken transfer falls silent rather than ends.
        ranges: whether Range is honoured; validators: whether versions are told.
        gate: what every transfer waits for after its first 32 KiB, if it is closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.end: int | None = None
        self.piece: int | None = None
        self.silent = False
        self.ranges = True
        self.validators = True
        self.gate = threading.Event()
        self.gate.set()

    def send_file(
        self, request: BaseHTTPRequestHandler, content: bytes, headers: dict[str, str]
    ) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        start, status = 0, 200
        is_same = request.headers.get("If-Range", etag) == etag
        if self.ranges and "Range" in request.headers and is_same:
            start, status = int(request.headers["Range"][len("bytes=") : -1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if start >= len(content):
                self.send(request, b"", 416)
                return
        if self.validators:
            headers["ETag"] = etag
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content) - start)}.items():
            request.send_header(name, value)
        request.end_headers()
        end = min(len(content), self.end or len(content), start + (self.piece or len(content)))
        for offset in range(start, end, 1024):
            request.wfile.write(content[offset : min(offset + 1024, end)])
            if offset - start >= 32 * 1024:
                self.gate.wait(60)
        if end < len(content):
            request.close_connection = True
            if self.silent:
                self.closing.wait(20)


class Files(Transfers):
    """Files by their names, such as 'a.pth'; the others give 404."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.files = files

    @property
    def transfers(self) -> list[tuple[str, int]]:
        """The name of each file that was asked for, and where it should start."""
        return [
            (path[1:], int(headers.get("Range", "bytes=0-")[len("bytes=") : -1]))
            for _, path, headers in self.requests
        ]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        content = self.files.get(request.path[1:])
        if content is None:
            self.send(request, b"not here", 404)
        else:
            self.send_file(request, content, {})


class Drive(Transfers):
    """Google Drive with one file.

    Attributes:
        page: HTML that stands in the file's place; "confirm" for the page that leads to it.
        versions: what the next transfers are of, in order; then it is `content`.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content
        self.page: str | None = "confirm"
        self.page_status = 200
        self.versions: list[bytes] = []

    @property
    def transfers(self) -> list[int]:
        """Where each request for the file itself wanted it to start."""
        return [
            int(headers.get("Range", "bytes=0-")[len("bytes=") : -1])
            for _, path, headers in self.requests
            if urlsplit(path).path == "/download"
        ]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, query = urlsplit(request.path).path, parse_qs(urlsplit(request.path).query)
        if path == "/uc" and self.page == "confirm":
            html = CONFIRMATION.format(action=f"{self.url}/download", id=query["id"][0])
            self.send(request, html.encode(), headers={"Content-Type": "text/html; charset=utf-8"})
        elif self.page not in (None, "confirm"):
            headers = {"Content-Type": "text/html; charset=utf-8"}
            self.send(request, self.page.encode(), self.page_status, headers)
        elif path == "/uc":
            request.send_response(303)
            request.send_header("Location", f"/download?{urlsplit(request.path).query}")
            request.send_header("Content-Length", "0")
            request.end_headers()
        elif self.page and (query.get("confirm"), query.get("uuid")) != (["t"], ["a&b"]):
            self.send(request, b"not confirmed", 400)
        else:
            content = self.versions.pop(0) if self.versions else self.content
            headers = {"Content-Disposition": 'attachment; filename="mdmmt_3mod.pth"'}
            self.send_file(request, content, headers)


class Hub(Server):
    """The Hugging Face hub: repository -> file -> content; each has one commit, on `main`.

    Attributes:
        private: token that is asked for; gated: whether access is.
    """

    COMMIT = "0123456789abcdef0123456789abcdef01234567"
    REVISIONS = ("main", "v1", COMMIT)

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__()
        self.repositories = repositories
        self.private: str | None = None
        self.gated = False

    @property
    def fetched(self) -> set[str]:
        """Names of the files whose content was asked for."""
        return {
            path.split("/")[-1]
            for method, path, _ in self.requests
            if "/resolve/" in path and method == "GET"
        }

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = unquote(urlsplit(request.path).path).strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
        revision = rest[1] if len(rest) > 1 else "main"
        files = self.repositories.get(name)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if files is None or (self.private and token != self.private):
            self.send(request, b"{}", 404, {"X-Error-Code": "RepoNotFound"})
        elif self.gated:
            self.send(request, b"{}", 403, {"X-Error-Code": "GatedRepo"})
        elif revision not in self.REVISIONS:
            self.send(request, b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
        elif parts[0] != "api":
            self._send_file(request, files.get("/".join(rest[2:])))
        elif rest[:1] == ["tree"]:
            listed = [
                {"type": "file", "path": path, "size": len(content), "oid": _etag(content)}
                for path, content in files.items()
            ]
            self._send_json(request, listed)
        else:
            siblings = [{"rfilename": path} for path in files]
            self._send_json(request, {"id": name, "sha": self.COMMIT, "siblings": siblings})

    def _send_file(self, request: BaseHTTPRequestHandler, content: bytes | None) -> None:
        if content is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.COMMIT}
            self.send(request, b"", 404, headers)
        else:
            headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": self.COMMIT}
            self.send(request, content, headers=headers)

    def _send_json(self, request: BaseHTTPRequestHandler, value: object) -> None:
        self.send(request, json.dumps(value).encode(), headers={"Content-Type": "application/json"})


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()

"""The web server of the page. It answers for this library alone, and asks no other machine."""

from __future__ import annotations

import ipaddress
import mimetypes
import os
from pathlib import Path
from typing import Any

import gradio as gr
import safehttpx
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..search.page import SCRIPT, STYLE
from .library import CLIPS_URL, Library
from .limits import MAX_UPLOAD
from .page import make_page

STOP_S = 1  # what requests have left when the server stops
PAGE_STYLE = Path(__file__).with_name("page.css")
# Gradio's scripts make functions of texts. Nothing comes from another machine.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'; object-src 'none'"
)
FONT = ("system-ui", "sans-serif")


class Guard:
    """Refuses what is too large, and adds the headers of security to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        app = self.app
        if scope["type"] == "http":
            size = Headers(scope=scope).get("content-length", "")
            if size.isdecimal() and int(size) > MAX_UPLOAD:
                app = PlainTextResponse(f"expected at most {MAX_UPLOAD} bytes", 413)
        await app(scope, receive, send_with_headers)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_server(library: Library, host: str, uploads: Path) -> uvicorn.Server:
    """Make the server, whose `run` takes the socket that it listens on.

    Args:
        host: the address of the socket. If others than this machine can reach it, the page adds
            no files.
        uploads: a folder for the files that people upload.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    safehttpx.async_validate_url = _refuse_address
    local = is_loopback(host)
    middleware = [Middleware(Guard)]
    if local:  # or another site could have its name lead here, and read the library
        allowed = ["localhost", "127.0.0.1", "[::1]"]
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=allowed))
    clip = Route(f"/{CLIPS_URL}/{{key}}", lambda request: _clip(library, request))
    application = FastAPI(routes=[clip], middleware=middleware, openapi_url=None)
    gr.mount_gradio_app(
        application,
        make_page(library, can_add=local),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_UPLOAD,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=_theme(),
        css=STYLE.read_text(encoding="utf-8") + PAGE_STYLE.read_text(encoding="utf-8"),
        head=f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
    )
    config = uvicorn.Config(
        application, log_level="critical", timeout_graceful_shutdown=STOP_S, lifespan="on"
    )
    return uvicorn.Server(config)


def _theme() -> Any:
    """Gradio's theme with fonts of the system, and buttons whose text has enough contrast."""
    button = "button_primary_background_fill"
    theme = gr.themes.Default(primary_hue="blue", font=FONT, font_mono=("monospace",))
    colours = {button: "*primary_700", f"{button}_hover": "*primary_800"}
    return theme.set(**colours, **{f"{name}_dark": value for name, value in colours.items()})


def _clip(library: Library, request: Request) -> Response:
    """A file of the library, or the part of it that the browser asks for."""
    file = library.file_of(request.path_params["key"])
    if file is None:
        return PlainTextResponse("There is no such file in the library.", 404)
    kind = mimetypes.guess_type(file)[0] or ""
    plays = kind.startswith(("video/", "audio/"))
    return FileResponse(file, media_type=kind if plays else "application/octet-stream")


async def _refuse_address(host: str) -> str:
    """Stands in for the check of addresses that Gradio fetches when a request names them."""
    raise ValueError(f"{host} is not asked; expected a file of the library or an upload")

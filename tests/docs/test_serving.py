"""The service of docs/operator.md, as a user runs it: a server process, many clients at once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest
from pages import ROOT, SERVED, read_blocks

import mdmmt

CLIENTS = 50
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> str:
    """The address of the page's program under uvicorn."""
    folder = tmp_path_factory.mktemp("service")
    blocks = read_blocks(ROOT / "docs" / "operator.md")
    (code,) = (block.code for block in blocks if block.mark == SERVED)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    (folder / "serve.py").write_text(code)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "serve:app", f"--port={port}", "--app-dir=."]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + TIMEOUT_S
        while True:
            try:
                urlopen(f"{address}/openapi.json", timeout=5).close()
                break
            except URLError:
                alive = process.poll() is None and time.monotonic() < until
                assert alive, (folder / "log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.towhee
@pytest.mark.slow
def test_service_gives_each_of_fifty_clients_its_own_vector(server):
    texts = [f"a {colour} {shape}" for colour in ("red", "blue") for shape in ("ball", "star")]
    texts = [
        f"{texts[i % 4]} moves {('left', 'up')[i % 2]} {'and on ' * i}" for i in range(CLIENTS)
    ]

    def ask(text: str) -> list[float]:
        with urlopen(f"{server}/embedding?text={quote(text)}", timeout=TIMEOUT_S) as answer:
            return json.load(answer)

    with ThreadPoolExecutor(CLIENTS) as pool:
        vectors = list(pool.map(ask, texts))
    expected = mdmmt.load("sample", "cpu").encode_text(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.towhee
@pytest.mark.slow
@pytest.mark.parametrize("text", ["", " ", "\n\t", "\x1c", "\u2003\x85"])
def test_service_refuses_a_text_without_words(server, text):
    with pytest.raises(HTTPError) as refusal:
        urlopen(f"{server}/embedding?text={quote(text)}", timeout=TIMEOUT_S)
    assert refusal.value.code == 422

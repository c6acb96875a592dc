"""README's service, as a user runs it: a real server process, and many clients at once."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest

import mdmmt

ROOT = Path(__file__).parents[2]
MARK = "<!-- served by a test -->\n```python\n"
CLIENTS = 50
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> str:
    """The address of README's program under uvicorn."""
    folder = tmp_path_factory.mktemp("service")
    (code,) = re.findall(re.escape(MARK) + "(.*?)```", (ROOT / "README.md").read_text(), re.S)
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


def test_fifty_clients_at_once_each_get_their_own(server):
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

"""`mdmmt app`: which library it opens, and where it listens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from mdmmt.cli import main
from mdmmt.storage.paths import HOME_VARIABLE

pytestmark = pytest.mark.slow


@pytest.fixture
def served(monkeypatch, tmp_path):
    """What the command serves, instead of a server; the cache is empty, and two clips are drawn."""
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("mdmmt.app.library.CLIPS", 2)
    monkeypatch.setattr("mdmmt.sample.clips.CLIPS", 2)
    found = {}

    class Server:
        def __init__(self, library, host, uploads):
            self.library, self.host = library, host

        def run(self, sockets):
            found["address"] = sockets[0].getsockname()
            found["host"] = self.host
            found["files"] = [file.path for file in self.library.index.files()]

    monkeypatch.setattr("mdmmt.app.server.make_server", Server)
    return found


def test_app_without_a_library_draws_one(served, capsys, tmp_path):
    assert main(["app", "--port", "0"]) == 0
    assert served["address"][0] == "127.0.0.1"
    assert len(served["files"]) == 2
    assert all(path.startswith(str(tmp_path / "cache")) for path in served["files"])
    shown = capsys.readouterr()
    assert shown.out == f"the page is http://127.0.0.1:{served['address'][1]}/ until Ctrl-C\n"
    assert "without a password" not in shown.err
    assert main(["app", "--port", "0", "--weights", "my-model"]) == 1
    assert "name a library of these weights with --db" in capsys.readouterr().err


def test_app_opens_a_database_that_a_build_has_open(served, tmp_path):
    from mdmmt.search import Index

    database = tmp_path / "new.db"
    assert main(["app", "--port", "0", "--weights", "sample", "--db", str(database)]) == 0
    assert served["files"] == [] and not database.exists()  # it got no video
    assert main(["app", "--port", "0"]) == 0
    (drawn,) = (tmp_path / "cache").rglob("library.db")
    with Index.open(drawn):
        assert main(["app", "--port", "0"]) == 0
    assert len(served["files"]) == 2


def test_app_names_a_port_that_is_taken_and_warns_of_others(served, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["app", "--port", str(port)]) == 1
    assert f"port {port} of 127.0.0.1 cannot be opened" in capsys.readouterr().err
    assert main(["app", "--port", "0", "--host", "0.0.0.0"]) == 0
    assert "without a password" in capsys.readouterr().err


def test_app_answers_until_ctrl_c(served, tmp_path):
    """As a person starts it, in a process of its own."""
    assert main(["app", "--port", "0"]) == 0
    command = [sys.executable, "-m", "mdmmt", "app", "--port", "0", "--weights", "sample"]
    command += ["--db", next(str(path) for path in (tmp_path / "cache").rglob("library.db"))]
    environment = {**os.environ, "GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = process.stdout.readline()
        address = line.removeprefix("the page is ").partition(" ")[0]
        assert address.startswith("http://127.0.0.1:"), line
        assert b"gradio" in urlopen(address, timeout=30).read()
        build = ["index", "build", str(tmp_path / "cache"), "--weights=sample", *command[-2:]]
        assert main(build) == 0  # the page leaves the database free
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and "Traceback" not in errors

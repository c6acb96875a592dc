"""Names in any encoding, and names that would command a terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mdmmt.cli import main

NAMES = [  # Cyrillic, not UTF-8, beyond the basic plane
    *(b"\xd0\xb6.mp4", b"\xff\xfe.mp4", "\U0001f600.mp4".encode()),
]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_any_name_printable_lets_commands_name_any_file(encoding, tmp_path):
    """In a process of its own: streams get their encoding at the start."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LANG": "C"}
    names = [os.fsencode(tmp_path) + b"/" + name for name in NAMES]
    options = ["--out", str(tmp_path / "out"), "--experts", "frame"]
    command = [sys.executable, "-m", "mdmmt", "extract", *names, *options]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr and done.stderr.count(b"there is no file") == len(NAMES)
    assert b"0 of 3 videos" in done.stdout


def test_say_shows_escaped_names(tmp_path, capsys):
    name = tmp_path / "a\x1b]0;title\x07\n.mp4"
    assert main(["extract", str(name), f"--out={tmp_path}", "--experts=frame"]) == 1
    error = capsys.readouterr().err
    assert "\x1b" not in error and error.count("\n") == 1 and r"\x1b]0;title\x07\n.mp4" in error


def test_any_name_printable_gives_the_streams_their_error_handlers_back(tmp_path):
    before = sys.stdout.errors, sys.stderr.errors
    main(["info", str(tmp_path / "none")])
    assert (sys.stdout.errors, sys.stderr.errors) == before

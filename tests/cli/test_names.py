"""Names in any encoding, and names that would command a terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mdmmt.cli import main
from mdmmt.storage.text import escape_controls, format_table

NAMES = [  # Cyrillic, not UTF-8, beyond the basic plane
    *(b"\xd0\xb6.mp4", b"\xff\xfe.mp4", "\U0001f600.mp4".encode()),
]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_commands_name_any_file_in_any_encoding(encoding, tmp_path):
    """In a process of its own: streams get their encoding at the start."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LANG": "C"}
    names = [os.fsencode(tmp_path) + b"/" + name for name in NAMES]
    options = ["--out", str(tmp_path / "out"), "--experts", "frame"]
    command = [sys.executable, "-m", "mdmmt", "extract", *names, *options]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr and done.stderr.count(b"there is no file") == len(NAMES)
    assert b"0 of 3 videos" in done.stdout


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nb\rc", r"a\nb\rc"),
        ("a\x9bb", r"a\x9bb"),
        ("a\u2028b", r"a\u2028b"),
        ("a\u202egpj.b", r"a\u202egpj.b"),
        ("plain é \U0001f468\u200d\U0001f469", "plain é \U0001f468\u200d\U0001f469"),
    ],
)
def test_escape_controls_shows_controls_as_escapes(name, shown):
    assert escape_controls(name) == shown
    assert format_table([["x", "name"], ["1", name]]).splitlines()[1] == f"1  {shown}"


def test_messages_show_escaped_names(tmp_path, capsys):
    name = tmp_path / "a\x1b]0;title\x07\n.mp4"
    assert main(["extract", str(name), f"--out={tmp_path}", "--experts=frame"]) == 1
    error = capsys.readouterr().err
    assert "\x1b" not in error and error.count("\n") == 1 and r"\x1b]0;title\x07\n.mp4" in error


def test_main_gives_the_streams_their_error_handlers_back(tmp_path):
    before = sys.stdout.errors, sys.stderr.errors
    main(["info", str(tmp_path / "none")])
    assert (sys.stdout.errors, sys.stderr.errors) == before

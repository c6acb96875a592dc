"""Names in any encoding, and names that would command a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partialmethod

import pytest
from media import flat, write_video
from tqdm import tqdm

from mdmmt.cli import main
from mdmmt.cli.common import video_progress
from mdmmt.features import extract

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


@pytest.mark.parametrize(
    "command",
    [
        ["extract", "--experts=frame,sound", "--out={folder}/out"],
        ["embed", "--weights=sample", "--out={folder}/a.npy"],
        ["embed", "--weights=sample", "--segments=windows", "--out={folder}/a.jsonl"],
        ["index", "build", "--weights=sample", "--db={folder}/a.db"],
    ],
)
def test_video_progress_tells_files_and_speed_on_a_terminal_alone(
    command, videos, tmp_path, capsys, monkeypatch
):
    command = [part.format(folder=tmp_path) for part in command] + [str(videos), "--jobs=2"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(command) == 0
    shown = capsys.readouterr().err.split("\r")
    assert shown[1].startswith("0/3 videos") and shown[-1].startswith("3/3 videos: 100%")
    assert re.search(r"\| +[\d.]+ s of video/s, 00:00 left", shown[-1])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    main([*command[:-2], str(videos / "a.mkv"), *command[-1:]])
    assert "of video/s" not in capsys.readouterr().err


def test_video_progress_goes_by_the_seconds_that_are_read(tmp_path, capsys, monkeypatch):
    paths = [str(write_video(tmp_path / f"{n}.mkv", flat([1] * n))) for n in (10, 30, 60)]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def last() -> str:
        return capsys.readouterr().err.split("\r")[-1]

    monkeypatch.setattr("tqdm.tqdm.__init__", partialmethod(tqdm.__init__, mininterval=0))
    with video_progress([*paths, str(tmp_path / "none.mkv")]) as finish:
        extract(paths[1], ["frame"])
        assert last().startswith("0/4 videos:  30%")  # 3 seconds of 10
        finish(paths[1])
        finish(paths[0])  # it was left out
        assert last().startswith("2/4 videos:  33%")  # 3 seconds of 9
    with video_progress(paths, at_most_s=1.0) as finish:
        extract(paths[1], ["frame"])
        assert last().startswith("0/3 videos:  60%")  # 3 seconds, and 1 for each of the others

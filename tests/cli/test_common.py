"""Names in any encoding, and names that would command a terminal."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import warnings
from functools import partialmethod

import pytest
from media import flat, write_video
from tqdm import tqdm

from mdmmt.cli import main
from mdmmt.cli.common import video_progress
from mdmmt.features import extract
from mdmmt.storage.paths import WEIGHTS_VARIABLE

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
    assert done.stdout == b""


def test_say_shows_escaped_names(tmp_path, capsys):
    name = tmp_path / "a\x1b]0;title\x07\n.mp4"
    assert main(["extract", str(name), f"--out={tmp_path}", "--experts=frame"]) == 1
    error = capsys.readouterr().err
    assert "\x1b" not in error and error.count("\n") == 1 and r"\x1b]0;title\x07\n.mp4" in error


@pytest.mark.parametrize(
    "command",
    [
        "extract none-1 none-2 --out out",
        "embed none-1 none-2 --out a.npy",
        "index build none-1 none-2 --db a.db",
        "search --video none-1 --db a.db",
        "batch none-1 --out out",
    ],
)
def test_paths_that_are_not_there_are_named_before_weights(command, tmp_path, monkeypatch, capsys):
    if command.startswith("batch"):
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "weights.pth"))
    assert main(command.split()) == 1
    printed = capsys.readouterr()
    names = [word for word in command.split() if word.startswith("none")]
    lines = printed.err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        f"mdmmt: there is no file {name!r}" for name in names
    ]
    assert printed.out == "" and not list(tmp_path.iterdir())
    (tmp_path / "none-1").touch()
    assert main(command.split()) == 1
    named = "no database" if command.startswith("search") else WEIGHTS_VARIABLE
    assert named in capsys.readouterr().err


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


def test_quiet_shows_results_and_errors_alone(videos, tmp_path, capsys, monkeypatch):
    (videos / ".hidden.mkv").touch()  # which a line counts
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    command = ["extract", str(videos), "--experts=frame", f"--out={tmp_path / 'out'}", "-q"]
    assert main(command) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["extract", str(tmp_path / "none.mkv"), *command[1:]]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "none.mkv" in printed.err
    assert main([*command, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert "have their features" in printed.out and printed.err == ""  # that is the result


def test_quiet_hides_warnings(tmp_path, capsys, monkeypatch):
    def warn(*_: object) -> int:
        warnings.warn("a warning", stacklevel=1)
        return 0

    monkeypatch.setattr("mdmmt.cli.operator_folder._install_operator", warn)
    for option, shown in (("--quiet", ""), ("--verbose", "mdmmt: a warning\n")):
        assert main(["install-operator", option]) == 0
        assert capsys.readouterr().err == shown


def test_verbose_shows_each_step_and_where_an_error_arose(videos, tmp_path, capsys):
    paths = [str(videos / "a.mkv"), str(videos / "notes.txt")]
    command = ["embed", *paths, "--weights=sample", "--device=cpu", f"--out={tmp_path / 'a.npy'}"]
    assert main([*command, "--verbose"]) == 1
    error = capsys.readouterr().err
    assert "in precision exact on cpu" in error
    assert re.search(r"a\.mkv took \d+\.\d seconds", error) and "Traceback" in error
    assert all(line.startswith("mdmmt: ") for line in error.splitlines())
    assert main([*command[:2], str(tmp_path / "none"), *command[3:]]) == 1
    assert "took" not in capsys.readouterr().err
    assert main(["info", str(tmp_path / "none"), "--verbose"]) == 1
    assert "find_weights" in capsys.readouterr().err


def test_quiet_and_verbose_exclude_each_other(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["info", "--quiet", "--verbose"])
    assert "not allowed with" in capsys.readouterr().err


def test_messages_are_shown_once_though_the_root_logs(tmp_path, capsys):
    """Towhee gives the root logger a handler for stderr."""
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    try:
        assert main(["info", str(tmp_path / "none")]) == 1
        assert capsys.readouterr().err.count("which does not exist") == 1
        logging.getLogger("mdmmt").error("after the command")
        assert "after the command" in capsys.readouterr().err
    finally:
        root.removeHandler(handler)


@pytest.mark.parametrize("command", ["embed a.mkv --out a.npy", "index build a.mkv --db a.db"])
@pytest.mark.parametrize("option", ["--window", "--stride", "--time-limit"])
@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "x"])
def test_seconds_are_refused_before_the_work(command, option, text, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*command.split(), f"{option}={text}"])
    expected = f"argument {option}: {text!r}, expected a number of seconds above 0\n"
    assert capsys.readouterr().err.endswith(expected)

"""Messages in the words of the commands."""

from __future__ import annotations

import pytest

from mdmmt.cli import main
from mdmmt.cli.words import WORDS, in_words_of_commands
from mdmmt.sample import NOTICE


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("window_s is 0, expected 1", "--window is 0, expected 1"),
        ("window_s and stride_s are for it", "--window and --stride are for it"),
        ("weight_path is 'weight_path', which", "--weights is 'weight_path', which"),
        ("a/window_s.mp4: window_s is 0", "a/window_s.mp4: --window is 0"),
        ("'it\\'s window_s' and window_s", "'it\\'s window_s' and --window"),
        ("it is long; segments='windows' takes all", "it is long; --segments windows takes all"),
        ("k is 0", "-k is 0"),
        ("mask is 0, in block k isolated", "mask is 0, in block k isolated"),
        ("a.mp4: there is no file 'a.mp4', expected", "there is no file 'a.mp4', expected"),
        ("a.mp4: 'a.mp4' is no video (why)", "'a.mp4' is no video (why)"),
        ("a.mp4: there is no file 'b/a.mp4'", "a.mp4: there is no file 'b/a.mp4'"),
        ("list.csv, line 3: is empty", "list.csv, line 3: is empty"),
    ],
)
def test_in_words_of_commands(message: str, shown: str) -> None:
    assert in_words_of_commands(message, WORDS) == shown


PLACES = "; expected a weights file, a model folder, 'sample', or OWNER/NAME on Hugging Face"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("convert none.pth --out out", "IN is 'none.pth', which does not exist" + PLACES),
        ("info none", "PATH is 'none', which does not exist" + PLACES),
        (
            "embed --text a --weights none --out a.npy",
            "--weights is 'none', which does not exist" + PLACES,
        ),
        (
            "embed --text a --weights sample --device gpu --out a.npy",
            "--device is 'gpu', expected 'cpu', 'cuda', 'cuda:N' or 'mps'",
        ),
        (
            "extract none.mp4 --experts frame --out out",
            "there is no file 'none.mp4', expected a video file or a folder of videos",
        ),
        (
            "index build empty.mp4 --weights sample --window=2 --stride=3 --db a.db",
            "--stride is 3 and --window 2, which would leave holes between the windows; expected a "
            "stride of at most one window",
        ),
    ],
)
def test_commands_speak_of_their_options(command, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert main(command.split()) == 1
    told = capsys.readouterr().err.removeprefix(f"mdmmt: {NOTICE}\n")
    assert told == f"mdmmt: {message}\n"

"""The command `mdmmt`: errors that all sub-commands report alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mdmmt.cli import main
from mdmmt.sample import NOTICE


@pytest.mark.parametrize(
    "command",
    [
        ["extract", "none.mp4", "--experts=frame", "--out", "OUT"],
        ["index", "build", __file__, "--weights=sample", "--db", "OUT"],
        ["search", "red", "--weights=sample", "--db", "none.db", "--html", "OUT"],
        ["convert", "none.pth", "--out", "OUT"],
        ["export", "text", "--weights=none.pth", "--out", "OUT"],
        ["dumps", "read", "CLIP=none", "--out", "OUT"],
        ["dumps", "write", "none.safetensors", "--out", "OUT"],
        ["demo", "--out", "OUT"],
        ["hub-folder", "--out", "OUT"],
    ],
    ids=lambda command: "-".join(command[:2]),
)
def test_main_refuses_a_place_that_cannot_be_written_before_the_work(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "file").write_text("mine")
    for place, words in ((tmp_path / "file" / "out", "file"), (tmp_path / "out", "written into")):
        assert main([str(place) if part == "OUT" else part for part in command]) == 1
        error = capsys.readouterr().err.removeprefix(f"mdmmt: {NOTICE}\n")
        assert error.startswith("mdmmt: ") and error.count("\n") == 1 and "Errno" not in error
        assert str(tmp_path) in error and words in error and "none" not in error
        monkeypatch.setattr(os, "access", lambda *_: False)  # what it is to root says nothing
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


LIGHT = """
import contextlib, io, sys
from mdmmt.cli import main, make_parser

commands = [["--version"], ["--help"], *(["completion", shell] for shell in ("bash", "zsh"))]
commands += [[*name.split(), "--help"] for name, _ in make_parser().leaves()]
assert len(commands) > 15, commands
for command in commands:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
        main(command)
    assert shown.getvalue(), command
    heavy = {"torch", "towhee", "transformers", "av", "pymilvus"} & set(sys.modules)
    assert not heavy, (command, heavy)
"""


@pytest.mark.slow
def test_main_shows_help_and_version_without_torch_and_towhee() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)

"""Completion as bash does it, from the script alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mdmmt.cli import main

# What bash does for the last of the words.
COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); PATH=; _shtab_mdmmt
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash here")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sea"], {"search"}),
        (["index", ""], {"build", "delete"}),
        (["embed", "--prec"], {"--precision"}),
        (["embed", "--precision", ""], {"exact", "bfloat16", "int8", "auto"}),
        (["completion", "z"], {"zsh"}),
        (["extract", "one"], {"one.mp4"}),
        (["extract", "one.mp4", "--out", "fol"], {"folder"}),
    ],
)
def test_completion_completes_without_a_program(words, expected, tmp_path: Path, capsys) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "one.mp4").touch()
    (tmp_path / "folder").mkdir()
    command = [shutil.which("bash"), "-c", COMPLETE, "bash", script, "mdmmt", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert {*done.stdout.split()} >= expected and done.stderr == ""
    assert all(found.startswith(words[-1]) for found in done.stdout.split())


def test_completion_without_shtab_names_the_extra(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "zsh"]) == 1
    assert capsys.readouterr().err.endswith("not installed: pip install 'mdmmt[completion]'\n")

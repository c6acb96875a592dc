"""README and the pages of docs/ as tests read them: code blocks with their marks, and links."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from mdmmt.cli import main

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))

RUN, SERVED, NOT_RUN = "run by a test", "served by a test", "not run: "
RUN_APART = "run by a test in an environment of its own"
PRINTED = "printed by the block above"
HOME = "/home/me"  # on the pages, the folder in which the blocks run
DECIMAL = re.compile(r"-?\d+\.\d+")
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>.+?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)

# Prints the arguments of `mdmmt`, as the shell understands them, each ended by a NUL.
PRINT_ARGUMENTS = "mdmmt() { printf '%s\\0' \"$@\"; }\n"


class Block(NamedTuple):
    """A code block of a page."""

    page: Path
    line: int  # of its first line of code
    language: str
    code: str
    mark: str | None  # the comment above it

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """Read the code blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start("code")) + 1,
            found["language"],
            found["code"],
            found["mark"],
        )
        for found in BLOCK.finditer(text)
    ]


def run_blocks(page: Path, mark: str = RUN) -> dict[str, object]:
    """Run the blocks of a page that have this mark, in order and in the current folder.

    The Python blocks share their names, as the cells of a notebook do. A block that is marked as
    printed must show what the block above it prints.

    Returns:
        the names that the Python blocks have defined.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    for block, following in pairwise([*read_blocks(page), None]):
        if block.mark != mark:
            continue
        if following is None or following.mark != PRINTED:
            run_block(block, names)
            continue
        with contextlib.redirect_stdout(io.StringIO()) as output:
            run_block(block, names)
        printed = output.getvalue().replace(str(Path.cwd()), HOME)
        assert is_same_output(following.code, printed), f"{following.place}: not\n{printed}"
    return names


def run_block(block: Block, names: dict[str, object]) -> None:
    """Run a block of Python with these names, or a block of commands."""
    if block.language == "python":
        code = "\n" * (block.line - 1) + block.code  # for the line numbers of a traceback
        exec(compile(code, str(block.page), "exec"), names)
    else:
        run_commands(block)


def is_same_output(shown: str, printed: str) -> bool:
    """Whether both have the same words, and numbers that differ by 1 in the last digit at most.

    Another processor may round the last digit the other way.
    """
    if DECIMAL.sub("0.0", shown).split() != DECIMAL.sub("0.0", printed).split():
        return False
    pairs = zip(DECIMAL.findall(shown), DECIMAL.findall(printed), strict=True)
    return all(
        len(a.split(".")[1]) == len(b.split(".")[1])
        and abs(float(a) - float(b)) < 1.5 * 10.0 ** -len(a.split(".")[1])
        for a, b in pairs
    )


def run_commands(block: Block) -> None:
    """Run each line of a shell block: bash expands it, and `mdmmt` runs in this process."""
    for line in block.code.splitlines():
        if not shlex.split(line, comments=True):
            continue
        assert line.startswith("mdmmt "), f"{block.place}: only mdmmt's commands can be run here"
        shell = ["bash", "-e", "-c", PRINT_ARGUMENTS + line]
        printed = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
        status = main(printed.split("\0")[:-1])
        assert status == 0, f"{block.place}: {line}"


def read_anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub name them."""
    text = re.sub(BLOCK, "", page.read_text())
    headings = (heading.lower().replace("`", "") for heading in HEADING.findall(text))
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in headings}

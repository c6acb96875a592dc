"""README, as a user copies from it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from pages import LINK, README, ROOT, read_anchors, run_blocks

import mdmmt
from mdmmt.operator_folder import README as HUB_README

MAX_LINES = 200
# The outline of an operator's page on Towhee's hub.
HUB_OUTLINE = ["Description", "Code Example", "Factory Constructor", "Interface"]


@pytest.mark.towhee
@pytest.mark.slow
def test_readme_code_runs(demo_clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_blocks(README)
    match = names["match"]
    assert match.score.shape == (3, 40) and match.by_expert.shape == (3, 40, 3)
    assert capsys.readouterr().out.count("shape=(384,)") == 3  # text, features, a video file


@pytest.mark.towhee
@pytest.mark.slow
def test_hub_readme_code_runs(demo_clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_blocks(HUB_README)
    assert capsys.readouterr().out.count("shape=(384,)") == 3  # text, features, a video file


def test_hub_readme_stands_alone_and_tells_what_readme_tells() -> None:
    text, readme = HUB_README.read_text(), README.read_text()
    assert re.findall(r"^## (.+)$", text, re.M) == HUB_OUTLINE
    assert all(link.startswith("https://") for link in LINK.findall(text))
    rows, wanted = rows_of_arguments(text), rows_of_arguments(readme)
    assert rows.pop("`weight_path`") and wanted.pop("`weight_path`")  # README links to its section
    assert rows == wanted


def rows_of_arguments(text: str) -> dict[str, str]:
    """The rows of the table of arguments, by their first cell."""
    constructor = text.split("## Factory Constructor")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| (`.+?) \| (.+) \|$", constructor, re.M))


def test_readme_is_short_and_has_the_outline_of_the_hub() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= MAX_LINES
    headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert headings[: len(HUB_OUTLINE)] == HUB_OUTLINE


def test_readme_lists_every_argument_of_the_operator() -> None:
    constructor = README.read_text().split("## Factory Constructor")[1].split("\n## ")[0]
    for name in inspect.signature(mdmmt.MDMMT).parameters:
        assert re.search(rf"^\|.*`{name}`.*\|", constructor, re.M), name


def test_readme_links_to_what_exists() -> None:
    for link in LINK.findall(README.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        page = ROOT / path if path else README
        assert page.exists(), link
        assert not anchor or anchor in read_anchors(page), link


def test_readme_gives_the_quick_tests() -> None:
    assert "\nmake test-quick " in README.read_text()
    assert "\ntest-quick:" in (ROOT / "Makefile").read_text()

"""The pages of docs/, as a reader copies from them, and what they must list."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from pages import (
    NOT_RUN,
    PAGES,
    PRINTED,
    README,
    ROOT,
    RUN,
    RUN_APART,
    SERVED,
    is_same_output,
    read_blocks,
    run_blocks,
)

import mdmmt
from mdmmt.cli import make_parser
from mdmmt.storage.paths import SAMPLE_FOLDER

DOCS = ROOT / "docs"
RUN_PAGES = [page for page in PAGES if any(block.mark == RUN for block in read_blocks(page))]
PUBLIC = {
    "mdmmt",
    "mdmmt.evaluation",
    "mdmmt.experts",
    "mdmmt.features",
    "mdmmt.search",
    "mdmmt.training",
}
# The only reasons why a block may not be run.
REASONS = {
    "makes an environment",
    "needs Towhee 0.9",
    "needs a Milvus server",
    "needs a cluster",
    "needs the released weights",
    "runs all tests",
    "starts a server",
    "takes about 20 minutes",
    "the tests of the demo run it",
    "uploads to Hugging Face",
}


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in read_blocks(page):
        if block.language not in ("python", "sh"):
            continue
        assert block.mark is not None, f"{block.place} has no mark"
        is_run = block.mark in (RUN, RUN_APART, SERVED)
        assert is_run or block.mark.removeprefix(NOT_RUN) in REASONS, f"{block.place}: {block.mark}"


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_what_a_block_prints_follows_one_that_is_run(page: Path) -> None:
    for block, following in pairwise([None, *read_blocks(page)]):
        if following.mark == PRINTED:
            assert block is not None and block.mark in (RUN, RUN_APART), following.place


def test_is_same_output_allows_another_last_digit_alone() -> None:
    shown = "1  0.69  a red ball.mp4\n"
    for same in (shown, "1 0.69 a red ball.mp4", "1  0.70  a red ball.mp4\n"):
        assert is_same_output(shown, same)
    others = ("1  0.71  a red ball.mp4", "2  0.69  a red ball.mp4", "1  0.69  a red box.mp4")
    for other in (*others, "1  -0.69  a red ball.mp4", "1  0.692  a red ball.mp4", "", 2 * shown):
        assert not is_same_output(shown, other)


def test_a_page_that_prints_something_else_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    code = f"<!-- {RUN} -->\n```python\nprint(0.25)\n```\n\n<!-- {PRINTED} -->\n```\n{{}}\n```\n"
    page.write_text(code.format("0.25"))
    run_blocks(page)
    page.write_text(code.format("0.75"))
    with pytest.raises(AssertionError, match=r"page\.md:8: not"):
        run_blocks(page)


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_blocks_import_public_names_alone(page: Path) -> None:
    for block in read_blocks(page):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.Import):
                modules = {alias.name for alias in node.names}
                assert not {name for name in modules if name.startswith("mdmmt.")} - PUBLIC
            elif isinstance(node, ast.ImportFrom) and node.module.startswith("mdmmt"):
                assert node.module in PUBLIC, block.place
                public = importlib.import_module(node.module).__all__
                assert {alias.name for alias in node.names} <= set(public), block.place


@pytest.mark.towhee
@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.name)
def test_code_of_the_page_runs(page: Path, demo_clips: Path) -> None:
    run_blocks(page)


def test_operator_page_lists_every_argument() -> None:
    constructor = (DOCS / "operator.md").read_text().split("## Factory constructor")[1]
    for name in inspect.signature(mdmmt.MDMMT).parameters:
        assert re.search(rf"^\|.*`{name}`.*\|", constructor, re.M), name


def test_cli_page_lists_every_command_and_option() -> None:
    page = (DOCS / "cli.md").read_text()
    for name, command in make_parser().leaves():
        assert f"mdmmt {name}" in page, name
        for action in command._actions:
            for option in action.option_strings:
                if option not in ("-h", "--help"):
                    assert f"`{option}" in page, f"{name} {option}"


def test_sample_model_page_gives_the_scores_of_the_report() -> None:
    page = (DOCS / "sample-model.md").read_text()
    report = json.loads((SAMPLE_FOLDER / "report.json").read_text())
    names = ("R@1", "first hits right", "queries below", "others below")
    for result in report["results"]:
        seen, unseen = result["seen pairs"], result["unseen pairs"]
        cells = [f"{seen[name]} / {unseen[name]}" for name in names]
        assert f"| {' | '.join([str(result['seed']), *cells])} |" in page


def test_architecture_page_gives_a_line_to_every_module() -> None:
    page = (DOCS / "architecture.md").read_text()
    tree = re.search(r"^```\n(mdmmt/\n.*?)^```$", page, re.M | re.S)[1]
    listed, folders = set(), ["mdmmt"]
    for line in tree.splitlines()[1:]:
        depth = (len(line) - len(line.lstrip())) // 2
        name, description = line.split(maxsplit=1)
        assert description, line
        folders[depth:] = [name.rstrip("/")]
        if not name.endswith("/"):
            listed.add("/".join(folders))
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mdmmt").rglob("*.py")}
    modules = {name for name in modules if not name.endswith("/__init__.py")}
    assert {name for name in listed if name.endswith(".py")} == modules

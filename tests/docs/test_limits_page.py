"""docs/limits.md lists every bound that refuses input, with its value and its message."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator

import pytest
from pages import ROOT

BOUND = re.compile(r"(MAX|MIN)_|.*_LIMIT(_|$)")  # the names of bounds
# Constants of such names that refuse no input.
NO_BOUNDS = {
    "mdmmt.batch.estimate.MAX_HEADERS",  # of headers that are read for an estimate
    "mdmmt.cli.evaluation.MAX_NAMED",  # of messages
    "mdmmt.evaluation.runs.MAX_NAMED",
    "mdmmt.training.data.MAX_NAMED",
    "mdmmt.training.loop.MAX_NAMED",
    "mdmmt.storage.checkpoint.MAX_NAMES",
    "mdmmt.storage.pickles.MAX_SKIPPED",
    "mdmmt.towers.tokenizer.MAX_REASON",
    "mdmmt.weights.onnx.MIN_TORCH",  # of a package
    "mdmmt.batch.outcome.MAX_WAITING",
    "mdmmt.cli.common.MAX_USUAL_JOBS",
    "mdmmt.experts.motion.FLOW_LIMIT_PX",  # of methods
    "mdmmt.fast.attention.MAX_TOKENS",
    "mdmmt.fast.attention.MIN_SEQUENCES",
    "mdmmt.fast.batching.MAX_IMBALANCE",
    "mdmmt.fast.batching.MAX_TOKENS",
    "mdmmt.fast.batching.MAX_TOKENS_ON_CUDA",
    "mdmmt.media.audio.MAX_DRIFT_S",
    "mdmmt.media.clock.MAX_JUMP_AHEAD_S",
    "mdmmt.media.clock.MAX_JUMP_BACK_S",
    "mdmmt.sample.train.MIN_DEVIATION",
    "mdmmt.search.index.MAX_LOG_BYTES",
    "mdmmt.search.index.MAX_LOG_ROWS",
    "mdmmt.search.milvus.MIN_INDEXED_ROWS",
    "mdmmt.storage.facts.MIN_AGE_S",
}
SAME = "The same."  # as in the row above
SOURCES = sorted((ROOT / "mdmmt").rglob("*.py"))
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in (ROOT / "docs" / "limits.md").read_text().splitlines()
    if line.startswith("| `")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}


def names_of_bounds() -> Iterator[str]:
    """The full names of the constants of modules that are named as bounds are."""
    for source in SOURCES:
        module = ".".join(source.relative_to(ROOT).with_suffix("").parts)
        for statement in ast.parse(source.read_text()).body:
            if isinstance(statement, ast.Assign | ast.AnnAssign):
                for node in ast.walk(statement):
                    is_set = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
                    if is_set and BOUND.match(node.id):
                        yield f"{module}.{node.id}"


def texts() -> Iterator[str]:
    """The texts of the package, with … in the places of values."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_limits_page_lists_every_bound():
    assert set(ROWS) == set(names_of_bounds()) - NO_BOUNDS
    assert set(names_of_bounds()) >= NO_BOUNDS


@pytest.mark.parametrize("name", ROWS)
def test_limits_page_tells_the_value(name):
    module, _, constant = name.rpartition(".")
    value = getattr(importlib.import_module(module), constant)
    shown = f"{value:,}" if value == int(value) < 1e9 else f"{value:g}"
    assert re.search(
        rf"(?<![\d,.]){re.escape(shown.removesuffix('.0'))}(?![\d,.]*\d)", ROWS[name][0]
    )


@pytest.mark.parametrize("name", ROWS)
def test_limits_page_tells_the_message(name):
    message = ROWS[name][-1]
    assert message == SAME or any(message.strip("`") in text for text in texts())

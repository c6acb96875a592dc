"""The notebooks of docs/notebooks: they show what they showed when they were stored."""

from __future__ import annotations

import base64
import io
import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebooks import FOLDER, NOTEBOOKS, check_same, outputs_of, run
from pages import LINK
from PIL import Image

HOME_PAGE = FOLDER.parent / "index.md"
MAX_SIZE = 150_000  # bytes of a notebook
MACHINE_PATH = re.compile(
    r"(?<![\w.<:/])/(?:home|root|tmp|usr|var|opt|work|Users|private)/|[A-Z]:\\\\"
)
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.towhee
@pytest.mark.slow
@by_name
def test_notebook_shows_what_is_stored(path: Path) -> None:
    check_same(nbformat.read(path, as_version=4), run(path))


@by_name
def test_stored_notebook_was_run_in_order_and_is_small(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds and any(one.text for one in outputs_of(notebook))
    assert path.stat().st_size <= MAX_SIZE


@by_name
def test_stored_notebook_has_no_path_of_a_machine(path: Path) -> None:
    text = path.read_text()
    assert not MACHINE_PATH.search(text)
    assert str(Path.home()) not in text and tempfile.gettempdir() not in text


@by_name
def test_links_of_the_notebook_lead_to_pages(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for link in LINK.findall(cell.source):
                assert (FOLDER / link).is_file(), link


def test_home_page_lists_every_notebook() -> None:
    listed = re.findall(r"^\| \[\w+\]\(notebooks/(\w+)\.ipynb\) \|", HOME_PAGE.read_text(), re.M)
    assert sorted(listed) == [path.stem for path in NOTEBOOKS]


def notebook_of(text: str, picture: Image.Image | None = None) -> NotebookNode:
    """A notebook of one cell, which shows a text and a picture."""
    outputs = [new_output("stream", text=text)]
    if picture is not None:
        png = io.BytesIO()
        picture.save(png, "PNG")
        data = {"image/png": base64.b64encode(png.getvalue()).decode()}
        outputs.append(new_output("display_data", data))
    return new_notebook(cells=[new_code_cell("1", id="a", outputs=outputs)])


@pytest.mark.parametrize(
    ("stored", "now"),
    [
        ("score 0.5, 3 clips", "score  0.5004, 3 clips"),
        ("[np.float32(0.25), np.float32(-1e-05)]", "[0.2501, -1.1e-05]"),
        ("rank   score\n----  ------\n   1   0.50", "rank  score\n----  -----\n   1  0.501"),
    ],
)
def test_same_texts(stored: str, now: str) -> None:
    check_same(notebook_of(stored), notebook_of(now))


@pytest.mark.parametrize(
    ("stored", "now"),
    [
        ("score 0.5", "score 0.51"),
        ("shape (384,)", "shape (385,)"),
        ("a star", "a circle"),
        ("0.5 0.6", "0.5"),
        ("0.5", "-0.5"),
    ],
)
def test_other_texts(stored: str, now: str) -> None:
    with pytest.raises(AssertionError, match="code cell 1; `make notebooks`"):
        check_same(notebook_of(stored), notebook_of(now))


def test_pictures_are_compared() -> None:
    red, blue = (Image.new("RGB", (60, 30), colour) for colour in ("red", "blue"))
    check_same(notebook_of("", red), notebook_of("", red))
    for other in (blue, red.resize((30, 60)), None):
        with pytest.raises(AssertionError, match="code cell 1"):
            check_same(notebook_of("", red), notebook_of("", other))


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", ["import socket; socket.create_connection(('192.0.2.1', 80), 1)", "1 / 0"]
)
def test_notebook_that_needs_the_network_or_fails_is_an_error(code: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(code, id="a")]), path)
    with pytest.raises(CellExecutionError, match=r"PermissionError|ZeroDivisionError"):
        run(path)

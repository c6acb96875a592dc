"""The notebooks of docs/notebooks: runs them, stores them, and compares what two runs show.

    python -m notebooks             # run all and store what they show
    python -m notebooks search      # run and store docs/notebooks/search.ipynb

A notebook runs in a temporary folder, in a fresh kernel that reaches no network.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy as np
from fresh import ROOT
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TIMEOUT_S = 120  # of a cell
# The kernel runs it before the first cell. The message that it hides holds a path of this machine.
STARTUP = """
import sys, warnings
from fresh import Guard
sys.addaudithook(Guard(pip=False))
warnings.filterwarnings("ignore", "IProgress not found")
"""

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*(?:e[-+]?\d+)?|e[-+]?\d+)(?!\w)")
WRAPPED = re.compile(r"np\.float\d+\((.*?)\)")  # as NumPy 2 prints a number, and NumPy 1 does not
SPACE = re.compile(r"\s+|-{3,}|={3,}")  # tables are as wide as their numbers
TOLERANCE = 2e-3  # of printed numbers; another processor differs in the last bits
SMALL = (24, 12)  # pixels of the pictures that are compared, so that fonts do not matter
PICTURE_TOLERANCE = 12  # of 255, on average


class Shown(NamedTuple):
    """What a cell shows."""

    text: str  # without its numbers
    numbers: list[float]  # those with a point or an exponent
    pictures: list[Image.Image]


def run(path: Path) -> NotebookNode:
    """Run a notebook; an error in a cell is raised. The file stays as it is."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.clear()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
    }
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        startup = Path(home) / "profile_default" / "startup" / "guard.py"
        startup.parent.mkdir(parents=True)
        startup.write_text(STARTUP)
        env = os.environ | {
            "IPYTHONDIR": home,
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(Path(__file__).parent),
            # As in an active environment, where a cell finds the command `mdmmt`.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=env)
    notebook.metadata.pop("language_info", None)  # the version of Python
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/jpeg" in output.get("data", {}):
                output.data.pop("image/png", None)  # Pillow gives both, and this one is larger
    return notebook


def outputs_of(notebook: NotebookNode) -> Iterator[Shown]:
    """What each cell of code shows."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        texts, pictures = [], []
        for output in cell.outputs:
            data = output.get("data", {})
            for kind in ("image/png", "image/jpeg"):
                if kind in data:
                    pictures.append(Image.open(io.BytesIO(base64.b64decode(data[kind]))))
            texts.append(output.get("text") or data.get("text/html") or data.get("text/plain", ""))
        text = WRAPPED.sub(r"\1", SPACE.sub(" ", "\n".join(texts)))
        numbers = [float(number) for number in NUMBER.findall(text)]
        yield Shown(SPACE.sub(" ", NUMBER.sub("#", text)), numbers, pictures)


def check_same(stored: NotebookNode, now: NotebookNode) -> None:
    """Assert that two runs of a notebook show the same.

    Texts are equal, numbers to within `TOLERANCE`, and small copies of the pictures nearly.
    """
    sources = [[cell.source for cell in notebook.cells] for notebook in (stored, now)]
    assert sources[0] == sources[1]
    for number, (old, new) in enumerate(
        zip(outputs_of(stored), outputs_of(now), strict=True), start=1
    ):
        where = f"code cell {number}; `make notebooks` stores what it shows now"
        assert old.text == new.text, where
        np.testing.assert_allclose(new.numbers, old.numbers, rtol=0, atol=TOLERANCE, err_msg=where)
        assert len(old.pictures) == len(new.pictures), where
        for pictures in zip(old.pictures, new.pictures, strict=True):
            assert pictures[0].size == pictures[1].size, where
            small = [np.asarray(one.convert("RGB").resize(SMALL), float) for one in pictures]
            assert np.abs(small[0] - small[1]).mean() < PICTURE_TOLERANCE, where


def main(names: list[str]) -> None:
    """Run notebooks, all or those with these names, and store what they show."""
    for path in [FOLDER / f"{name}.ipynb" for name in names] or NOTEBOOKS:
        nbformat.write(run(path), path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])

"""The types of the package, as the type checkers of a client see them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from fresh import ROOT

from mdmmt.config import PRECISIONS
from mdmmt.model import Precision

# A line that ends in `# wrong` holds a mistake that a type checker must see, and no other line may
# give an error.
CLIENT = """
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mdmmt
from mdmmt.features import VideoFeatures, extract
from mdmmt.search import Hit, Index, index_files

model: mdmmt.Model = mdmmt.load("sample", device="cpu", precision="int8")
text: NDArray[np.float32] = model.encode_text("a red ball")
texts = model.encode_text(("a", "b"), batch_size=8, show_progress=True)
generated = model.encode_text(line.strip() for line in Path("texts.txt").open())
columns = model.encode_text(np.array(["a", "b"]))
videos = model.encode_video([Path("a.mp4"), Path("b.mp4")], start_s=1.0)
folder = model.encode_video(sorted(Path("clips").iterdir()))
match = model.similarity(texts, videos)
best: int = int(match.score.argmax())
width: int = model.dim
longest: float = model.max_seconds
features: VideoFeatures = extract("a.mp4", ["frame"])
of_features = model.encode_video(features)
of_dict = model.encode_video(model.extract("a.mp4"))
segments = model.encode_segments("a.mp4", [(0.0, 1.5)])
windows = model.encode_segments("a.mp4", segments="windows", window_s=2.0)
operator = mdmmt.mdmmt(modality="video", weight_path="sample", on_error="none")
vector = operator("a.mp4")
with Index.open("library.db", model) as index:
    for outcome in index_files(index, model, ["a.mp4"]):
        print(outcome.name, outcome.error)
    for hit in index.search(text, k=3):
        if isinstance(hit, Hit):
            print(hit.path, hit.score + 1.0)

mdmmt.lod("sample")  # wrong
mdmmt.load("sample", precison="int8")  # wrong
mdmmt.load("sample", precision="int9")  # wrong
mdmmt.load(3)  # wrong
model.encode_txt("a")  # wrong
model.encode_text(7)  # wrong
model.encode_text("a", batchsize=3)  # wrong
model.encode_text("a", "b")  # wrong
text.shap  # wrong
match.scores  # wrong
segments.spans  # wrong
model.encode_segments("a.mp4", segments="window")  # wrong
model.dims  # wrong
mdmmt.mdmmt(modality="audio")  # wrong
mdmmt.mdmmt(modality="text", weights="sample")  # wrong
operator.modell  # wrong
Index.open("library.db").serch(text)  # wrong
Index.open("library.db").search(text, n=3)  # wrong
Hit("a", "b", 0.0, 1.0, 1.0, {}).start  # wrong
"""
WRONG = {n for n, line in enumerate(CLIENT.splitlines(), 1) if line.endswith("# wrong")}


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """The script alone in a folder that says nothing about type checkers."""
    (tmp_path / "client.py").write_text(CLIENT)
    return tmp_path / "client.py"


@pytest.mark.slow
def test_mypy_sees_the_mistakes_of_a_client(client: Path, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    # What mypy knows of torch and of other packages is kept for the next run, which is then quick.
    kept = pytestconfig.cache.mkdir("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={kept}", "--output=json"]
    command.append(client.name)
    environment = {"MYPYPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        command, cwd=client.parent, env=environment, capture_output=True, text=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    of_client = [one for one in found if one["file"] == client.name]
    errors = {one["line"] for one in of_client if one["severity"] == "error"}
    assert errors == WRONG, (of_client, done.stderr)


@pytest.mark.slow
def test_pyright_sees_the_mistakes_of_a_client(client: Path) -> None:
    """Basedpyright holds all of pyright, and fetches nothing when it starts."""
    pytest.importorskip("basedpyright", reason="the extra `test` is not installed")
    settings = {"typeCheckingMode": "standard", "extraPaths": [str(ROOT)]}
    (client.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=client.parent, capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}
    assert errors == WRONG, done.stdout


def test_precision_names_those_of_the_towers() -> None:
    assert get_args(Precision) == PRECISIONS

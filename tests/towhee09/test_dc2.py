"""The published spelling, `from towhee.dc2 import …`, in Towhee 0.9, which is the last to have it.

Run by `make test` in an environment of its own (see the Makefile), since the pins of Towhee 0.9
and those of the other tests exclude each other. Each way runs in a fresh process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# As published, but for the device: `device='cuda:0'` there.
PUBLISHED = """
p = (
    pipe.input('text')
    .map('text', 'vec', ops.video_text_embedding.mdmmt(modality='text', device='cpu'))
    .output('text', 'vec')
)
DataCollection(p('Hello world.')).show()
vectors = [p('Hello world.').get()[1]]

p = (
    pipe.input('video_input_dict')
    .map('video_input_dict', 'vec', ops.video_text_embedding.mdmmt(modality='video', device='cpu'))
    .output('video_input_dict', 'vec')
)
DataCollection(p(video_input_dict)).show()
vectors.append(p(video_input_dict).get()[1])
"""
BEFORE = """
import json, os, pathlib, sys
import numpy as np
import towhee
from towhee.dc2 import pipe, ops, DataCollection

experts = json.loads(pathlib.Path(os.environ['MDMMT_WEIGHTS'], 'config.json').read_text())
experts = {e['name']: e['dim'] for e in experts['video']['experts']}
video_input_dict = {
    'features': {name: np.random.rand(30, dim) for name, dim in experts.items()},
    'features_t': {name: np.arange(30) + 2.5 for name in experts},
    'features_ind': {name: np.ones(30) for name in experts},
}
"""
AFTER = """
for vector in vectors:
    assert vector.shape == (384,) and vector.dtype == np.float32, vector
"""
NOT_INSTALLED = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mdmmt':
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
"""


def run(home: Path, script: str) -> None:
    """Run a script in a fresh process with its own home and without a network."""
    env = os.environ | {
        "HOME": str(home),
        "TOWHEE_HOME": str(home / ".towhee"),
        "MDMMT_WEIGHTS": str(ROOT / "mdmmt" / "sample" / "model"),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("HTML object") == 2  # what `show` prints outside of a notebook


def test_this_is_towhee_0_9():
    from importlib.metadata import version

    assert version("towhee").startswith("0.9.")


def test_by_registry(tmp_path):
    run(tmp_path, BEFORE + "import mdmmt\n" + PUBLISHED + AFTER)


@pytest.mark.parametrize("way", ["clone", "install-operator"])
def test_by_folder(tmp_path, way):
    folder = tmp_path / ".towhee" / "operators" / "video-text-embedding" / "mdmmt"
    if way == "clone":
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "mdmmt", folder / "main" / "mdmmt", ignore=ignored)
        for name in ("__init__.py", "requirements.txt"):
            shutil.copy(ROOT / name, folder / "main")
    else:
        env = os.environ | {"HOME": str(tmp_path), "TOWHEE_HOME": str(tmp_path / ".towhee")}
        command = [sys.executable, "-m", "mdmmt", "install-operator"]
        subprocess.run(command, cwd=ROOT, env=env, check=True, timeout=300)
    run(tmp_path, NOT_INSTALLED + BEFORE + PUBLISHED + AFTER)

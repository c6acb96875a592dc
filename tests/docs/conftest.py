"""What the tests of the pages share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def demo_clips(demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder for a page's code, with the clips of `make demo`."""
    folder = tmp_path / "demo" / "clips"
    shutil.copytree(demo_folder / "clips", folder)
    monkeypatch.chdir(tmp_path)
    return folder

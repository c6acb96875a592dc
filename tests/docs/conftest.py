"""What the tests of the pages share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

CLIPS = 4


@pytest.fixture
def demo_clips(sample_clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder for a page's code: like after `make demo`, with fewer clips."""
    folder = tmp_path / "demo" / "clips"
    folder.mkdir(parents=True)
    for i, clip in enumerate(sample_clips(CLIPS, seed=0)):
        shutil.copy(clip.path, folder / f"{i:02}-{'-'.join(clip.combination)}.mp4")
    monkeypatch.chdir(tmp_path)
    return folder

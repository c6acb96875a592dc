"""Lists that come with datasets: the videos of a split."""

from __future__ import annotations

import os
from pathlib import Path

from ..storage.text import numbered_lines, read_text


def read_video_list(path: str | os.PathLike[str]) -> list[str]:
    """Read a list of videos, one name on each line, as the authors' `lists/*/*.vids`.

    Raises:
        InputError: the file cannot be read.
    """
    path = Path(path)
    return [line.strip() for line, _ in numbered_lines(path, read_text(path))]

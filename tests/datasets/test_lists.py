"""Lists of videos."""

from __future__ import annotations

import pytest

from mdmmt import InputError
from mdmmt.datasets import read_video_list


def test_read_video_list_skips_blank_lines(tmp_path):
    path = tmp_path / "test.vids"
    path.write_text("0001_Film_00.01.02.003\nvideo 7\n\n")
    assert read_video_list(path) == ["0001_Film_00.01.02.003", "video 7"]


def test_read_video_list_names_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"none\.vids' cannot be read"):
        read_video_list(tmp_path / "none.vids")

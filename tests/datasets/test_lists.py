"""Lists of videos and of duplicates, and damaged ones."""

from __future__ import annotations

import pytest

from mdmmt import InputError
from mdmmt.datasets import read_duplicates, read_video_list


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    return path


def test_read_duplicates_reads_both_segments(tmp_path):
    path = write(tmp_path, "MSRVTT_MSVD.lst", "a.mp4\t12\t16\tb_3_25.avi\t11\t15.5\n")
    (duplicate,) = read_duplicates(path)
    assert duplicate.test == ("a.mp4", 12, 16)
    assert duplicate.training == ("b_3_25.avi", 11, 15.5)
    assert read_duplicates(write(tmp_path, "empty.lst", "")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\t1\t2\tb\t3\t4\na\t1\t2\tb\t3\n", "line 2: 5 columns, expected 6"),
        ("a\t1\tx\tb\t3\t4\n", "line 1: end is 'x', expected seconds"),
        ("a\t1\t2\t\t3\t4\n", "line 1: video is ''"),
    ],
)
def test_read_duplicates_refuses_damaged_lines(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_duplicates(write(tmp_path, "a.lst", content))


def test_read_video_list_skips_blank_lines(tmp_path):
    path = write(tmp_path, "test.vids", "0001_Film_00.01.02.003\nvideo 7\n\n")
    assert read_video_list(path) == ["0001_Film_00.01.02.003", "video 7"]

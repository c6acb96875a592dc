"""Lists of duplicates, and the training segments that they exclude."""

from __future__ import annotations

import pytest

from mdmmt.datasets.duplicate_lists import (
    Duplicate,
    Exclusions,
    Segment,
    read_duplicates,
    read_exclusions,
    write_duplicates,
)
from mdmmt.errors import InputError

# Lines of the authors' lists.
PUBLISHED = (
    "video9717.mp4\t12\t16\t5HAf_INrFy0_3_25.avi\t11\t15\n"
    "video8174.mp4\t8\t10\t0001_American_Beauty_00.52.37.472-00.52.39.324.avi\t0\t2\n"
    "dwCeFVAaP9c.mp4\t131\t133\tmLijl36SjJU.mp4\t131\t133\n"
)


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "MSRVTT_MSVD.lst"
    path.write_text(PUBLISHED)
    return path


def one(video="a.mp4", start_s=20.0, end_s=30.0):
    return Duplicate(Segment("tested.mp4", 1.0, 11.0), Segment(video, start_s, end_s))


def test_published_lists_are_read(published):
    assert read_duplicates(published)[0] == Duplicate(
        Segment("video9717.mp4", 12, 16), Segment("5HAf_INrFy0_3_25.avi", 11, 15)
    )


def test_lists_are_written_as_the_authors_write_them(published, tmp_path):
    again = tmp_path / "again.lst"
    write_duplicates(again, read_duplicates(published))
    assert again.read_text() == PUBLISHED


def test_fractions_of_a_second_survive(tmp_path):
    path = tmp_path / "a.lst"
    write_duplicates(path, [one(start_s=0.25, end_s=4321.75)])
    assert read_duplicates(path) == [one(start_s=0.25, end_s=4321.75)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("a.mp4\t1\t2\tb.mp4\t1", "line 2: has 5 columns, expected 6 separated by tabs"),
        ("a.mp4\t1\t2\tb.mp4\t1\t2\t0.9", "line 2: has 7 columns, expected 6"),
        ("a.mp4 1 2 b.mp4 1 2", "line 2: has 1 column, expected 6"),
        ("a.mp4\tone\t2\tb.mp4\t1\t2", "the start in the test video is 'one', expected seconds"),
        ("a.mp4\t1\t2\tb.mp4\t1\tnan", "the end in the train video is 'nan', expected seconds"),
        ("a.mp4\t1\t2\t \t1\t2", "the train video is ' ', expected a text"),
        ("a.mp4\t1\t2\tb.mp4\t5\t5", "the train video is 5 to 5, expected 0 <= start < end"),
        ("a.mp4\t-1\t2\tb.mp4\t5\t6", "the test video is -1 to 2, expected 0 <= start < end"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, complaint):
    path = tmp_path / "a.lst"
    path.write_text(f"a.mp4\t1\t2\tb.mp4\t1\t2\n{line}\n")
    with pytest.raises(InputError, match=r"a\.lst, line 2") as raised:
        read_duplicates(path)
    assert complaint in str(raised.value)


@pytest.mark.parametrize("name", ["a\tb.mp4", "a\nb.mp4", "a\rb.mp4"])
def test_a_name_that_would_break_a_line_is_refused(tmp_path, name):
    path = tmp_path / "a.lst"
    for duplicate in (one(name), Duplicate(*reversed(one(name)))):
        with pytest.raises(InputError, match="has a tab or a line break"):
            write_duplicates(path, [one(), duplicate])
    assert not path.exists()


@pytest.mark.parametrize(
    ("start_s", "end_s", "excluded"),
    [
        (0, 9, False),
        (0, 10, False),  # ends where the margin begins
        (0, 11, True),
        (22, 23, True),
        (0, 100, True),
        (39, 50, True),
        (40, 50, False),
        (0, None, True),
        (39, None, True),
        (41, None, False),
    ],
)
def test_segments_within_ten_seconds_are_excluded(start_s, end_s, excluded):
    assert Exclusions([one()]).excluded("a", start_s, end_s) is excluded


def test_the_test_video_is_not_excluded():
    assert not Exclusions([one()]).excluded("tested", 0, None)


@pytest.mark.parametrize(
    ("listed", "video", "same"),
    [
        ("a.mp4", "a", True),
        ("a.mp4", "a.mkv", True),
        ("a", "a.MP4", True),
        ("a.mp4", "train/a.mp4", True),
        ("train/a.mp4", "a", True),
        ("x/train/a.mp4", "train/a", True),
        ("x/a.mp4", "y/a.mp4", False),
        ("a.mp4", "b.mp4", False),
        ("a.mp4", "ba.mp4", False),
        ("a.mp4", ".", False),
        ("0001_Beauty_00.52.37.472.avi", "0001_Beauty_00.52.37.472", True),
        ("0001_Beauty_00.52.37.472.avi", "0001_Beauty_00.52.37", False),
        ("mLijl36SjJU.mp4", "v_mLijl36SjJU", True),  # as ActivityNet names it
        ("v_short.mp4", "short", False),
    ],
)
def test_names_with_and_without_folders_and_suffix_are_one_video(listed, video, same):
    exclusions = Exclusions([one(listed)])
    assert exclusions.names(video) is same
    assert exclusions.excluded(video, 20, 30) is same


def test_exclusions_are_read_from_a_list(published):
    exclusions = read_exclusions(published)
    assert exclusions.excluded("mLijl36SjJU", 125, 127)
    assert not exclusions.excluded("mLijl36SjJU", 100, 110)

"""Text files: their encoding, their lines and their JSON, and the errors that name the place."""

from __future__ import annotations

import pytest

from mdmmt import InputError
from mdmmt.storage.text import (
    counted,
    escape_controls,
    format_table,
    numbered_lines,
    parse_json,
    read_text,
)


@pytest.mark.parametrize("content", [b"\xc3\xbcber\r\nall", b"\xef\xbb\xbf\xc3\xbcber\r\nall"])
def test_read_text_drops_the_byte_order_mark(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_text(tmp_path / "a.txt") == "über\nall"


def test_read_text_names_the_file_and_the_line(tmp_path):
    with pytest.raises(InputError, match=r"a\.txt' cannot be read: No such file"):
        read_text(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\xff\n")
    with pytest.raises(InputError, match=r"a\.txt, line 3: is not UTF-8 text"):
        read_text(tmp_path / "a.txt")


def test_numbered_lines_skips_blank_lines_and_splits_at_newlines_alone(tmp_path):
    path = tmp_path / "a.txt"
    lines = list(numbered_lines(path, "one\u2028two\n \n\nthree"))
    assert lines == [("one\u2028two", f"{path}, line 1"), ("three", f"{path}, line 4")]


def test_parse_json_names_the_place():
    assert parse_json('{"a": [1]}', "a.json") == {"a": [1]}
    with pytest.raises(InputError, match=r"^a\.json, line 2: is not JSON"):
        parse_json("[1,\n}", "a.json")
    with pytest.raises(InputError, match=r"^a\.jsonl, line 7: is not JSON"):
        parse_json("[1,\n}", "a.jsonl, line 7")
    with pytest.raises(InputError, match=r"^a\.json: is nested too deeply"):
        parse_json("[" * 100_000, "a.json")
    with pytest.raises(InputError, match=r"^a\.json: holds a whole number of too many digits"):
        parse_json(f'{{"year": -{"7" * 5000}}}', "a.json")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nb\rc", r"a\nb\rc"),
        ("a\x9bb", r"a\x9bb"),
        ("a\u2028b", r"a\u2028b"),
        ("a\u202egpj.b", r"a\u202egpj.b"),
        ("plain é \U0001f468\u200d\U0001f469", "plain é \U0001f468\u200d\U0001f469"),
    ],
)
def test_escape_controls_shows_controls_as_escapes(name, shown):
    assert escape_controls(name) == shown
    assert format_table([["x", "name"], ["1", name]]).splitlines()[1] == f"1  {shown}"


def test_counted_puts_the_words_into_the_singular_for_one():
    assert [counted(n, "video") for n in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
    assert counted(1, "item was", "items were") == "1 item was"
    assert counted(0, "item was", "items were") == "0 items were"


def test_format_table_aligns_all_columns_but_the_last_to_the_right():
    rows = [["", "score", "file"], ["10", "0.1", "a long name.mp4"], ["9", "-12.34", "b"]]
    assert format_table(rows).splitlines() == [
        "     score  file",
        "10     0.1  a long name.mp4",
        " 9  -12.34  b",
    ]
    assert format_table([["alone"]]) == "alone"


def test_format_table_aligns_the_named_columns_to_the_left():
    rows = [["", "R@1"], ["t2v", "12.50"], ["difference", "3"]]
    assert format_table(rows, flush_left=(0,)).splitlines() == [
        "              R@1",
        "t2v         12.50",
        "difference      3",
    ]
    both = format_table([["a", "b "], ["long", "c"]], flush_left=(0, 1))
    assert both.splitlines() == ["a     b ", "long  c"]  # what a name ends with is its own

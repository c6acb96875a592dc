"""Parts of a large run: what is there tells what is done."""

from __future__ import annotations

import json

import numpy as np
import pytest
from parquet_parts import rows_in

from mdmmt.batch.parts import SETTINGS_FILE, Parts, Row
from mdmmt.errors import InputError

SETTINGS = {"kind": "path", "model": {"name": "a", "sha256": "ab" * 32, "dim": 3}, "window_s": 2.0}
GOOD = [
    Row("one-0", "/a.mkv", np.float32([1, 2, 3]), (0.0, 2.0), None, "cd", {"CLIP": "1"}, "file"),
    Row("one-1", "/a.mkv", np.float32([4, 5, 6]), (2.0, 4.0), None, "cd", {"CLIP": "1"}, "file"),
]
BAD = [Row("two-0", "/b\udcff.mkv", error="it is no video")]


def write(parts, mark, rows):
    parts.write(mark, rows, "path", "ab" * 32, 3)


@pytest.fixture
def parts(tmp_path):
    return Parts(str(tmp_path / "new" / "out"))


def test_what_is_written_is_done(parts, tmp_path):
    mark = parts.begin(SETTINGS)
    assert parts.done() == {}
    write(parts, mark, GOOD)
    write(parts, mark, BAD)
    assert parts.done() == {"one": False, "two": True}
    rows = rows_in(tmp_path / "new" / "out")
    assert [row["id"] for row in rows] == ["one-0", "one-1", "two-0"]
    assert rows[1]["vector"] == [4, 5, 6]
    assert (rows[1]["start_s"], rows[1]["end_s"], rows[1]["clock"]) == (2.0, 4.0, "file")
    assert json.loads(rows[1]["versions"]) == {"CLIP": "1"}
    assert (rows[2]["vector"], rows[2]["error"]) == (None, "it is no video")
    assert rows[2]["path"] == "/b\\udcff.mkv"
    write(parts, mark, GOOD)  # a worker that was cut off before it could tell
    assert len(rows_in(tmp_path / "new" / "out")) == 3


def test_the_vectors_have_one_length(parts, tmp_path):
    from pyarrow import parquet

    mark = parts.begin(SETTINGS)
    write(parts, mark, [*GOOD, *BAD])
    (file,) = (tmp_path / "new" / "out").glob("*.parquet")
    vector = parquet.read_schema(file).field("vector").type
    assert (vector.list_size, str(vector.value_type)) == (3, "float")


def test_errors_are_forgotten_and_the_rest_stays(parts):
    mark = parts.begin(SETTINGS)
    write(parts, mark, [*GOOD, *BAD])
    parts.forget_errors()
    assert parts.done() == {"one": False}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": {"name": "b", "sha256": "cd" * 32, "dim": 3}},
            "model is a .weights abab.* b .w",
        ),
        ({"window_s": 3.0}, "window_s is 2.0, and 3.0 is asked for"),
        ({"kind": "text"}, "kind is path, and text is asked for"),
    ],
)
def test_a_mixture_is_refused(parts, change, message):
    mark = parts.begin(SETTINGS)
    write(parts, mark, GOOD)
    with pytest.raises(InputError, match=message):
        parts.begin({**SETTINGS, **change})
    write(parts, mark, BAD)  # what is refused has not begun


def test_a_second_command_ends_the_first(parts):
    mark = parts.begin(SETTINGS)
    second = parts.begin(SETTINGS)
    with pytest.raises(InputError, match="another `mdmmt batch` has begun to write"):
        write(parts, mark, GOOD)
    write(parts, second, GOOD)


def test_a_place_that_is_not_shared_is_refused(parts, tmp_path):
    mark = parts.begin(SETTINGS)
    with pytest.raises(InputError, match="a folder that all machines of the cluster share"):
        write(Parts(str(tmp_path / "elsewhere")), mark, GOOD)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": {"model": {}}, "mark": ""}'])
def test_damaged_settings_are_refused(parts, tmp_path, content):
    parts.begin(SETTINGS)
    (tmp_path / "new" / "out" / SETTINGS_FILE).write_text(content)
    with pytest.raises(InputError, match="is damaged"):
        parts.begin(SETTINGS)


def test_parts_without_settings_or_with_other_content_are_refused(parts, tmp_path):
    out = tmp_path / "new" / "out"
    write(parts, parts.begin(SETTINGS), GOOD)
    next(out.glob("*.parquet")).write_bytes(b"no Parquet")
    with pytest.raises(InputError, match=r"part-.* is no part of a run"):
        parts.done()
    (out / SETTINGS_FILE).unlink()
    with pytest.raises(InputError, match="which tells of what model they are"):
        parts.begin(SETTINGS)

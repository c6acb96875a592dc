"""The items of a large run."""

from __future__ import annotations

import pytest

from mdmmt.batch.sources import (
    Items,
    decode,
    encode,
    feature_file_of,
    find_items,
    find_texts,
    item_id,
)
from mdmmt.errors import InputError
from mdmmt.search import index


def test_a_folder_stands_for_its_videos(videos):
    found = find_items(str(videos))
    names = [str(videos / name) for name in ("a.mkv", "deep/a.mkv", "silent.mkv")]
    assert found == Items("path", names, str(videos))
    assert find_items(names[0]) == Items("path", names[:1])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "a.mkv\n\ns3://films/b.mkv\na.mkv\n"),
        ("list.csv", "n,path\n1,a.mkv\n2,s3://films/b.mkv\n"),
        ("list.jsonl", '{"path": "a.mkv"}\n{"path": "s3://films/b.mkv"}\n'),
    ],
)
def test_lists_and_tables(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content)
    assert find_items(name).names == [str(tmp_path / "a.mkv"), "s3://films/b.mkv"]


def test_a_column_of_parquet(tmp_path):
    import pyarrow
    from pyarrow import parquet

    file = tmp_path / "films.parquet"
    parquet.write_table(pyarrow.table({"film": ["/a.mkv", "/b.mkv"]}), file)
    assert find_items(str(file), "film").names == ["/a.mkv", "/b.mkv"]
    with pytest.raises(InputError, match=r"no column 'path' among 'film'; .* with --column"):
        find_items(str(file))


def test_texts_count_once(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("a dog\na cat\na dog\n")
    assert find_texts(str(file)) == Items("text", ["a dog", "a cat"])


@pytest.mark.parametrize(
    ("find", "source", "column", "message"),
    [
        (find_texts, "none", None, "'none' cannot be read"),
        (find_texts, "-", None, "expected a file on this machine"),
        (find_items, "list.txt", "path", "is no table"),
        (find_items, "none", None, "no file 'none', expected a folder, a list"),
        (find_items, "none.mp4", None, "no file 'none.mp4', expected a folder, a list"),
        (find_items, ".", None, "there is no video and no feature file"),
        (find_items, "bare", None, "there is no file in the folder 'bare'"),
        (find_items, "empty.txt", None, "holds no text"),
        (find_items, "ftp://films/a", None, "expected a folder, or one of s3://BUCKET/PREFIX"),
        (find_items, "s3:///a", None, "expected a folder, or one of s3://BUCKET/PREFIX"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path, monkeypatch, find, source, column, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=message):
        find(source, column)


def test_names_survive_the_way_to_an_actor():
    for name in ("/films/é.mkv", "/films/\udcff.mkv", "a \ud800 lone surrogate"):
        assert decode(encode(name)) == name


def test_an_index_keeps_the_windows_of_a_file_under_the_same_id():
    assert index.segment_id("/films/a.mkv", 3) == f"{item_id('/films/a.mkv')}-3"


def test_feature_files_lie_as_extract_lays_them():
    assert feature_file_of("/films/deep/a.mkv", "/films") == "deep/a.mkv.safetensors"
    assert feature_file_of("/films/a.mkv", "") == "films/a.mkv.safetensors"
    assert feature_file_of("s3://films/new/a.mkv", "s3://films/new") == "a.mkv.safetensors"
    assert feature_file_of("s3://films/new/a.mkv", "") == "films/new/a.mkv.safetensors"

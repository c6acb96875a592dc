"""The files that a browser may ask for, and the drawn library."""

from __future__ import annotations

import os
import shutil

import pytest

import mdmmt

pytestmark = pytest.mark.slow


def test_only_a_file_that_was_found_has_a_key(library, tmp_path):
    path = str(shutil.copy(library.index.files()[0].path, tmp_path / "a.mp4"))
    key = library.url_of(path).rpartition("/")[2]
    assert library.file_of(key) == path
    for other in (path, os.path.basename(path), "", "..", key[:-1]):
        assert library.file_of(other) is None
    os.remove(path)
    assert library.file_of(key) is None
    os.symlink("/etc/hostname", path)
    assert library.file_of(key) is None


def test_the_drawn_library_is_drawn_once_and_completed(make_library, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    from mdmmt.app import library as module

    monkeypatch.setattr(module, "CLIPS", 3)
    monkeypatch.setattr("mdmmt.sample.clips.CLIPS", 3)
    model = mdmmt.load("sample", "cpu")
    library = make_library(tmp_path / "library.db", model)
    module.fill_with_drawn_clips(library, tmp_path / "clips", False)
    files = library.index.files()
    assert [file.metadata.keys() for file in files] == [
        {"colour", "shape", "movement", "change", "tone"}
    ] * 3
    before = os.stat(files[0].path).st_mtime_ns
    module.fill_with_drawn_clips(library, tmp_path / "clips", False)
    assert os.stat(files[0].path).st_mtime_ns == before
    os.remove(files[1].path)
    module.fill_with_drawn_clips(library, tmp_path / "clips", False)
    assert os.path.isfile(files[1].path) and library.index.files() == files


def test_others_add_to_the_database_while_a_library_is_open(make_library, library, tmp_path):
    from mdmmt.errors import InputError
    from mdmmt.search import Index

    path, model = tmp_path / "library.db", library.model
    video = library.index.files()[0].path
    shown = make_library(path, model)
    with Index.open(path, model) as build:
        build.add("a.mp4", library.index.segments(video))
        assert shown.index.files() == []
        with pytest.raises(InputError, match="open elsewhere"), shown.adding():
            pass
        shown.refresh()
        assert [file.path for file in shown.index.files()] == ["a.mp4"]
    before = shown.index
    with shown.adding() as index:
        index.add("b.mp4", library.index.segments(video))
        assert len(shown.index.files()) == 2
        with pytest.raises(InputError, match="open elsewhere"):
            Index.open(path, model)
    assert len(shown.index.files()) == 2 and shown.index is not before
    before = shown.index
    shown.refresh()
    assert shown.index is before  # nobody has changed it
    shutil.move(path, tmp_path / "moved.db")
    with pytest.raises(InputError, match="no database"):
        shown.refresh()
    assert len(shown.index.files()) == 2

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


def test_the_drawn_library_is_drawn_once_and_completed(tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    from mdmmt.app import library as module
    from mdmmt.search import Index

    monkeypatch.setattr(module, "CLIPS", 3)
    monkeypatch.setattr("mdmmt.sample.clips.CLIPS", 3)
    model = mdmmt.load("sample", "cpu")
    with Index.open(tmp_path / "library.db", model) as index:
        library = module.Library(index, model)
        module.fill_with_drawn_clips(library, tmp_path / "clips", False)
        files = index.files()
        assert [file.metadata.keys() for file in files] == [
            {"colour", "shape", "movement", "change", "tone"}
        ] * 3
        before = os.stat(files[0].path).st_mtime_ns
        module.fill_with_drawn_clips(library, tmp_path / "clips", False)
        assert os.stat(files[0].path).st_mtime_ns == before
        os.remove(files[1].path)
        module.fill_with_drawn_clips(library, tmp_path / "clips", False)
        assert os.path.isfile(files[1].path) and index.files() == files

"""Where this package looks for files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import mdmmt
from mdmmt.storage.paths import SAMPLE_FOLDER, WEIGHTS_FOLDER, cache_folder


def test_weights_folder_is_beside_the_package():
    package = Path(mdmmt.__file__).parent
    assert package.parent / "weights" == WEIGHTS_FOLDER


def test_sample_folder_is_in_the_package():
    assert (SAMPLE_FOLDER / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/mdmmt"),
        ("linux", {"XDG_CACHE_HOME": "caches"}, "caches/mdmmt"),
        ("linux", {"XDG_CACHE_HOME": ""}, "home/.cache/mdmmt"),
        ("darwin", {}, "home/Library/Caches/mdmmt"),
        ("win32", {}, "home/AppData/Local/mdmmt/Cache"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/mdmmt/Cache"),
    ],
)
def test_cache_folder_is_where_the_system_has_caches(
    platform, variables, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value) if value else "")
    assert cache_folder() == tmp_path / expected


def test_cache_folder_is_what_mdmmt_home_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for named, wanted in (
        (str(tmp_path / "mine"), tmp_path / "mine"),
        ("~/mine", tmp_path / "mine"),
        ("mine", tmp_path / "mine"),
    ):
        monkeypatch.setenv("MDMMT_HOME", named)
        assert cache_folder() == wanted
    for blank in ("", "  "):
        monkeypatch.setenv("MDMMT_HOME", blank)
        assert cache_folder().name == "mdmmt"


def test_cache_folder_ignores_a_relative_variable(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert os.path.isabs(cache_folder()) and "caches" not in cache_folder().parts

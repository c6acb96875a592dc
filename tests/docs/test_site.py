"""The site of the documentation, built as `make docs` builds it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from notebooks import NOTEBOOKS, outputs_of
from pages import PAGES, ROOT

# What a browser loads by itself; an <a> only leads elsewhere.
LOADED = re.compile(
    r"<(?:script|img|iframe|video|source|link)\b[^>]*?\b(?:src|href)=\"?([^\"\s>]+)"
)
IMPORTED = re.compile(r"url\([\"']?(https?:[^)\"']+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning, such as a broken link, fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    build = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return folder


@pytest.mark.slow
def test_site_has_all_pages_and_their_pictures(site: Path) -> None:
    built = {page.stem for page in site.glob("*.html")}
    assert built >= {page.stem for page in PAGES} | {"changelog"}
    for page in site.glob("*.html"):
        for loaded in LOADED.findall(page.read_text()):
            name = loaded.partition("#")[0].partition("?")[0]
            if not name.startswith(("http:", "https:", "data:")) and page.name != "404.html":
                assert (page.parent / name).exists(), f"{page.name}: {name}"


@pytest.mark.slow
def test_site_shows_the_notebooks(site: Path) -> None:
    for notebook in NOTEBOOKS:
        page = (site / "notebooks" / f"{notebook.stem}.html").read_text()
        cells = list(outputs_of(nbformat.read(notebook, as_version=4)))
        assert page.count('src="data:image/') == sum(len(cell.pictures) for cell in cells)
        vectors = sum(cell.text.count("shape=(384,)") for cell in cells)
        assert page.count("shape=(384,)") == vectors
        assert (site / "notebooks" / notebook.name).is_file()
    home = (site / "index.html").read_text()
    assert 'href="notebooks/operator.html"' in home and '.ipynb"' not in home


@pytest.mark.slow
def test_site_loads_nothing_from_the_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        for loaded in LOADED.findall(page.read_text()):
            assert not loaded.startswith(("http:", "https:", "//")), f"{page.name}: {loaded}"
    for sheet in site.rglob("*.css"):
        assert not IMPORTED.findall(sheet.read_text()), sheet

"""Lets the pages show files that lie above docs/: the pictures and the changelog.

A page links to `../pictures/search.png`, which works where the repository is browsed. MkDocs only
takes files below docs/, so the site gets copies of these files and links to the copies.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PICTURES = ("pictures/*.png", "*_emb_result.png")
ABOVE = re.compile(r"\]\(\.\./(?=[\w/-]+\.png\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures and the changelog to the files of the site."""
    for pattern in PICTURES:
        for picture in sorted(ROOT.glob(pattern)):
            name = picture.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    changelog = str(ROOT / "CHANGELOG.md")
    files.append(File.generated(config, "changelog.md", abs_src_path=changelog))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Link to the copies of the pictures."""
    return ABOVE.sub("](", markdown)

"""Lets the site show the notebooks, and files that lie above docs/: pictures and the changelog.

A page links to `../pictures/search.png`, which works where the repository is browsed. MkDocs only
takes files below docs/, so the site gets copies of these files and links to the copies. It also
gets a page for each notebook.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PICTURES = ("pictures/*.png", "*_emb_result.png")
ABOVE = re.compile(r"\]\(\.\./(?=[\w/-]+\.png\))")
NOTEBOOK = re.compile(r"\]\((notebooks/\w+)\.ipynb\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures, the changelog and the pages of the notebooks to the files of the site."""
    for pattern in PICTURES:
        for picture in sorted(ROOT.glob(pattern)):
            name = picture.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    changelog = str(ROOT / "CHANGELOG.md")
    files.append(File.generated(config, "changelog.md", abs_src_path=changelog))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        name = f"notebooks/{notebook.stem}.md"
        files.append(File.generated(config, name, content=page_of(notebook)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Link to the copies of the pictures and to the pages of the notebooks."""
    return NOTEBOOK.sub(r"](\1.md)", ABOVE.sub("](", markdown))


def page_of(notebook: Path) -> str:
    """The cells of a notebook and what they show, in Markdown."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        parts += map(shown, cell.get("outputs", []))
    parts.append(f"[The notebook itself]({notebook.name}) opens in Jupyter.")
    return "\n\n".join(parts)


def shown(output: dict[str, Any]) -> str:
    """What a cell shows: a picture, a table in HTML, or text."""
    data = output.get("data", {})
    for kind in ("image/jpeg", "image/png"):
        if kind in data:
            return f"![What the cell shows](data:{kind};base64,{data[kind].strip()})"
    if "text/html" in data:
        return "".join(data["text/html"])
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```"

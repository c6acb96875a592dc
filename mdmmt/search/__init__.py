"""Search in a collection of videos: an index in Milvus, built from files, and a page of results.

Milvus is imported when an index is opened, and what the page needs when `write_page` is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import lazy
from ..batch.outcome import Outcome
from ..weights.identity import Identity
from .build import index_file, index_files, read_metadata
from .index import FileEntry, Hit, Index, IndexedFile
from .refine import Refined, refine_hits
from .transfer import Transferred, export_index, import_index

if TYPE_CHECKING:
    from .page import write_page
else:  # spares a search without a page PyAV and Jinja2
    __getattr__, __dir__ = lazy.names_of(__name__, {".page": ("write_page",)})

__all__ = (
    "FileEntry",
    "Hit",
    "Identity",
    "Index",
    "IndexedFile",
    "Outcome",
    "Refined",
    "Transferred",
    "export_index",
    "import_index",
    "index_file",
    "index_files",
    "read_metadata",
    "refine_hits",
    "write_page",
)

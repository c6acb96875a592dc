"""Search in a collection of videos: an index in Milvus, built from files, and a page of results.

Milvus is imported when an index is opened, and what the page needs when `write_page` is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..batch.outcome import Outcome
from ..weights.identity import Identity
from .build import index_file, index_files, read_metadata
from .index import Hit, Index

if TYPE_CHECKING:
    from .page import write_page

__all__ = (
    "Hit",
    "Identity",
    "Index",
    "Outcome",
    "index_file",
    "index_files",
    "read_metadata",
    "write_page",
)


def __getattr__(name: str) -> Any:
    if name == "write_page":  # spares a search without a page PyAV and Jinja2
        from .page import write_page

        return write_page
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

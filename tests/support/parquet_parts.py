"""Reads what `mdmmt batch` has written, as a user would."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def rows_in(out: Path) -> list[dict[str, Any]]:
    """All rows of all parts, in the order of their ids."""
    from pyarrow import parquet

    return sorted(parquet.read_table(out).to_pylist(), key=lambda row: row["id"])

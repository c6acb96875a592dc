"""What it costs to flush each written file to disk before it gets its name.

    python benchmarks/files.py

Writes files of the size of a minute's features (650 kB) with and without the flush, in turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from mdmmt.storage import files

SIZE = 650_000  # bytes
ROUNDS = 50


def seconds(path: Path) -> float:
    """Write one file."""
    started = time.perf_counter()
    with files.atomic_file(path) as part:
        part.write_bytes(bytes(SIZE))
    return time.perf_counter() - started


def main() -> None:
    flushed, unflushed = [], []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for number in range(ROUNDS):
            flushed.append(seconds(Path(folder, f"{number}-a")))
            with patch.object(files, "flush_to_disk"):
                unflushed.append(seconds(Path(folder, f"{number}-b")))
    for name, times in (("flushed", flushed), ("not flushed", unflushed)):
        print(f"{name:12} {1000 * statistics.median(times):.2f} ms a file of {SIZE} bytes")


if __name__ == "__main__":
    main()

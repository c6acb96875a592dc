"""Measure an index in Milvus Lite and on a Milvus server; run by hand against a server.

    python benchmarks/servers.py --server http://localhost:19530 --rows 10000 50000

The server gets a database of its own for each number of rows, which is removed at the end. The
vectors come in groups, as embeddings of videos do, and each video has ten of them. The queries are
searched for one by one, and the results are compared with those of an exact search by numpy.
`--pid` names the process of a server on this machine, whose memory and processor time are measured
then. Processor time compares on a busy machine as well. `--ways` names the ways to be measured, of
which the first one on the server is its index while it is filled.

    python benchmarks/servers.py --server http://localhost:19530 --rows 10000 --bulk

fills a server by Milvus' bulk writer instead, which needs `pymilvus[bulk_writer]` and a server that
reads the files of this machine. Milvus 2.3 imports into its database `default` alone, so that must
hold no index.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from index import EXPERTS, SEGMENTS_PER_FILE, WIDTH, K, vectors_like_videos
from numpy.typing import NDArray
from pymilvus import MilvusClient

from mdmmt.model import Segments
from mdmmt.search import FileEntry, Identity, Index, milvus
from mdmmt.search.index import ROWS_AT_ONCE
from mdmmt.search.milvus import COLLECTION, make_vector_index

MODEL = Identity("benchmark", "0" * 64, EXPERTS * WIDTH)
MAX_SEARCH_S = 20  # a slow way is searched for no longer than this
BULK_BYTES = 128 << 20  # of vectors in a file of the bulk writer
PAUSE_S = 0.2
QUIET_PAUSES = 50  # without an unfinished row, after which an index counts as made
COLUMNS = (
    "single",  # rows a second, one file after the other
    "batched",  # rows a second
    "fill_cpu_s",
    "index_s",
    "index_cpu_s",
    "median_ms",
    "p95_ms",
    "search_cpu_ms",
    "recall_at_10",
    "memory_gb",
)
SINGLE_FILES = 20  # that are added one after the other, for comparison
LITE = "Lite"
INDEXES: dict[str, dict[str, Any]] = {  # on the server; `Index` makes the first
    "AUTOINDEX": {"index_type": "AUTOINDEX"},
    "HNSW": {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}},
    "IVF_FLAT": {"index_type": "IVF_FLAT", "params": {"nlist": 128}},
}
milvus.CONNECT_S = milvus.ANSWER_S = 900  # a busy machine is measured too


def entries(vectors: NDArray[np.float32]) -> Iterator[FileEntry]:
    spans_s = np.array([[i, i + 1.0] for i in range(SEGMENTS_PER_FILE)])
    for first in range(0, len(vectors), SEGMENTS_PER_FILE):
        part = vectors[first : first + SEGMENTS_PER_FILE]
        yield FileEntry(str(first), Segments(part, spans_s[: len(part)]), "", {"number": first})


def fill(index: Index, vectors: NDArray[np.float32], process: Process | None) -> dict[str, float]:
    """Add all rows, some of them one file after the other, and then all in batches."""
    files = list(entries(vectors))
    started = time.perf_counter()
    for file in files[:SINGLE_FILES]:
        index.add(*file)
    single_s = time.perf_counter() - started
    at_once = ROWS_AT_ONCE // SEGMENTS_PER_FILE
    before_s = cpu_s(process)
    started = time.perf_counter()
    for first in range(0, len(files), at_once):
        index.add_files(files[first : first + at_once])
    batched_s = time.perf_counter() - started
    return {
        "single": SINGLE_FILES * SEGMENTS_PER_FILE / single_s,
        "batched": len(vectors) / batched_s,
        "fill_cpu_s": cpu_s(process) - before_s,
    }


def fill_in_bulk(server: str, vectors: NDArray[np.float32]) -> dict[str, float]:
    """The seconds of each step in which Milvus' bulk writer fills an index."""
    from pymilvus import Collection, connections, utility
    from pymilvus.bulk_writer import BulkFileType, LocalBulkWriter

    client = MilvusClient(server)
    if client.has_collection(COLLECTION):
        raise SystemExit(f"{server} holds an index in its database default, expected none")
    try:
        with Index.open(server, MODEL) as index, tempfile.TemporaryDirectory() as folder:
            connections.connect(uri=server)
            started = time.perf_counter()
            writer = LocalBulkWriter(
                Collection(COLLECTION).schema, folder, BULK_BYTES, BulkFileType.PARQUET
            )
            for file in entries(vectors):
                for row in index._rows_of(file)[1]:
                    writer.append_row(row)
            writer.commit()
            written = time.perf_counter()
            tasks = [utility.do_bulk_insert(COLLECTION, files) for files in writer.batch_files]
            waiting = set(tasks)
            while waiting:
                time.sleep(PAUSE_S)
                for task in list(waiting):
                    state = utility.get_bulk_insert_state(task)
                    if state.state_name == "Failed":
                        raise SystemExit(f"the import has failed: {state.failed_reason}")
                    if state.state_name == "Completed":
                        waiting.remove(task)
            imported = time.perf_counter()
            while index.count() < len(vectors):
                time.sleep(PAUSE_S)
            found = time.perf_counter()
    finally:
        client.drop_collection(COLLECTION)
        client.close()
    return {
        "files_s": written - started,
        "import_s": imported - written,
        "found_s": found - imported,
        "rows_a_s": len(vectors) / (found - started),
    }


def search(
    index: Index, queries: NDArray[np.float32], exact: NDArray[np.int64], process: Process | None
) -> dict[str, float]:
    index.search(queries[0], K)
    before_s = cpu_s(process)
    times, correct = [], 0
    for query, best in zip(queries, exact, strict=True):
        started = time.perf_counter()
        hits = index.search(query, K)
        times.append(time.perf_counter() - started)
        found = {int(hit.path) + int(hit.start_s) for hit in hits}
        correct += len(found & {*best.tolist()})
        if sum(times) > MAX_SEARCH_S:
            break
    figures = {
        "median_ms": 1e3 * statistics.median(times),
        "p95_ms": 1e3 * float(np.quantile(times, 0.95)),
        "recall_at_10": correct / (K * len(times)),
        "search_cpu_ms": 1e3 * (cpu_s(process) - before_s) / len(times),
    }
    if process:
        figures["memory_gb"] = process.memory_gb()
    return figures


class Process:
    """The process of a server on this machine."""

    def __init__(self, number: int) -> None:
        self.folder = Path(f"/proc/{number}")

    def cpu_s(self) -> float:
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_gb(self) -> float:
        lines = (self.folder / "status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024 / 1e9


def cpu_s(process: Process | None) -> float:
    """The processor time of this process and of a server."""
    return time.process_time() + (process.cpu_s() if process else 0.0)


@contextmanager
def database_on(server: str) -> Iterator[str]:
    name = f"benchmark_{os.getpid()}"
    client = MilvusClient(server)
    client.create_database(name)
    try:
        yield f"{server.rstrip('/')}/{name}"
    finally:
        inside = MilvusClient(f"{server.rstrip('/')}/{name}")
        inside.drop_collection(COLLECTION)
        inside.close()
        client.drop_database(name)
        client.close()


def wait_for_index(client: MilvusClient) -> None:
    """Wait until the index has all rows; Milvus joins segments, and indexes those anew."""
    quiet = 0
    while quiet < QUIET_PAUSES:
        state = client.describe_index(COLLECTION, client.list_indexes(COLLECTION)[0])
        quiet = 0 if state["pending_index_rows"] else quiet + 1
        time.sleep(PAUSE_S)


def change_index(client: MilvusClient, way: str) -> None:
    """Replace the index of all rows, and load it."""
    client.release_collection(COLLECTION)
    client.drop_index(COLLECTION, client.list_indexes(COLLECTION)[0])
    make_vector_index(client, INDEXES[way])
    wait_for_index(client)
    client.load_collection(COLLECTION)


def measure(
    rows: int, ways: Sequence[str], server: str, queries: int, process: Process | None
) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(1)
    vectors, query_vectors = vectors_like_videos(rows, rng), vectors_like_videos(queries, rng)
    exact = np.argsort(-(query_vectors @ vectors.T), axis=1)[:, :K]
    if LITE in ways:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "library.db"
            with Index.open(path, MODEL) as index:
                figures = fill(index, vectors, None)
            with Index.open(path, MODEL) as index:
                yield {"way": LITE, **figures, **search(index, query_vectors, exact, None)}
    on_server = [way for way in ways if way != LITE]
    if not on_server:
        return
    with database_on(server) as uri:
        client = MilvusClient(uri)
        Index.open(uri, MODEL).close()
        change_index(client, on_server[0])
        with Index.open(uri, MODEL) as index:
            figures = fill(index, vectors, process)
        client.flush(COLLECTION)
        wait_for_index(client)
        for way in on_server:
            before_s = cpu_s(process)
            started = time.perf_counter()
            change_index(client, way)
            figures["index_s"] = time.perf_counter() - started - QUIET_PAUSES * PAUSE_S
            figures["index_cpu_s"] = cpu_s(process) - before_s
            with Index.open(uri, MODEL, read_only=True) as index:
                yield {"way": way, **figures, **search(index, query_vectors, exact, process)}
        client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="the address of a Milvus server")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument(
        "--ways", nargs="+", choices=[LITE, *INDEXES], default=[LITE, *INDEXES], help="default: all"
    )
    parser.add_argument("--pid", type=int, help="the process of the server, to be measured")
    parser.add_argument("--bulk", action="store_true", help="fill by the bulk writer, and no more")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    client = MilvusClient(arguments.server)
    conditions = {
        "server": client.get_server_version(),
        "width": EXPERTS * WIDTH,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("pymilvus", "milvus-lite", "numpy")},
    }
    client.close()
    print(*(f"{name} {value}" for name, value in conditions.items()), sep=", ")
    if arguments.bulk:
        for rows in arguments.rows:
            vectors = vectors_like_videos(rows, np.random.default_rng(1))
            print(rows, fill_in_bulk(arguments.server, vectors), flush=True)
        return
    print(f"{'rows':>8}  {'':<12}" + "".join(f"{name:>15}" for name in COLUMNS))
    process = Process(arguments.pid) if arguments.pid else None
    results = []
    for rows in arguments.rows:
        for figures in measure(rows, arguments.ways, arguments.server, arguments.queries, process):
            results.append({"rows": rows, **figures})
            cells = "".join(f"{figures.get(name, math.nan):>15.4g}" for name in COLUMNS)
            print(f"{rows:>8}  {figures['way']:<12}{cells}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({**conditions, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

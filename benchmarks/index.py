"""Measure an embedded index: its speed, its recall and its cost; run by hand, see `make help`.

    python benchmarks/index.py --out index.json

Each way to keep the vectors in Milvus Lite gets a database of its own. The queries are searched for
one by one, and the results are compared with those of an exact search by numpy. `spread` vectors
are random, so they are as far from each other as can be; `like videos` vectors come in groups, as
embeddings of videos do.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdmmt.model import Segments
from mdmmt.search import Identity, Index
from mdmmt.search.local_server import serve

K = 10
EXPERTS, WIDTH = 3, 512  # of the released model
SEGMENTS_PER_FILE = 10
MAX_SEARCH_S = 20  # a slow way is searched for no longer than this
GROUPS, SPREAD = 500, 0.7  # of `like videos`: number of groups, spread within a group

Search = Callable[[NDArray[np.float32]], list[int]]  # query (D,) -> rows, best first


def spread_vectors(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    return _unit_blocks(rng.standard_normal((n, EXPERTS, WIDTH)))


def vectors_like_videos(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    shared = np.random.default_rng(0)  # queries come from the same groups
    groups = shared.standard_normal((GROUPS, EXPERTS, 64))
    projection = shared.standard_normal((EXPERTS, 64, WIDTH))
    inner = groups[rng.integers(GROUPS, size=n)] + SPREAD * rng.standard_normal((n, EXPERTS, 64))
    return _unit_blocks(np.einsum("nek,ekw->new", inner, projection))


def _unit_blocks(blocks: NDArray) -> NDArray[np.float32]:
    blocks /= np.linalg.norm(blocks, axis=-1, keepdims=True)
    return blocks.reshape(len(blocks), -1).astype(np.float32)


@contextmanager
def keep_in_index(path: Path, vectors: NDArray[np.float32]) -> Iterator[tuple[Search, float]]:
    """The way of this package: `Index`, filled file by file, then closed, opened and searched."""
    model = Identity("benchmark", "0" * 64, vectors.shape[1])
    spans_s = np.array([[i, i + 1.0] for i in range(SEGMENTS_PER_FILE)])
    started = time.perf_counter()
    with Index.open(path, model) as index:
        for first in range(0, len(vectors), SEGMENTS_PER_FILE):
            part = vectors[first : first + SEGMENTS_PER_FILE]
            index.add(str(first), Segments(part, spans_s[: len(part)]), metadata={"number": first})
    insert_s = time.perf_counter() - started
    with Index.open(path, model) as index:
        yield (
            lambda query: [int(hit.path) + int(hit.start_s) for hit in index.search(query, K)],
            insert_s,
        )


def milvus(
    index_type: str | None, params: dict[str, Any], search: dict[str, Any], flush: bool = True
) -> Callable[[Path, NDArray[np.float32]], Any]:
    """A way to keep vectors: an index with these settings, or for None the one-line collection."""

    @contextmanager
    def keep(path: Path, vectors: NDArray[np.float32]) -> Iterator[tuple[Search, float]]:
        from pymilvus import DataType, MilvusClient

        with ExitStack() as stack:
            client = MilvusClient(stack.enter_context(serve(path)))
            stack.callback(client.close)
            started = time.perf_counter()
            if index_type is None:
                client.create_collection("c", dimension=vectors.shape[1], metric_type="IP")
            else:
                schema = client.create_schema(auto_id=False)
                schema.add_field("id", DataType.INT64, is_primary=True)
                schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
                client.create_collection("c", schema=schema)
            for first in range(0, len(vectors), 1000):
                part = enumerate(vectors[first : first + 1000], start=first)
                client.insert("c", [{"id": i, "vector": vector} for i, vector in part])
            if flush:
                client.flush("c")
            if index_type not in (None, "none"):
                settings = client.prepare_index_params()
                # Milvus Lite reads them from a dict inside the parameters.
                settings.add_index(
                    "vector", index_type=index_type, metric_type="IP", params={"params": params}
                )
                client.create_index("c", settings)
                client.load_collection("c")
            insert_s = time.perf_counter() - started

            def find(query: NDArray[np.float32]) -> list[int]:
                params = {"metric_type": "IP", "params": search}
                return [hit["id"] for hit in client.search("c", [query], "", K, [], params)[0]]

            yield find, insert_s

    return keep


WAYS = {
    "create_collection(dimension=), not flushed": milvus(None, {}, {}, flush=False),
    "no index": milvus("none", {}, {}),
    "FLAT": milvus("FLAT", {}, {}),
    "HNSW, M 16, ef 64": milvus("HNSW", {"M": 16, "efConstruction": 200}, {"ef": 64}),
    "HNSW, M 32, ef 512": milvus("HNSW", {"M": 32, "efConstruction": 200}, {"ef": 512}),
    "IVF_FLAT, 16 of 128 cells": milvus("IVF_FLAT", {"nlist": 128}, {"nprobe": 16}),
    "IVF_SQ8, one cell": milvus("IVF_SQ8", {"nlist": 1}, {"nprobe": 1}),
    "mdmmt.search.Index: IVF_FLAT, one cell": keep_in_index,
}
DATA = {"like videos": vectors_like_videos, "spread": spread_vectors}


def measure(
    keep: Any, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> dict[str, float]:
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :K]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.db"
        with keep(path, vectors) as (search, insert_s):
            search(queries[0])
            times, correct = [], 0
            for query, best in zip(queries, exact, strict=True):
                started = time.perf_counter()
                rows = search(query)
                times.append(time.perf_counter() - started)
                correct += len({*rows} & {*best.tolist()})
                if sum(times) > MAX_SEARCH_S:
                    break
        disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {
        "median_ms": 1e3 * statistics.median(times),
        "p95_ms": 1e3 * float(np.quantile(times, 0.95)),
        "recall_at_10": correct / (K * len(times)),
        "disk_mb": disk / 1e6,
        "insert_s": insert_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--data", choices=DATA, action="append")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    conditions = {
        "rows": arguments.rows,
        "width": EXPERTS * WIDTH,
        "queries": arguments.queries,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in ("pymilvus", "milvus-lite", "faiss-cpu", "numpy")},
    }
    print(*(f"{name} {value}" for name, value in conditions.items()), sep=", ")
    results = []
    for data in arguments.data or DATA:
        rng = np.random.default_rng(1)
        vectors = DATA[data](arguments.rows, rng)
        queries = DATA[data](arguments.queries, rng)
        header = ("median", "p95", "recall@10", "disk", "insert")
        print(f"\n{data:<44}" + "".join(f"{name:>11}" for name in header))
        for name, keep in WAYS.items():
            figures = measure(keep, vectors, queries)
            results.append({"data": data, "way": name, **figures})
            print(
                f"{name:<44}{figures['median_ms']:8.1f} ms{figures['p95_ms']:8.1f} ms"
                f"{figures['recall_at_10']:11.4f}{figures['disk_mb']:8.0f} MB"
                f"{figures['insert_s']:9.1f} s",
                flush=True,
            )
    if arguments.out:
        arguments.out.write_text(json.dumps({**conditions, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The result of an evaluation: as a file, as a table, and compared with another one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..storage.files import atomic_file
from ..storage.text import counted, format_table
from .metrics import (
    CONFIDENCE,
    DIRECTIONS,
    METRICS,
    PROTOCOLS,
    Difference,
    Ranks,
    compare,
    intervals,
    summary,
)


@dataclass(frozen=True)
class Result:
    """The result of one evaluation."""

    protocol: str  # one of `PROTOCOLS`
    experts: tuple[str, ...]  # those whose features were used
    texts: int  # texts in the gallery
    segments: int  # segments in the gallery
    empty_segments: int  # segments without features of these experts; their embedding is zero
    outside: tuple[str, ...]  # captions left out: without length, or outside their video
    missing: tuple[str, ...]  # captions left out: their video has no features
    queries: str  # SHA-256 of all queries in order; results with the same can be compared
    ranks: Ranks = field(repr=False)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The metrics of both `DIRECTIONS`; see `mdmmt.evaluation.metrics.summary`."""
        return {direction: summary(ranks) for direction, ranks in self.ranks._asdict().items()}

    def to_dict(self) -> dict[str, Any]:
        """All fields for JSON, with the metrics and their confidence intervals."""
        by_direction = self.ranks._asdict()
        return {
            "protocol": self.protocol,
            "protocol_means": PROTOCOLS[self.protocol],
            "experts": list(self.experts),
            "captions": len(self.ranks.t2v),
            "texts": self.texts,
            "segments": self.segments,
            "empty_segments": self.empty_segments,
            "outside": list(self.outside),
            "missing": list(self.missing),
            **self.metrics,
            "confidence": CONFIDENCE,
            "intervals": {direction: intervals(ranks) for direction, ranks in by_direction.items()},
            "queries": self.queries,
            "ranks": {direction: ranks.tolist() for direction, ranks in by_direction.items()},
        }


def write_results(path: str | os.PathLike[str], results: Sequence[Result]) -> None:
    """Write results as JSON for `read_results`, the whole file or none.

    Raises:
        InputError: the file cannot be written there, see `mdmmt.storage.files.check_writable`.
    """
    with atomic_file(Path(path)) as part:
        part.write_text(json.dumps([result.to_dict() for result in results], indent=1) + "\n")


def read_results(path: str | os.PathLike[str]) -> list[Result]:
    """Read the results that `write_results` has written.

    Raises:
        InputError: the file cannot be read, or holds no results.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, list) or not content:
            raise TypeError("not a list of results")
        return [_result(record) for record in content]
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{str(path)!r} holds no results as `mdmmt evaluate` writes them ({error!r})"
        ) from error


def compare_results(first: Result, second: Result) -> dict[str, dict[str, Difference]]:
    """Compare the metrics of two evaluations in both directions.

    Returns:
        for each of `DIRECTIONS`, the differences that `mdmmt.evaluation.metrics.compare` returns.

    Raises:
        InputError: the evaluations differ in their protocol or queries.
    """
    for name in ("protocol", "queries"):
        if getattr(first, name) != getattr(second, name):
            raise InputError(
                f"the evaluations differ in their {name}, so they cannot be compared; expected the "
                "same protocol, captions and segments"
            )
    pairs = zip(first.ranks, second.ranks, strict=True)
    return {name: compare(*pair) for name, pair in zip(DIRECTIONS, pairs, strict=True)}


def table(results: Sequence[Result]) -> str:
    """Format the metrics of evaluations of the same captions, with their confidence intervals."""
    first = results[0]
    lines = [
        f"protocol: {first.protocol} ({PROTOCOLS[first.protocol]})",
        f"{counted(len(first.ranks.t2v), 'caption')}, {first.texts} of them different, "
        f"of {counted(first.segments, 'segment')}; {counted(len(first.outside), 'caption')} lay "
        f"outside their video and {len(first.missing)} had no video",
    ]
    for result in results:
        count = result.empty_segments
        empty = f", nothing in {counted(count, 'segment')}" if count else ""
        rows = [["", *METRICS]]
        for direction, metrics in result.metrics.items():
            bounds = intervals(getattr(result.ranks, direction))
            rows.append([direction, *(f"{metrics[name]:.2f}" for name in METRICS)])
            rows.append(["", *("{:.4g}-{:.4g}".format(*bounds[name]) for name in METRICS)])
        experts = f"experts: {', '.join(result.experts)}{empty}"
        lines += ["", experts, format_table(rows, flush_left=(0,))]
    lines += ["", f"below each number its {CONFIDENCE:.0%} confidence interval (bootstrap)"]
    return "\n".join(lines)


def comparison_table(differences: Mapping[str, Mapping[str, Difference]]) -> str:
    """Format the differences that `compare_results` returns."""
    lines = []
    for direction, by_metric in differences.items():
        columns = by_metric.values()
        rows = [
            [direction, *by_metric],
            ["first", *(f"{column.first:.2f}" for column in columns)],
            ["second", *(f"{column.second:.2f}" for column in columns)],
            ["difference", *(f"{column.difference:+.2f}" for column in columns)],
            ["", *(f"{column.low:+.3g}..{column.high:+.3g}" for column in columns)],
            ["p", *(f"{column.p_value:.4f}" for column in columns)],
        ]
        lines += [format_table(rows, flush_left=(0,)), ""]
    lines.append(f"below each difference its {CONFIDENCE:.0%} confidence interval (bootstrap)")
    return "\n".join(lines)


def _result(record: Mapping[str, Any]) -> Result:
    t2v, v2t = (np.array(record["ranks"][name], dtype=np.int64) for name in DIRECTIONS)
    if record["protocol"] not in PROTOCOLS or t2v.ndim != 1 or t2v.shape != v2t.shape:
        raise ValueError("an unknown protocol, or ranks of different lengths")
    return Result(
        protocol=record["protocol"],
        experts=tuple(map(str, record["experts"])),
        texts=int(record["texts"]),
        segments=int(record["segments"]),
        empty_segments=int(record["empty_segments"]),
        outside=tuple(map(str, record["outside"])),
        missing=tuple(map(str, record["missing"])),
        queries=str(record["queries"]),
        ranks=Ranks(t2v, v2t),
    )

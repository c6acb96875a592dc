"""What an evaluation found: as a file, as a table, as a plot, and against another one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..storage.files import atomic_file, check_writable
from .metrics import (
    CONFIDENCE,
    NAMES,
    PROTOCOLS,
    Difference,
    Ranks,
    compare,
    intervals,
    summary,
)

WAYS = Ranks._fields
PLOT_BINS = 30


@dataclass(frozen=True)
class Result:
    """One evaluation."""

    protocol: str
    experts: tuple[str, ...]  # whose features were given
    texts: int  # in the gallery
    segments: int
    empty_segments: int  # in which these experts found nothing; their embedding is zero
    outside: tuple[str, ...]  # captions left out: no length, or nothing of their video
    missing: tuple[str, ...]  # captions left out: no features of their video
    queries: str  # SHA-256 of all queries in their order, to tell what can be compared
    ranks: Ranks = field(repr=False)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """By direction, 't2v' and 'v2t'; see `mdmmt.evaluation.metrics.summary`."""
        return {way: summary(one) for way, one in self.ranks._asdict().items()}

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON, with metrics and their confidence intervals."""
        ways = self.ranks._asdict()
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
            "intervals": {way: intervals(one) for way, one in ways.items()},
            "queries": self.queries,
            "ranks": {way: one.tolist() for way, one in ways.items()},
        }


def write_results(path: str | os.PathLike[str], results: Sequence[Result]) -> None:
    """Write results as JSON, which `read_results` reads; whole or not at all."""
    with atomic_file(Path(path)) as part:
        part.write_text(json.dumps([one.to_dict() for one in results], indent=1) + "\n")


def read_results(path: str | os.PathLike[str]) -> list[Result]:
    """Read what `write_results` has written.

    Raises:
        InputError: a file that cannot be read, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, list) or not content:
            raise TypeError("not a list of results")
        return [_result(one) for one in content]
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{str(path)!r} holds no results as `mdmmt evaluate` writes them ({error!r})"
        ) from error


def compare_results(first: Result, second: Result) -> dict[str, dict[str, Difference]]:
    """Compare two evaluations, by direction; see `mdmmt.evaluation.metrics.compare`.

    Raises:
        InputError: evaluations of other queries, or by another protocol.
    """
    for what in ("protocol", "queries"):
        if getattr(first, what) != getattr(second, what):
            raise InputError(
                f"the evaluations differ in their {what}, so they cannot be compared; expected the "
                "same protocol, captions and segments"
            )
    return {way: compare(getattr(first.ranks, way), getattr(second.ranks, way)) for way in WAYS}


def table(results: Sequence[Result]) -> str:
    """Metrics of some evaluations of the same captions, with their confidence intervals."""
    first = results[0]
    lines = [
        f"protocol: {first.protocol} ({PROTOCOLS[first.protocol]})",
        f"{len(first.ranks.t2v)} captions, {first.texts} of them different, "
        f"of {first.segments} segments; {len(first.outside)} captions lay outside their video and "
        f"{len(first.missing)} had no video",
    ]
    for one in results:
        empty = f", nothing in {one.empty_segments} segments" if one.empty_segments else ""
        lines += ["", f"experts: {', '.join(one.experts)}{empty}", _row("", NAMES)]
        for way, metrics in one.metrics.items():
            bounds = intervals(getattr(one.ranks, way))
            lines.append(_row(way, [f"{metrics[name]:.2f}" for name in NAMES]))
            lines.append(_row("", ["{:.4g}-{:.4g}".format(*bounds[name]) for name in NAMES]))
    lines += ["", f"below each number its {CONFIDENCE:.0%} confidence interval (bootstrap)"]
    return "\n".join(lines)


def comparison_table(differences: Mapping[str, Mapping[str, Difference]]) -> str:
    """What `compare_results` found, as text."""
    lines = []
    for way, by_name in differences.items():
        ones = by_name.values()
        lines += [
            _row(way, by_name),
            _row("first", [f"{one.first:.2f}" for one in ones]),
            _row("second", [f"{one.second:.2f}" for one in ones]),
            _row("difference", [f"{one.difference:+.2f}" for one in ones]),
            _row("", [f"{one.low:+.3g}..{one.high:+.3g}" for one in ones]),
            _row("p", [f"{one.p_value:.4f}" for one in ones]),
            "",
        ]
    lines.append(f"below each difference its {CONFIDENCE:.0%} confidence interval (bootstrap)")
    return "\n".join(lines)


def check_plot(path: Path) -> None:
    """Say so before any work, if a plot cannot be written there.

    Raises:
        InputError: Matplotlib is not installed, or does not know the format; see `check_writable`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("a plot needs Matplotlib: pip install matplotlib") from error
    if path.suffix[1:] not in Figure().canvas.get_supported_filetypes():
        raise InputError(f"the plot is {str(path)!r}, expected a name that ends in .png or .svg")
    check_writable(path)


def plot(results: Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Draw recall against k of each evaluation, and a histogram of the ranks of the first one.

    Args:
        path: a file whose suffix says the format, .png or .svg or what else Matplotlib writes.

    Raises:
        InputError: see `check_plot`.
    """
    path = Path(path)
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    recall, histogram = figure.subplots(1, 2)
    for number, one in enumerate(results):
        for way, line in zip(WAYS, ("-", "--"), strict=True):
            its = getattr(one.ranks, way)
            k = np.arange(1, (one.segments if way == "t2v" else one.texts) + 1)
            share = 100 * np.searchsorted(np.sort(its), k, side="right") / len(its)
            label = f"{way}, {' + '.join(one.experts)}"
            recall.plot(k, share, color=f"C{number}", linestyle=line, label=label)
    first = results[0]
    bins = np.geomspace(1, max(first.texts, first.segments) + 1, PLOT_BINS).round()
    histogram.hist(first.ranks, np.unique(bins), label=WAYS)
    recall.set(xscale="log", xlabel="k", ylabel="recall at k, %", ylim=(0, 102))
    histogram.set(xscale="log", xlabel=f"rank, {' + '.join(first.experts)}", ylabel="queries")
    for axes in (recall, histogram):
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(f"protocol: {first.protocol}")
    with atomic_file(path) as part:
        figure.savefig(part, format=path.suffix[1:])


def _result(record: Mapping[str, Any]) -> Result:
    counts = {name: int(record[name]) for name in ("texts", "segments", "empty_segments")}
    lists = {name: tuple(map(str, record[name])) for name in ("experts", "outside", "missing")}
    t2v, v2t = (np.array(record["ranks"][way], dtype=np.int64) for way in WAYS)
    if record["protocol"] not in PROTOCOLS or t2v.ndim != 1 or t2v.shape != v2t.shape:
        raise ValueError("a protocol that is not known, or ranks that do not fit together")
    return Result(
        protocol=record["protocol"],
        queries=str(record["queries"]),
        ranks=Ranks(t2v, v2t),
        **counts,
        **lists,
    )


def _row(head: str, cells: Iterable[str]) -> str:
    return f"{head:<12}" + "".join(f"{cell:>14}" for cell in cells)

"""The plot of an evaluation: recall against k, and a histogram of the ranks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, MissingDependency
from ..storage.files import atomic_file, check_writable
from .metrics import DIRECTIONS
from .results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 30  # of the histogram
LINE_STYLES = dict(zip(DIRECTIONS, ("-", "--"), strict=True))


def check_plot(path: str | os.PathLike[str]) -> None:
    """Raise before any work if a plot cannot be written there.

    Raises:
        MissingDependency: Matplotlib is not installed.
        InputError: Matplotlib does not know the format, or the file cannot be written there, see
            `mdmmt.storage.files.check_writable`.
    """
    path = Path(path)
    if path.suffix[1:] not in _new_figure().canvas.get_supported_filetypes():
        raise InputError(f"the plot is {str(path)!r}, expected a name that ends in .png or .svg")
    check_writable(path)


def plot(results: Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Plot the recall at k of each result, and a histogram of the ranks of the first one.

    Args:
        path: the file to write; its suffix is the format: .png, .svg or another of Matplotlib's.

    Raises:
        InputError, MissingDependency: see `check_plot`.
    """
    path = Path(path)
    check_plot(path)
    figure = _new_figure()
    recall, histogram = figure.subplots(1, 2)
    for number, result in enumerate(results):
        gallery_sizes = {"t2v": result.segments, "v2t": result.texts}
        for direction, ranks in result.ranks._asdict().items():
            k = np.arange(1, gallery_sizes[direction] + 1)
            recall_at_k = 100 * np.searchsorted(np.sort(ranks), k, side="right") / len(ranks)
            label = f"{direction}, {' + '.join(result.experts)}"
            style = LINE_STYLES[direction]
            recall.plot(k, recall_at_k, color=f"C{number}", linestyle=style, label=label)
    first = results[0]
    bins = np.geomspace(1, max(first.texts, first.segments) + 1, BINS).round()
    histogram.hist(first.ranks, np.unique(bins), label=DIRECTIONS)
    recall.set(xscale="log", xlabel="k", ylabel="recall at k, %", ylim=(0, 102))
    histogram.set(xscale="log", xlabel=f"rank, {' + '.join(first.experts)}", ylabel="queries")
    for axes in (recall, histogram):
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(f"protocol: {first.protocol}")
    with atomic_file(path) as part:
        figure.savefig(part, format=path.suffix[1:])


def _new_figure() -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("a plot", extra="plot") from error
    return Figure(figsize=(11, 4.5), layout="constrained")

"""Plot the file that `benchmarks/towers.py --out FILE` writes.

    python benchmarks/plot.py FILE FOLDER

The picture is named after the processor's instructions, such as `speed-avx2.png`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import BASE, MAX_TOKENS, VIDEO_BATCHES, VIDEO_TOKENS, video_case
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

COLOURS = {
    BASE: "black",
    "exact": "#2166ac",
    "bfloat16": "#67a9cf",
    "int8": "#41ab5d",
    "ONNX Runtime": "#d9a441",
    "OpenVINO": "#b35806",
    "limit": "#bbbbbb",
}
Rows = dict[str, dict[str, dict[str, Any]]]  # of a case, of a way


def draw_batch(axes: Axes, rows: Rows, size: int) -> None:
    """Videos a second of each way against the valid tokens of each expert."""
    for way, colour in COLOURS.items():
        cases = [rows.get(video_case(size, valid), {}).get(way) for valid in VIDEO_TOKENS]
        rates = [case["items"] / case["median_s"] if case else np.nan for case in cases]
        axes.plot(VIDEO_TOKENS, rates, "o-", color=colour, label=way, markersize=3)
    axes.set_title(f"batch {size}", fontsize=10)
    axes.set_xlabel(f"valid tokens of {MAX_TOKENS}")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(which="both", alpha=0.3)


def draw_ratios(axes: Axes, rows: Rows) -> None:
    """All else, as multiples of the reference."""
    swept = {video_case(size, valid) for size in VIDEO_BATCHES for valid in VIDEO_TOKENS}
    cases = [case for case in rows if case not in swept]
    ways = [way for way in COLOURS if way != BASE]
    height = 0.85 / len(ways)
    places = np.arange(len(cases))
    for number, way in enumerate(ways):
        values = [rows[case].get(way, {}).get("ratio", np.nan) for case in cases]
        axes.barh(places + number * height, values, height, color=COLOURS[way])
    axes.axvline(1, color=COLOURS[BASE], linewidth=0.8)
    axes.set_yticks(places + 0.4, cases)
    axes.invert_yaxis()
    axes.set_xlabel(f"throughput, times that of {BASE}")
    axes.grid(axis="x", alpha=0.3)


def main(source: Path, folder: Path) -> None:
    content = json.loads(source.read_text())
    rows: Rows = {}
    for row in content["rows"]:
        rows.setdefault(row["case"], {})[row["way"]] = row
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.2, 1))
    panels = above.subplots(1, len(VIDEO_BATCHES), sharey=True)
    for axes, size in zip(panels, VIDEO_BATCHES, strict=True):
        draw_batch(axes, rows, size)
    panels[0].set_ylabel("videos a second")
    draw_ratios(below.subplots(), rows)
    handles, labels = panels[0].get_legend_handles_labels()
    below.legend(handles, labels, loc="outside right center", fontsize="small")
    machine = content["machine"]
    features = ", ".join(machine["features"])
    figure.suptitle(
        f"{machine['processor']}, {machine['threads']} threads ({features}); "
        "limit: the matrix products alone, in float32",
        fontsize=9,
    )
    figure.savefig(folder / f"speed-{machine['capability'].lower()}.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

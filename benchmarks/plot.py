"""Draw what `benchmarks/towers.py --out FILE` wrote: `python benchmarks/plot.py FILE OUT.png`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

BASE = "towhee.models"
COLOURS = {
    "exact": "#2166ac",
    "bfloat16": "#67a9cf",
    "int8": "#a6cee3",
    "ONNX Runtime": "#d9a441",
    "OpenVINO": "#b35806",
    "limit": "#bbbbbb",
}


def main(source: Path, out: Path) -> None:
    content = json.loads(source.read_text())
    ratios: dict[str, dict[str, float]] = {}
    for row in content["rows"]:
        ratios.setdefault(row["case"], {})[row["way"]] = row["ratio"]
    figure = Figure(figsize=(10, 0.62 * len(ratios) + 1.6), layout="constrained")
    axes = figure.subplots()
    height = 0.85 / len(COLOURS)
    places = np.arange(len(ratios))
    for number, (way, colour) in enumerate(COLOURS.items()):
        values = [ways.get(way, np.nan) for ways in ratios.values()]
        axes.barh(places + number * height, values, height, color=colour, label=way)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places + 0.4, ratios)
    axes.invert_yaxis()
    axes.set_xlabel(f"throughput, times that of {BASE}; limit: the matrix products alone, float32")
    axes.legend(loc="lower right", fontsize="small")
    axes.grid(axis="x", alpha=0.3)
    machine = content["machine"]
    features = ", ".join(machine["features"])
    axes.set_title(f"{machine['processor']}, {machine['threads']} threads ({features})", fontsize=9)
    out.parent.mkdir(exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

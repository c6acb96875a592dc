"""What `mdmmt demo` prints; tests/sample/test_demo.py runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mdmmt.cli import main
from mdmmt.model import Similarity
from mdmmt.sample import demo


def test_demo_prints_a_table_for_each_query_and_counts_the_right_ones(monkeypatch, capsys):
    by_expert = np.array([[[0.25, 0.5], [0.125, 0.25]]], np.float32)
    similarity = Similarity(by_expert.sum(axis=2), by_expert, ("frame", "sound"))
    clips = [Path("first.mp4"), Path("second.mp4")]
    results = [
        demo.SearchResult("a red ball", 0, [0, 1], similarity),
        demo.SearchResult("a star", 1, [0, 1], similarity),
    ]
    picture = Path("place/found.png")
    done = demo.Demo(clips, np.zeros((2, 384), np.float32), results, picture)
    monkeypatch.setattr(demo, "run", lambda out: done if out == Path("place") else None)
    assert main(["demo", "--out=place"]) == 0
    first, second, last = capsys.readouterr().out.split("\n\n")
    assert first.splitlines() == [
        '"a red ball"',
        "   rank  score  frame  sound  clip",
        "*     1  0.750  0.250  0.500  first.mp4",
        "      2  0.375  0.125  0.250  second.mp4",
    ]
    assert second.splitlines()[3].startswith("*     2")
    assert last.startswith("1 of 2 queries found their clip first among 2.")
    assert last.endswith(f"place: see {picture}\n")

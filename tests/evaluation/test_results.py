"""Results: files, tables and comparisons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluations import make_result

from mdmmt import InputError
from mdmmt.evaluation import (
    compare_results,
    comparison_table,
    intervals,
    read_results,
    summary,
    table,
    write_results,
)
from mdmmt.evaluation.metrics import METRICS


@pytest.fixture
def results():
    return [make_result(0), make_result(1, experts=("frame",))]


def test_read_results_reads_what_write_results_wrote(tmp_path, results):
    path = tmp_path / "results.json"
    write_results(path, results)
    for ours, theirs in zip(read_results(path), results, strict=True):
        np.testing.assert_array_equal(ours.ranks, theirs.ranks)
        assert replace(ours, ranks=theirs.ranks) == theirs


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "3", '[{"protocol": "unique"}]', "\xff", "[" * 99999]
)
def test_read_results_refuses_other_files(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"results.json' holds no results"):
        read_results(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "none.json")


def test_result_has_metrics_and_intervals_of_both_directions(results):
    result = results[0]
    assert result.metrics == {"t2v": summary(result.ranks.t2v), "v2t": summary(result.ranks.v2t)}
    record = result.to_dict()
    assert record["captions"] == 38
    assert record["t2v"] == result.metrics["t2v"]
    assert record["intervals"]["v2t"] == intervals(result.ranks.v2t)
    low, high = record["intervals"]["v2t"]["R@10"]
    assert low <= record["v2t"]["R@10"] <= high
    assert "unique segments against unique captions" in record["protocol_means"]


def test_table_states_the_protocol_and_all_metrics(results):
    results[1] = replace(results[1], empty_segments=4)
    text = table(results)
    assert "protocol: unique (unique segments against unique captions" in text
    assert "38 captions, 30 of them different, of 25 segments" in text
    assert "1 caption lay outside their video and 1 had no video" in text
    assert "experts: frame, sound\n" in text
    assert "experts: frame, nothing in 4 segments\n" in text
    for result in results:
        for direction in ("t2v", "v2t"):
            for name in METRICS:
                assert f"{result.metrics[direction][name]:.2f}" in text
    assert max(map(len, text.split("\n")[2:])) <= 96


def test_compare_results_compares_both_directions(results):
    differences = compare_results(*results)
    for direction in ("t2v", "v2t"):
        difference = differences[direction]["MeanR"]
        assert difference.first == results[0].metrics[direction]["MeanR"]
        assert difference.second == results[1].metrics[direction]["MeanR"]
        assert f"{difference.difference:+.2f}" in comparison_table(differences)


def test_compare_results_refuses_other_queries_and_protocols(results):
    with pytest.raises(InputError, match="differ in their queries"):
        compare_results(results[0], replace(results[1], queries="cd" * 32))
    with pytest.raises(InputError, match="differ in their protocol"):
        compare_results(results[0], replace(results[1], protocol="single"))

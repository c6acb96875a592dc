"""The plot of an evaluation."""

from __future__ import annotations

import sys

import pytest
from evaluations import make_result

from mdmmt import InputError
from mdmmt.errors import MissingDependency
from mdmmt.evaluation import check_plot, plot


@pytest.mark.parametrize(("name", "start"), [("plot.png", b"\x89PNG"), ("plot.svg", b"<?xml")])
def test_plot_writes_the_format_of_the_suffix(tmp_path, name, start):
    plot([make_result(0), make_result(1, experts=("frame",))], tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("function", [check_plot, lambda path: plot([make_result()], path)])
def test_plot_and_its_check_refuse_a_path_that_cannot_be_written(tmp_path, function, monkeypatch):
    with pytest.raises(InputError, match=r"expected a name that ends in \.png"):
        function(tmp_path / "plot.doc")
    with pytest.raises(InputError, match="there is no folder"):
        function(tmp_path / "none" / "plot.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"a plot needs .*'mdmmt\[plot\]'"):
        function(tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())

"""What counts as several texts or videos."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from mdmmt.items import as_items

SEVERAL = {
    "list": ["a", "b"],
    "tuple": ("a", "b"),
    "deque": deque("ab"),
    "iterator": iter("ab"),
    "map": map(str, "ab"),
    "strings": np.array(["a", "b"]),
    "objects": np.array(["a", "b"], dtype=object),
    "column": pandas.Series(["a", "b"], index=[7, 3]),
    "index": pandas.Index(["a", "b"]),
}
ONE = {
    "str": "ab",
    "string of NumPy": np.str_("ab"),
    "bytes": b"ab",
    "path": Path("ab"),
    "dict": {"a": 1},
    "set": {"a", "b"},
    "None": None,
    "number": 3,
    "numbers of NumPy": np.zeros(3),
    "matrix of strings": np.array([["a", "b"]]),
    "string without an axis": np.array("ab"),
    "tensor": torch.zeros(2, 2),
    "table": pandas.DataFrame({"a": [1], "b": [2]}),
}


@pytest.mark.parametrize("value", SEVERAL.values(), ids=SEVERAL)
def test_as_items_lists_what_has_an_order(value):
    assert as_items(value) == ["a", "b"]


@pytest.mark.parametrize("value", ONE.values(), ids=ONE)
def test_as_items_leaves_the_rest(value):
    assert as_items(value) is None

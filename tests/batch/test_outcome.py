"""The loop over many items."""

from __future__ import annotations

import pytest

from mdmmt.batch.outcome import Outcome, run_each
from mdmmt.errors import InputError


def test_run_each_names_errors_and_goes_on():
    def work(item):
        if item == 2:
            raise InputError("2 is refused")
        if item == 3:
            raise RecursionError("unforeseen")
        return item * 10

    items = [("one", 1), ("two", 2), ("three", 3), ("four", 4)]
    assert list(run_each(items, work)) == [
        Outcome("one", 10),
        Outcome("two", None, "2 is refused"),
        Outcome("three", None, "RecursionError: unforeseen"),
        Outcome("four", 40),
    ]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_run_each_yields_what_is_done_before_an_interruption(stop):
    def work(item):
        if item == 2:
            raise stop
        return item

    outcomes = run_each([("a", 1), ("b", 2), ("c", 3)], work)
    assert next(outcomes) == Outcome("a", 1)
    with pytest.raises(stop):
        next(outcomes)


def test_run_each_works_on_one_item_at_a_time():
    begun = []
    outcomes = run_each((("x", i) for i in range(5)), begun.append)
    assert begun == []
    next(outcomes)
    assert begun == [0]

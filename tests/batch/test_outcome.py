"""The loop over many items."""

from __future__ import annotations

import threading
import time

import pytest

from mdmmt.background import check_stop, in_caller
from mdmmt.batch import outcome
from mdmmt.batch.outcome import Outcome, run_each
from mdmmt.errors import InputError


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mdmmt"]


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


@pytest.mark.parametrize("jobs", [2, 3, 7])
def test_run_each_keeps_the_order_of_the_items_for_any_number_of_jobs(jobs):
    def work(item):
        time.sleep(0.02 * (item % 4 == 0))  # later items are done before these
        if item == 5:
            raise InputError("5 is refused")
        return item * 10

    outcomes = list(run_each(((str(i), i) for i in range(12)), work, jobs))
    assert [one.name for one in outcomes] == [str(i) for i in range(12)]
    assert [one.result for one in outcomes] == [None if i == 5 else i * 10 for i in range(12)]
    assert outcomes[5].error == "5 is refused"
    assert not our_threads()


def test_run_each_works_on_as_many_items_as_there_are_jobs():
    lock, now, most = threading.Lock(), [], []
    barrier = threading.Barrier(3)

    def work(item):
        with lock:
            now.append(item)
            most.append(len(now))
        time.sleep(0.05)
        barrier.wait(20)  # a fourth item could not come here, and with two this would fail
        with lock:
            now.remove(item)

    assert all(one.error is None for one in run_each((("x", i) for i in range(9)), work, 3))
    assert max(most) == 3


def test_run_each_begins_few_items_behind_one_that_takes_long(monkeypatch):
    monkeypatch.setattr(outcome, "MAX_WAITING", 4)
    begun, release = [], threading.Event()

    def work(item):
        begun.append(item)
        if item == 0:
            release.wait(20)

    def release_later():
        time.sleep(0.3)
        seen.extend(begun)
        release.set()

    seen = []
    threading.Thread(target=release_later).start()
    assert len(list(run_each((("x", i) for i in range(20)), work, 2))) == 20
    assert sorted(seen) == list(range(6))  # two jobs, four that wait


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_run_each_ends_its_threads_when_one_of_them_ends_the_loop(stop):
    def work(item):
        if item == 2:
            raise stop
        if item == 1:
            while True:
                check_stop()
        return item

    outcomes = run_each((("x", i) for i in (0, 1, 2, 3)), work, 3)
    assert next(outcomes) == Outcome("x", 0)
    with pytest.raises(stop):
        list(outcomes)
    assert not our_threads()


def test_run_each_yields_what_is_done_behind_an_item_that_is_interrupted():
    done = threading.Event()

    def interrupt():
        done.wait(20)
        raise KeyboardInterrupt

    def work(item):
        if item == 1:
            in_caller(interrupt)
        if item == 3:
            done.set()
            while True:
                check_stop()
        return item

    names = "abcde"
    outcomes = run_each(((names[i], i) for i in range(4)), work, 3)
    seen = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(iter(lambda: next(outcomes), None))
    assert seen == [Outcome("a", 0), Outcome("b", None, "interrupted"), Outcome("c", 2)]
    assert not our_threads()


def test_run_each_ends_its_threads_when_its_caller_loses_interest():
    def work(item):
        while item:
            check_stop()

    outcomes = run_each((("x", i) for i in range(9)), work, 3)
    next(outcomes)
    outcomes.close()
    assert not our_threads()


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "2", None])
def test_run_each_refuses_a_wrong_number_of_jobs(jobs):
    with pytest.raises(InputError, match=r"jobs is .*, expected a whole number above 0"):
        run_each([], str, jobs)

"""Threads that work for the thread that starts them."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path

import pytest

from mdmmt.background import Crew, Stopped, ahead, check_stop, in_caller
from mdmmt.errors import warn


def our_threads() -> int:
    return sum(thread.name == "mdmmt" for thread in threading.enumerate())


def wait_until(condition) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


@pytest.mark.parametrize("bound", [1, 2, 5])
def test_ahead_gives_all_items_in_order_and_never_holds_more_than_its_bound(bound):
    made = []

    def items():
        for i in range(40):
            made.append(i)
            yield i

    with ahead(items(), bound) as taken:
        for count, item in enumerate(taken):
            assert item == count
            if count in (0, 7):  # as many as there is room for, and one in the generator's hands
                most = count + 1 + bound + 1
                wait_until(lambda most=most: len(made) == most)
                time.sleep(0.02)
            assert len(made) <= count + 1 + bound + 1
    assert count == 39 and our_threads() == 0


def test_ahead_raises_the_error_of_the_generator_behind_the_items_before_it():
    def items():
        yield 1
        raise OSError("gone")

    seen = []
    with pytest.raises(OSError, match="gone"), ahead(items(), 5) as taken:
        seen.extend(iter(lambda: next(taken), None))
    assert seen == [1] and our_threads() == 0


@pytest.mark.parametrize("wanted", [0, 1, 3])
def test_ahead_closes_the_generator_and_ends_the_thread_when_the_loop_ends_early(wanted):
    closed = []

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    with pytest.raises(KeyboardInterrupt), ahead(items(), 2) as taken:
        for _ in range(wanted):
            next(taken)
        raise KeyboardInterrupt
    assert our_threads() == 0
    assert closed in ([], ["mdmmt"])  # a generator that has not begun has nothing to close


def test_check_stop_ends_a_thread_that_puts_nothing_for_long():
    def items():
        yield 1
        while True:
            check_stop()

    with ahead(items(), 2) as taken:
        assert next(taken) == 1
    assert our_threads() == 0
    check_stop()  # in a thread of no crew it does nothing


def test_in_caller_runs_in_the_thread_that_opened_the_outermost_crew():
    here = threading.current_thread()

    def inner():
        yield in_caller(threading.current_thread)
        with pytest.raises(KeyError):
            in_caller({}.popitem)

    def outer():
        with ahead(inner(), 1) as taken:
            yield from taken

    with ahead(outer(), 1) as taken:
        assert list(taken) == [here]
    assert in_caller(threading.current_thread) is here


def test_ctrl_c_in_a_call_ends_the_thread_that_waits_for_it():
    def interrupt():
        raise KeyboardInterrupt

    ended = []

    def work():
        try:
            in_caller(interrupt)
        except Stopped:
            ended.append(True)
            raise

    with pytest.raises(KeyboardInterrupt), Crew(1) as crew:
        crew.start(work)
        crew.get()
    assert ended == [True] and our_threads() == 0


def test_a_stop_reaches_threads_of_threads_and_calls_that_wait():
    begun = threading.Event()

    def inner():
        begun.set()
        while True:
            check_stop()
            yield from ()

    def outer():
        with ahead(inner(), 1) as taken:
            list(taken)

    with Crew(1) as crew:
        crew.start(outer)
        crew.start(lambda: in_caller(lambda: None))
        begun.wait(20)
        assert our_threads() == 3
    assert our_threads() == 0


def test_warn_in_a_thread_points_at_the_callers_line():
    def items():
        warn("the first")
        yield 1

    with warnings.catch_warnings(record=True) as caught, ahead(items(), 1) as taken:
        warnings.simplefilter("always")
        list(taken)
    (one,) = caught
    line = Path(one.filename).read_text().splitlines()[one.lineno - 1]
    assert Path(one.filename).name == "test_background.py" and "list(taken)" in line


def test_a_warning_that_is_an_error_is_raised_where_it_is_made_and_at_the_caller():
    made = []

    def items():
        try:
            warn("no")
        except UserWarning as error:
            made.append(error)
            raise
        yield 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="no") as caught, ahead(items(), 1) as taken:
            list(taken)
    assert made == [caught.value]

"""Threads that work for the thread that starts them.

A thread puts what it makes into a queue of bounded length, and waits while the queue is full. What
must not run beside other work goes back through the same queue, see `in_caller`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from typing import Any, Generic, NamedTuple, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")

_this_thread = threading.local()  # `crew`: the crew of which this thread is one


class Stopped(BaseException):
    """The work of this thread is not wanted any more."""


class _Call(NamedTuple):
    """A call that a thread leaves to the thread it works for."""

    function: Callable[[], Any]
    reply: Future[Any]

    def run(self) -> None:
        try:
            self.reply.set_result(self.function())
        except Exception as error:
            self.reply.set_exception(error)
        except BaseException:
            self.reply.set_exception(Stopped())
            raise


class Crew(Generic[Item]):
    """Threads that hand items to the thread that opened the crew by `with`.

    All threads have ended when the `with` statement ends. They are asked to: a thread sees it where
    it puts an item, leaves a call to the caller, or calls `check_stop`.
    """

    def __init__(self, bound: int) -> None:
        """
        Args:
            bound: how many items may wait.
        """
        self._bound = bound
        self._above = _crew()  # that the opening thread itself works in
        self._queue: deque[Item | _Call] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Crew[Item]:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            for entry in self._queue:
                if isinstance(entry, _Call):
                    entry.reply.set_exception(Stopped())
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def start(self, work: Callable[[], None]) -> None:
        """Let a new thread do this work, which hands over its errors by itself."""

        def run() -> None:
            _this_thread.crew = self
            with suppress(Stopped):
                work()

        self._threads = [thread for thread in self._threads if thread.is_alive()]
        # Threads of a generator that nobody closes must not keep the process from its end.
        thread = threading.Thread(target=run, name="mdmmt", daemon=True)
        self._threads.append(thread)
        thread.start()

    def put(self, item: Item | _Call) -> None:
        """Hand an item over, as soon as there is room for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._queue) < self._bound)
            if self._is_closed:
                raise Stopped
            self._queue.append(item)
            self._changed.notify_all()

    def get(self) -> Item:
        """Take the next item, as soon as there is one. Calls that come before it are run."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                entry = self._queue.popleft()
                self._changed.notify_all()
            if not isinstance(entry, _Call):
                return entry
            entry.run()

    def call(self, function: Callable[[], Result]) -> Result:
        """Leave a call to the thread that opened the crew, and return or raise what it does."""
        call = _Call(function, Future())
        self.put(call)
        return cast(Result, call.reply.result())

    def is_stopped(self) -> bool:
        """Whether this crew is closed, or one above it."""
        return self._is_closed or (self._above is not None and self._above.is_stopped())


def in_caller(function: Callable[[], Result]) -> Result:
    """Call a function in the thread that opened this crew and all crews above it: the caller's own.

    Networks run there: one at a time, with the memory and the threads of one, so that they give the
    same bits however many files are read at once, and Ctrl-C interrupts them. Warnings are emitted
    there, since only there does the stack show the caller's line.
    """
    crew = _crew()
    return function() if crew is None else crew.call(lambda: in_caller(function))


def check_stop() -> None:
    """End this thread's work if it is not wanted any more. Long loops call it."""
    crew = _crew()
    if crew is not None and crew.is_stopped():
        raise Stopped


@contextmanager
def ahead(items: Generator[Item, None, None], bound: int) -> Iterator[Iterator[Item]]:
    """Run a generator in a thread of its own, ahead of the loop that takes its items.

    Args:
        items: the generator, which is closed at the end.
        bound: how many items may wait; one more may be in the generator's hands.
    """
    crew: Crew[Item | _End] = Crew(bound)
    with crew:

        def work() -> None:
            end = _End(None)
            try:
                with closing(items):
                    for item in items:
                        crew.put(item)
            except BaseException as error:  # it is raised in the loop
                end = _End(error)
            crew.put(end)

        def taken() -> Iterator[Item]:
            while not isinstance(item := crew.get(), _End):
                yield item
            if item.error is not None:
                raise item.error

        crew.start(work)
        yield taken()


class _End(NamedTuple):
    """The end of a generator, and the error that ended it."""

    error: BaseException | None


def _crew() -> Crew[Any] | None:
    return getattr(_this_thread, "crew", None)

"""The one loop over many items: an item that fails is named, and stops no other.

The loop yields each outcome as soon as it and those before it are known. A caller that stores
outcomes as they come keeps them if the run is interrupted, and can leave those items out of the
next run. Of several jobs, Ctrl-C loses those under way: what is finished behind them is yielded
before the interruption goes on to the caller.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from ..background import Crew
from ..errors import InputError, describe_error

MAX_WAITING = 64  # outcomes that wait for that of an earlier item, which takes longer
INTERRUPTED = "interrupted"  # the error of an item that Ctrl-C has interrupted

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """The outcome of one item: a result, or the reason why there is none."""

    name: str  # of the item
    result: Result | None
    error: str | None = None


def run_each(
    items: Iterable[tuple[str, Item]], work: Callable[[Item], Result], jobs: int = 1
) -> Iterator[Outcome[Result]]:
    """Call `work` with each item; yield the outcomes in the order of the items.

    Args:
        items: the name of each item, and the item.
        work: may raise any exception; KeyboardInterrupt and SystemExit end the loop.
        jobs: how many items are worked on at once. If there are several, `work` runs in threads,
            which leave some calls to the calling thread, see `mdmmt.background.in_caller`.

    Raises:
        InputError: `jobs` is not a whole number above 0.
    """
    if not isinstance(jobs, int) or jobs < 1:
        raise InputError(f"jobs is {jobs!r}, expected a whole number above 0")
    return _one_by_one(items, work) if jobs == 1 else _side_by_side(items, work, jobs)


def _one_by_one(
    items: Iterable[tuple[str, Item]], work: Callable[[Item], Result]
) -> Iterator[Outcome[Result]]:
    for name, item in items:
        yield _outcome(name, item, work)


def _outcome(name: str, item: Item, work: Callable[[Item], Result]) -> Outcome[Result]:
    start_s = time.monotonic()
    try:
        result = work(item)
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        logger.debug("%s could not be used", name, exc_info=True)
        return Outcome(name, None, describe_error(error))
    logger.debug("%s took %.1f seconds", name, time.monotonic() - start_s)
    return Outcome(name, result)


@dataclass(eq=False)
class _Place(Generic[Result]):
    """The place of an item in the order, from its beginning until its outcome is yielded."""

    name: str
    outcome: Outcome[Result] | None = None
    stop: BaseException | None = None  # which ends the loop


def _side_by_side(
    items: Iterable[tuple[str, Item]], work: Callable[[Item], Result], jobs: int
) -> Iterator[Outcome[Result]]:
    places: deque[_Place[Result]] = deque()
    crew: Crew[_Place[Result]] = Crew(jobs)

    def begin(name: str, item: Item) -> None:
        def run() -> None:
            try:
                place.outcome = _outcome(name, item, work)
            except BaseException as error:
                place.stop = error
            crew.put(place)

        place: _Place[Result] = _Place(name)
        places.append(place)
        crew.start(run)

    left = iter(items)
    try:
        with crew:
            while True:
                free = jobs - sum(place.outcome is None for place in places)
                room = jobs + MAX_WAITING - len(places)
                for name, item in islice(left, min(free, room)):
                    begin(name, item)
                if not places:
                    return
                if (stop := crew.get().stop) is not None:
                    raise stop
                while places and (outcome := places[0].outcome) is not None:
                    places.popleft()
                    yield outcome
    except KeyboardInterrupt:
        while any(place.outcome for place in places):
            place = places.popleft()
            yield place.outcome or Outcome(place.name, None, INTERRUPTED)
        raise

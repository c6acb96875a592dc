"""The one loop over many items: an item that fails is named, and stops no other.

The loop yields each outcome as soon as it is known. A caller that stores outcomes as they come
keeps them if the run is interrupted, and can leave those items out of the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import describe_error

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """The outcome of one item: a result, or the reason why there is none."""

    name: str  # of the item
    result: Result | None
    error: str | None = None


def run_each(
    items: Iterable[tuple[str, Item]], work: Callable[[Item], Result]
) -> Iterator[Outcome[Result]]:
    """Call `work` with one item after the other.

    Args:
        items: the name of each item, and the item.
        work: may raise any exception; KeyboardInterrupt and SystemExit end the loop.
    """
    for name, item in items:
        try:
            result = work(item)
        except Exception as error:  # a damaged file makes decoders raise nearly anything
            yield Outcome(name, None, describe_error(error))
        else:
            yield Outcome(name, result)

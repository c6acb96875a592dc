"""The bounds of files, so that no header can ask for the memory or the time of the machine.

docs/limits.md lists them.
"""

from __future__ import annotations

import os
import time
from numbers import Real

from ..errors import InputError

MAX_PIXELS = 1 << 26  # of one picture: 8192 x 8192
MAX_ASPECT = 100  # the longer side of a picture by the shorter one
MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 1_000, 384_000
MAX_STREAMS = 512  # of a file; each costs memory and time, more so with a large picture
MAX_GAP_S = 120  # for which a frame is repeated
TIME_LIMIT_S = 12 * 3600.0  # for one file, with the experts' work


class BoundError(Exception):
    """A picture or sound is beyond a bound. The message is a part of a sentence."""


def check_picture(width: int, height: int) -> None:
    """Raise unless pictures of this size are within the bounds.

    Raises:
        BoundError: naming the bound.
    """
    if width * height > MAX_PIXELS:
        raise BoundError(
            f"its picture is {width} x {height} pixels, expected at most {MAX_PIXELS} pixels"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BoundError(
            f"its picture is {width} x {height} pixels, expected sides of which the longer one is "
            f"at most {MAX_ASPECT} times the shorter one"
        )


def check_sample_rate(rate_hz: int) -> None:
    """Raise unless sound of this rate is within the bounds.

    Raises:
        BoundError: naming the bounds.
    """
    if not MIN_SAMPLE_RATE_HZ <= rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise BoundError(
            f"its sound has {rate_hz} samples a second, expected {MIN_SAMPLE_RATE_HZ} to "
            f"{MAX_SAMPLE_RATE_HZ}"
        )


def check_time_limit(seconds: float) -> None:
    """Raise an InputError unless these seconds can be the time limit of a file; inf is no limit."""
    if not isinstance(seconds, Real) or not seconds > 0:
        raise InputError(f"the time limit of a file is {seconds!r}, expected seconds above 0")


class TimeLimit:
    """The time limit of one file, which begins now."""

    def __init__(self, path: str | os.PathLike[str], seconds: float) -> None:
        self._path = os.fspath(path)
        self._seconds = seconds
        self._end_s = time.monotonic() + seconds

    def check(self) -> None:
        """Raise an InputError if the time is over."""
        if time.monotonic() > self._end_s:
            raise InputError(
                f"{self._path!r} takes more than {self._seconds:g} seconds, which is the time "
                "limit of one file; expected a shorter file, or a longer time limit"
            )

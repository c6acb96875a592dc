"""Errors and warnings of this package. Each message is one sentence that says what to do."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .background import in_caller

PACKAGE_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


class MdmmtError(Exception):
    """Base class of all errors that this package raises on purpose."""


class InputError(MdmmtError, ValueError):
    """The caller's text, video, features or option cannot be used."""


class InputTypeError(InputError, TypeError):
    """The caller's argument has the wrong type."""


class WeightsError(MdmmtError, ValueError):
    """A weights file or model folder is missing, cannot be read, or does not fit the model."""


class MissingDependency(MdmmtError, ImportError):
    """A package that a feature needs is not installed.

    Args:
        feature: the feature that needs the package, as the subject of the message.
        extra: the extra of this package that installs it; None: it comes without extras.
    """

    def __init__(self, feature: str, extra: str | None) -> None:
        install = "mdmmt" if extra is None else f"'mdmmt[{extra}]'"
        super().__init__(f"{feature} needs packages that are not installed: pip install {install}")


def describe_error(error: BaseException) -> str:
    """Describe an error to a person: an `OSError` without its number, a bug with its type."""
    if not isinstance(error, MdmmtError | OSError):
        return f"{type(error).__name__}: {error}"
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = error.filename2 or error.filename  # filename2 is the target of a rename
    return error.strerror if name is None else f"{str(name)!r}: {error.strerror}"


def warn(message: str) -> None:
    """Emit a `UserWarning` that points to the line which called this package.

    A callback may lie between: the outermost frame of the package counts.
    """
    in_caller(lambda: _warn(message))


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Give the messages that `warn` gets for this thread, which then emits no warnings."""
    messages: list[str] = []
    token = _collected.set(messages)
    try:
        yield messages
    finally:
        _collected.reset(token)


def _warn(message: str) -> None:
    if (collected := _collected.get()) is not None:
        collected.append(message)
        return
    level, own, frame = 1, 1, sys._getframe()
    while frame.f_back is not None:
        level, frame = level + 1, frame.f_back
        if os.path.abspath(frame.f_code.co_filename).startswith(PACKAGE_FOLDER):
            own = level
    warnings.warn(message, stacklevel=own + 1)

"""The errors this package raises on purpose; each message is one sentence that says what to do."""

from __future__ import annotations


class InputError(ValueError):
    """What the caller gave cannot be used: a text, a video, features or an option."""


class InputTypeError(InputError, TypeError):
    """What the caller gave is of the wrong type altogether."""


class WeightsError(ValueError):
    """A weights file or model folder cannot be found, read, or does not fit the model."""


def said(error: Exception) -> str:
    """What an error says to a person; the system's own are put without their number."""
    if not isinstance(error, InputError | WeightsError | OSError):
        return f"{type(error).__name__}: {error}"  # none that anybody foresaw
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = error.filename2 or error.filename  # what was to be replaced, not what by
    return error.strerror if name is None else f"{str(name)!r}: {error.strerror}"

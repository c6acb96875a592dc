"""The errors this package raises on purpose; each message is one sentence that says what to do."""

from __future__ import annotations

import os


class InputError(ValueError):
    """What the caller gave cannot be used: a text, a video, features or an option."""


class InputTypeError(InputError, TypeError):
    """What the caller gave is of the wrong type altogether."""


class WeightsError(ValueError):
    """A weights file or model folder cannot be found, read, or does not fit the model."""


def said(error: Exception) -> str:
    """What an error says to a person; the system's own are put without their number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)!r}: {error.strerror}"
    return str(error)

"""The fast path: the towers of `mdmmt` for inference, on tokens packed without padding."""

from .linear import PRECISIONS, check_precision, resolve_precision
from .towers import FastTextTower, FastVideoTower

__all__ = [
    "PRECISIONS",
    "FastTextTower",
    "FastVideoTower",
    "check_precision",
    "resolve_precision",
]

"""The fast path: the towers of `mdmmt` for inference, on tokens packed without padding."""

from .precision import PRECISIONS, resolve_precision
from .towers import FastTextTower, FastVideoTower

__all__ = ["PRECISIONS", "FastTextTower", "FastVideoTower", "resolve_precision"]

"""The fast path: the towers of `mdmmt` for inference, on tokens packed without padding."""

from .precision import resolve_precision
from .towers import FastTextTower, FastVideoTower

__all__ = ["FastTextTower", "FastVideoTower", "resolve_precision"]

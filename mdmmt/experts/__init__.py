"""The experts: pretrained networks and hand-made rules that turn clips into features."""

from ..config import ExpertPrecision
from ..media.specs import AudioSpec, FrameSpec
from .base import Expert, WeightsSource
from .registry import LIGHT_EXPERTS, PRETRAINED_EXPERTS, expert_classes, load

__all__ = [
    "LIGHT_EXPERTS",
    "PRETRAINED_EXPERTS",
    "AudioSpec",
    "Expert",
    "ExpertPrecision",
    "FrameSpec",
    "WeightsSource",
    "expert_classes",
    "load",
]

"""The experts by name. The module of an expert is imported when the expert is first asked for.

A new expert is a file in this folder and a line in one of the two tables below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module

import torch

from ..errors import InputError
from .base import Expert, WeightsSource

# Name -> class and its module in this folder. The order is that of the features' documentation.
_LIGHT = {  # computed by hand-made rules; the sample model uses them
    "frame": "frame.FrameExpert",
    "motion": "motion.MotionExpert",
    "sound": "sound.SoundExpert",
}
_PRETRAINED = {  # the networks whose features the released model takes
    "VIDEO": "ircsn.VideoExpert",
    "CLIP": "clip.ClipExpert",
    "tf_vggish": "vggish.VggishExpert",
}
LIGHT_EXPERTS = tuple(_LIGHT)
PRETRAINED_EXPERTS = tuple(_PRETRAINED)


def load(
    names: Sequence[str],
    weights: WeightsSource | Mapping[str, WeightsSource] | None = None,
    device: str | torch.device = "cpu",
    precision: str = "exact",
) -> dict[str, Expert]:
    """Load experts by name, ready to run on any number of files.

    Args:
        names: some of `LIGHT_EXPERTS` and `PRETRAINED_EXPERTS`.
        weights: one folder with the weights of all pretrained experts; or for each of them, by
            name, a file, a folder or a Hugging Face repository. None: the places that
            `mdmmt.experts.pretrained` lists.
        device: where the pretrained experts run.
        precision: 'exact', which is float32; 'float16', for CUDA: VIDEO and CLIP then compute in
            it; or 'int8', for x86 processors with AVX512-VNNI and the extra `openvino`: VIDEO then
            computes most of its products in 8 bits. The other experts are exact in all.

    Raises:
        InputError: an unknown expert in `names` or `weights`, or a precision that is unknown or
            that the device lacks.
        MissingDependency: the precision needs an extra that is not installed.
        WeightsError: weights are missing or do not fit their expert.
    """
    if not isinstance(weights, Mapping):
        weights = {} if weights is None else dict.fromkeys(PRETRAINED_EXPERTS, weights)
    _check_names((*names, *weights))
    return {
        name: expert_class.load(weights.get(name), device, precision)
        for name, expert_class in expert_classes(names).items()
    }


def expert_classes(names: Iterable[str]) -> dict[str, type[Expert]]:
    """Return the classes of experts by name; nothing is loaded.

    Raises:
        InputError: an unknown expert.
    """
    names = tuple(names)
    _check_names(names)
    return {name: _import_class(name) for name in names}


def _check_names(names: Iterable[str]) -> None:
    classes = _LIGHT | _PRETRAINED
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise InputError(
            f"{', '.join(map(repr, unknown))} cannot be run by this package, "
            f"which has the experts {', '.join(classes)}"
        )


def _import_class(name: str) -> type[Expert]:
    module, class_name = (_LIGHT | _PRETRAINED)[name].split(".")
    expert_class: type[Expert] = getattr(import_module(f".{module}", __package__), class_name)
    return expert_class

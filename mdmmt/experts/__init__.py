"""The experts by name, and a video file -> what each of them says of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from .base import AudioInput, Expert, FrameInput
from .clip import ClipExpert
from .frame import FrameExpert
from .motion import MotionExpert
from .pretrained import PretrainedExpert, Source
from .sound import SoundExpert
from .vggish import VggishExpert
from .video import VideoExpert

# Those made by hand, which the sample model has, and those of the released model.
EXPERTS: dict[str, type[Expert]] = {
    expert.name: expert for expert in (FrameExpert, MotionExpert, SoundExpert)
}
PRETRAINED: dict[str, type[PretrainedExpert]] = {
    expert.name: expert for expert in (VideoExpert, ClipExpert, VggishExpert)
}
BATCH_SIZE = 16  # clips an expert is given at once, and at most so many are held in memory


def load(
    names: Sequence[str],
    weights: Source | Mapping[str, Source] | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Expert]:
    """Experts by name, ready to run on any number of files.

    Args:
        names: in `EXPERTS` and `PRETRAINED`.
        weights: of the pretrained ones: a folder for all of them; or for each by name a file, a
            folder or a Hugging Face repository. None: see `mdmmt.experts.pretrained`.
        device: where the pretrained ones run.

    Raises:
        InputError: an unknown expert, among the names or in `weights`.
        WeightsError: weights that are not there, or not those of that expert.
    """
    known = EXPERTS | PRETRAINED
    if not isinstance(weights, Mapping):
        weights = dict.fromkeys(PRETRAINED, weights)
    unknown = [name for name in (*names, *weights) if name not in known]
    if unknown:
        raise InputError(
            f"{', '.join(unknown)} cannot be run by this package, "
            f"which has the experts {', '.join(known)}"
        )
    return {name: known[name].load(weights.get(name), device) for name in names}


def extract(
    path: str | os.PathLike[str], experts: Sequence[str] | Mapping[str, Expert]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """Run experts on one video file, which is read once for all of them.

    Args:
        path: any file that FFmpeg reads.
        experts: from `load`; or names, to load them for this file alone.

    Returns:
        for each expert features (n, dim) float32 and times (n, 2) float64, the start and end of
        each in seconds. Experts that found nothing, as `sound` in a silent film, are not in it.

    Raises:
        InputError: an unknown expert, or a file in which there is neither picture nor sound.
        WeightsError: see `load`.
    """
    from ..media import read_clips  # imports PyAV, which those who only embed features can spare

    running = experts if isinstance(experts, Mapping) else load(experts)
    waiting: dict[str, list[NDArray]] = {name: [] for name in experts}
    features: dict[str, list[NDArray[np.float32]]] = {name: [] for name in experts}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in experts}

    def run(name: str) -> None:
        features[name].append(running[name].features(np.stack(waiting[name])))
        waiting[name].clear()

    for clip in read_clips(path, {name: expert.wants for name, expert in running.items()}):
        waiting[clip.name].append(clip.data)
        times[clip.name].append((clip.start_s, clip.end_s))
        if len(waiting[clip.name]) == BATCH_SIZE:
            run(clip.name)
    for name in experts:
        if waiting[name]:
            run(name)
    return {
        name: (np.concatenate(features[name]), np.array(times[name]))
        for name in experts
        if features[name]
    }


__all__ = ["EXPERTS", "PRETRAINED", "AudioInput", "Expert", "FrameInput", "extract", "load"]

"""The experts by name, and a video file -> what each of them says of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..media.specs import AudioSpec, FrameSpec
from .base import Expert, Extracted, WeightsSource
from .registry import LIGHT_EXPERTS, PRETRAINED_EXPERTS, expert_classes, load

if TYPE_CHECKING:
    from ..media.specs import Clip

BATCH_SIZE = 16  # clips an expert is given at once, and at most so many are held in memory


def extract(
    video: str | os.PathLike[str] | Iterable[Any],
    experts: Sequence[str] | Mapping[str, Expert],
    start_s: float = 0.0,
    end_s: float = math.inf,
) -> Extracted:
    """Run experts on one video, which is read once for all of them.

    Args:
        video: any file that FFmpeg reads; or the frames of Towhee's video decoders, in the order
            of time, of which experts for sound make nothing.
        experts: from `load`; or names, to load them for this video alone.
        start_s, end_s: what of the video is wanted, in seconds. Given is at least what
            `mdmmt.features.segments.select` takes for it, with the times in the whole video; what
            else is found on the way may be left out.

    Returns:
        for each expert features (n, dim) float32 and times (n, 2) float64, the start and end of
        each in seconds. Experts that found nothing, as `sound` in a silent film, are not in it.

    Raises:
        InputError: an unknown expert, or a file in which there is neither picture nor sound.
        WeightsError: see `load`.
    """
    # These import PyAV, which those who only embed features can spare.
    from ..media.decode import read_clips
    from ..media.towhee_frames import read_frames

    running = experts if isinstance(experts, Mapping) else load(experts)
    specs = {name: expert.spec for name, expert in running.items()}
    waiting: dict[str, list[NDArray]] = {name: [] for name in running}
    features: dict[str, list[NDArray[np.float32]]] = {name: [] for name in running}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in running}

    def run(name: str) -> None:
        features[name].append(running[name].features(np.stack(waiting[name])))
        waiting[name].clear()

    if isinstance(video, str | os.PathLike):
        clips = read_clips(video, specs, end_s)
    else:
        clips = read_frames(video, specs)
    for clip in _from(start_s, clips):
        waiting[clip.name].append(clip.data)
        times[clip.name].append((clip.start_s, clip.end_s))
        if len(waiting[clip.name]) == BATCH_SIZE:
            run(clip.name)
    for name in running:
        if waiting[name]:
            run(name)
    return {
        name: (np.concatenate(features[name]), np.array(times[name]))
        for name in running
        if features[name]
    }


def _from(start_s: float, clips: Iterable[Clip]) -> Iterator[Clip]:
    """Leave out what ends before the start; an expert that has nothing else keeps its last."""
    before: dict[str, Clip | None] = {}
    for clip in clips:
        if clip.end_s < start_s:
            before[clip.name] = clip
        else:
            before[clip.name] = None
            yield clip
    yield from (clip for clip in before.values() if clip is not None)


__all__ = [
    "LIGHT_EXPERTS",
    "PRETRAINED_EXPERTS",
    "AudioSpec",
    "Expert",
    "Extracted",
    "FrameSpec",
    "WeightsSource",
    "expert_classes",
    "extract",
    "load",
]

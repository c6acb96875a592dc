"""Experts on one video: a file or frames in, the features of each expert out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..background import ahead, in_caller
from ..errors import InputError
from ..experts import Expert
from ..experts import load as load_experts
from ..media.limits import TIME_LIMIT_S, TimeLimit, check_time_limit
from ..media.specs import CLOCKS, Clip, Clock
from .types import ExpertFeatures, VideoFeatures

BATCH_SIZE = 16  # clips that an expert gets at once, if they are small
BATCH_BYTES = 1 << 24  # of the clips of a batch, unless an expert computes more at once
BATCHES_AHEAD = 2  # that wait while the experts work on one, and the file is decoded for the next

Watch = Callable[[str, float], None]
_watches: list[Watch] = []


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Have a function called as videos are read, with a path and how many more seconds are done.

    It is called in the thread in which the experts work.
    """
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.remove(watch)


def extract(
    video: str | os.PathLike[str] | Iterable[NDArray[np.uint8]],
    experts: Sequence[str] | Mapping[str, Expert],
    start_s: float = 0.0,
    end_s: float = math.inf,
    time_limit_s: float = TIME_LIMIT_S,
    *,
    clock: Clock = "file",
    max_features: Mapping[str, int] | None = None,
) -> VideoFeatures:
    """Run experts on one video, which is read once for all of them.

    Args:
        video: the path of any file that FFmpeg reads; or the frames of Towhee's video decoders,
            in the order of time, from which experts for sound make nothing.
        experts: from `mdmmt.experts.load`; or names, to load them for this video alone.
        start_s, end_s: the wanted part of the video, in seconds.
        time_limit_s: how long a file may take. Frames may take as long as they like.
        clock: 'file' counts the seconds of picture and sound from the start of the file, as a
            player does. 'track' gives the times of MDMMT's authors, by which sound begins at 0
            even if it sets in late, and a last clip has its full length.
        max_features: how many features an expert makes at most, by its name. None: any number.

    Returns:
        a superset of what `mdmmt.features.segments.select` needs for that part, with times
        relative to the whole video. An expert that makes no features, such as `sound` in a silent
        film, is left out.

    Raises:
        InputError: an unknown expert or clock, a time limit that is not above 0, a file with
            neither picture nor sound, or one that takes too long.
        WeightsError: see `mdmmt.experts.load`.
    """
    # These import PyAV, which programs that only embed features do without.
    from ..media.decode import read_clips
    from ..media.towhee_frames import read_frames

    if clock not in CLOCKS:
        raise InputError(f"clock is {clock!r}, expected {' or '.join(map(repr, CLOCKS))}")
    check_time_limit(time_limit_s)
    running = experts if isinstance(experts, Mapping) else load_experts(experts)
    specs = {name: expert.spec for name, expert in running.items()}
    values: dict[str, list[NDArray[np.float32]]] = {name: [] for name in running}
    times_s: dict[str, list[tuple[float, float]]] = {name: [] for name in running}

    reached_s = start_s

    def run(batch: _Batch) -> None:
        nonlocal reached_s
        values[batch.name].append(running[batch.name].features(batch.clips))
        times_s[batch.name].extend(batch.times_s)
        before_s, reached_s = reached_s, max(reached_s, batch.times_s[-1][1])
        if isinstance(video, str | os.PathLike) and reached_s > before_s:
            for watch in _watches:
                watch(os.fspath(video), reached_s - before_s)

    if isinstance(video, str | os.PathLike):
        time_limit = TimeLimit(video, time_limit_s)
        clips = read_clips(video, specs, end_s, time_limit_s, clock, max_features)
        with ahead(_batches(_from(start_s, clips), running), BATCHES_AHEAD) as batches:
            for batch in batches:
                time_limit.check()
                in_caller(partial(run, batch))
    else:  # frames may come from a decoder that serves one thread alone
        for batch in _batches(_from(start_s, read_frames(video, specs, clock)), running):
            run(batch)
    return {
        name: ExpertFeatures(np.concatenate(values[name]), np.array(times_s[name]))
        for name in running
        if values[name]
    }


class _Batch(NamedTuple):
    """Clips of one expert that it gets at once."""

    name: str  # of the expert
    clips: NDArray[Any]  # see `Expert.features`
    times_s: list[tuple[float, float]]  # start and end of each


def _batches(clips: Iterator[Clip], running: Mapping[str, Expert]) -> Generator[_Batch, None, None]:
    waiting: dict[str, list[Clip]] = {}

    def batch(name: str) -> _Batch:
        some = waiting.pop(name)
        data = np.stack([clip.data for clip in some])
        return _Batch(name, data, [(clip.start_s, clip.end_s) for clip in some])

    for clip in clips:
        waiting.setdefault(clip.name, []).append(clip)
        small = min(BATCH_SIZE, BATCH_BYTES // clip.data.nbytes)
        at_once = running[clip.name].clips_at_once
        if len(waiting[clip.name]) >= max(small // at_once, 1) * at_once:
            yield batch(clip.name)
    for name in tuple(waiting):
        yield batch(name)


def _from(start_s: float, clips: Iterable[Clip]) -> Iterator[Clip]:
    """Skip clips that end before the start. An expert without any other keeps its last one."""
    last: dict[str, Clip | None] = {}
    for clip in clips:
        if clip.end_s < start_s:
            last[clip.name] = clip
        else:
            last[clip.name] = None
            yield clip
    yield from (clip for clip in last.values() if clip is not None)

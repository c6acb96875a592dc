"""How long a run over many videos takes, from their headers and a measurement of one of them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..experts import Expert
from ..features.extraction import extract
from ..features.files import SUFFIX, read_header, versions_of
from ..media.specs import Clock
from .outcome import run_each

MAX_HEADERS = 200  # that are read; the seconds of more videos follow from their sizes
MEASURED_S = 32.0  # of the video that is measured
FILE_BYTES = 1500  # of a feature file beside its numbers


def seconds_of(paths: Iterable[str], at_most_s: float = math.inf) -> dict[str, float]:
    """The seconds of each video by its header, and 0 for what is no video.

    If there are more than `MAX_HEADERS`, those of some are read, and the others are taken to have
    as many seconds for each byte.

    Args:
        at_most_s: how much of a video counts.
    """
    from ..media.opening import header_duration_s  # imports PyAV

    sizes = {path: _size(path) for path in paths if Path(path).suffix != SUFFIX}
    read = list(sizes)[:: math.ceil(len(sizes) / MAX_HEADERS) or 1]
    seconds = {path: header_duration_s(path) for path in read}
    known = {path: one for path, one in seconds.items() if one is not None}
    by_byte = sum(known.values()) / max(1, sum(sizes[path] for path in known))
    guessed = {path: size * by_byte for path, size in sizes.items() if path not in seconds}
    return {path: min(one, at_most_s) for path, one in (known | guessed).items()}


class Estimate(NamedTuple):
    """What a run would take."""

    videos: int  # whose features are missing
    seconds: float  # of these videos
    unreadable: int  # of them, whose headers tell no duration
    measured: str  # the video that was measured
    speed: float  # seconds of video a second
    size_bytes: int  # of the new features

    @property
    def time_s(self) -> float:
        """The seconds that the run takes, without those in which the experts are loaded."""
        return self.seconds / self.speed


def estimate_extraction(
    planned: Mapping[Path, Path],
    running: Mapping[str, Expert],
    clock: Clock = "file",
    jobs: int = 1,
) -> Estimate | None:
    """Estimate what `extract_files` takes with the same arguments; nothing is written.

    The beginning of the longest video is extracted, as many times at once as there are jobs.

    Returns:
        None if there is nothing to do.

    Raises:
        InputError: none of the videos has a duration; or the one that is measured cannot be read.
    """
    missing = [
        os.fspath(video)
        for file, video in planned.items()
        if not _seems_complete(file, video, running, clock)
    ]
    if not missing:
        return None
    seconds = seconds_of(missing)
    longest = max(seconds, key=lambda path: seconds[path], default=None)
    if longest is None or seconds[longest] == 0:
        raise InputError("no header of these videos tells a duration, so no time can be estimated")
    extract(longest, running, end_s=1.0)  # the first time takes longer

    def measure(video: str) -> tuple[float, int]:
        features = extract(video, running, end_s=MEASURED_S, clock=clock)
        ends_s = [float(one.times_s[-1, 1]) for one in features.values()]
        size = sum(one.values.nbytes + one.times_s.nbytes for one in features.values())
        return max(ends_s, default=0.0), size

    begun_s = time.perf_counter()
    outcomes = list(run_each([(longest, longest)] * jobs, measure, jobs))
    took_s = time.perf_counter() - begun_s
    done = [outcome.result for outcome in outcomes if outcome.result is not None]
    measured_s = sum(end_s for end_s, _ in done)
    if not measured_s:
        raise InputError(f"{longest!r} cannot be measured: {outcomes[0].error or 'no features'}")
    total_s = sum(seconds.values())
    size = sum(size for _, size in done) * total_s / measured_s + FILE_BYTES * len(missing)
    return Estimate(
        len(missing),
        total_s,
        len(missing) - len(seconds),
        longest,
        measured_s / took_s,
        round(size),
    )


def _seems_complete(file: Path, video: Path, running: Mapping[str, Expert], clock: Clock) -> bool:
    """Whether a feature file has all features of a video of this size."""
    try:
        header = read_header(file)
    except InputError:
        return False
    is_same = header.source.size_bytes == _size(os.fspath(video)) and header.clock == clock
    return is_same and versions_of(running).items() <= header.versions.items()


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0

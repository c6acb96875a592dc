"""Many videos in, a folder of feature files out. A second run leaves finished videos out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..errors import InputError
from ..experts import Expert
from ..features.extraction import extract
from ..features.files import (
    SUFFIX,
    FeatureFile,
    SourceVideo,
    read_existing,
    update_features,
    versions_of,
)
from ..media.limits import TIME_LIMIT_S, check_time_limit
from ..media.specs import Clock
from ..storage.files import check_file
from .outcome import Outcome, run_each

logger = logging.getLogger(__name__)


def plan(videos: Iterable[tuple[Path, Path]], out: Path) -> dict[Path, Path]:
    """Plan the feature file of each video.

    Args:
        videos: from `find_videos`.
        out: the folder of the feature files.

    Returns:
        the path of each feature file, and the video it is made from.

    Raises:
        InputError: two videos of the same name.
    """
    planned: dict[Path, Path] = {}
    for video, name in videos:
        other = planned.setdefault(out / f"{name}{SUFFIX}", video)
        if other.absolute() != video.absolute():
            raise InputError(
                f"{str(other)!r} and {str(video)!r} would both become {str(name)!r}: name "
                "their common folder, or write them into different ones"
            )
    return planned


def extract_files(
    planned: Mapping[Path, Path],
    running: Mapping[str, Expert],
    clock: Clock = "file",
    time_limit_s: float = TIME_LIMIT_S,
    jobs: int = 1,
) -> Iterator[Outcome[bool]]:
    """Write feature files; the outcome of a video is that of `extract_file`.

    Args:
        planned: the video of each feature file, from `plan`.
        running: from `mdmmt.experts.load`.
        clock, time_limit_s: see `mdmmt.features.extract`.
        jobs: how many videos are read at once. They share the experts.

    Raises:
        InputError: a time limit or a number of jobs that is not above 0.
    """
    check_time_limit(time_limit_s)

    def work(item: tuple[Path, Path]) -> bool:
        file, video = item
        return extract_file(video, file, running, clock, time_limit_s)

    return run_each(((str(item[1]), item) for item in planned.items()), work, jobs)


def extract_file(
    video: Path,
    file: Path,
    running: Mapping[str, Expert],
    clock: Clock = "file",
    time_limit_s: float = TIME_LIMIT_S,
) -> bool:
    """Complete the feature file of one video: run the experts whose features it lacks.

    Features of other experts stay in the file, unless they are of another video. A log message
    tells why an expert runs though the file exists and has its features.

    Returns:
        True if the file was written, False if it was complete already: of a video of the same
        content, by experts of the same versions, and by the same clock.

    Raises:
        InputError: the video is missing or cannot be read, no expert makes features of it, or
            features of other experts in the file go by another clock.
    """
    check_file(video)
    source = SourceVideo.of(video)
    existing, useless = read_existing(file, source)
    versions = versions_of(running)
    reasons = {
        name: _why_missing(existing, name, version, clock) for name, version in versions.items()
    }
    missing = {name: running[name] for name, why in reasons.items() if why is not None}
    versions = {name: versions[name] for name in missing}
    if not missing:
        return False
    existing.with_experts({}, versions, clock)  # refuses a mixture of clocks
    if useless:
        logger.info("%s is made again: %s", file, useless)
    for name, why in reasons.items():
        if why:
            logger.info("%s: the features of %s are made again: %s", file, name, why)
    features = extract(video, missing, time_limit_s=time_limit_s, clock=clock)
    if not features and not existing.features:
        raise InputError(f"the experts {', '.join(missing)} made no features of {video}")
    update_features(file, source, features, versions, clock)
    return True


def _why_missing(existing: FeatureFile, name: str, version: str, clock: Clock) -> str | None:
    """Why an expert has to run: "" if the file lacks it, None if it need not."""
    before = existing.versions.get(name)
    if before is None:
        return ""
    if before != version:
        return f"they are of version {before!r}, and it is now {version!r}"
    if existing.clock != clock:
        return f"their times go by the clock {existing.clock!r}, and {clock!r} is wanted"
    return None

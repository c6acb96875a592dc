"""Many videos in, a folder of feature files out. A second run leaves finished videos out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..errors import InputError
from ..experts import Expert
from ..features.extraction import extract
from ..features.files import SUFFIX, SourceVideo, read_existing, update_features, versions_of
from ..storage.files import check_file, visible_files
from .outcome import Outcome, run_each

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".wmv", ".asf", ".flv", ".3gp", ".ogv", ".vob", ".mxf", ".gif"),
)  # of the files in a folder that are videos; a file named by itself may have any suffix


def find_videos(paths: Iterable[str | os.PathLike[str]]) -> list[tuple[Path, Path]]:
    """List videos.

    Args:
        paths: files, and folders, which are searched for videos however deep they are. Hidden
            files and folders in them (`.name`) are left out, and counted in one log line.

    Returns:
        the path of each video, and its path relative to the given folder.

    Raises:
        InputError: a folder without videos.
    """
    videos: list[tuple[Path, Path]] = []
    for given in map(Path, paths):
        if not given.is_dir():
            videos.append((given, Path(given.name)))
            continue
        files = sorted(visible_files(given, followlinks=True))
        in_folder = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
        if not in_folder:
            raise InputError(
                f"there is no video in the folder {str(given)!r}; in a folder, files with the "
                f"suffixes {', '.join(VIDEO_SUFFIXES)} are videos; name a file with another suffix"
            )
        videos += [(video, video.relative_to(given)) for video in in_folder]
    return videos


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
    planned: Mapping[Path, Path], running: Mapping[str, Expert]
) -> Iterator[Outcome[bool]]:
    """Write feature files one by one; the outcome of a video is that of `extract_file`.

    Args:
        planned: the video of each feature file, from `plan`.
        running: from `mdmmt.experts.load`.
    """

    def work(item: tuple[Path, Path]) -> bool:
        file, video = item
        return extract_file(video, file, running)

    return run_each(((str(item[1]), item) for item in planned.items()), work)


def extract_file(video: Path, file: Path, running: Mapping[str, Expert]) -> bool:
    """Complete the feature file of one video: run the experts whose features it lacks.

    Features of other experts stay in the file, unless they are of another video.

    Returns:
        True if the file was written, False if it was complete already: of a video of the same
        content, by experts of the same versions.

    Raises:
        InputError: the video is missing or cannot be read, or no expert makes features of it.
    """
    check_file(video)
    source = SourceVideo.of(video)
    existing = read_existing(file, source)
    missing = {
        name: expert
        for name, expert in running.items()
        if existing.versions.get(name) != expert.version
    }
    if not missing:
        return False
    features = extract(video, missing)
    if not features and not existing.features:
        raise InputError(f"the experts {', '.join(missing)} made no features of {video}")
    update_features(file, source, features, versions_of(missing))
    return True

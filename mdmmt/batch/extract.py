"""Many videos -> a folder of feature files; what was done is kept, so a stopped run goes on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError, describe_error, warn
from ..experts import Expert
from ..features.extraction import extract
from ..features.files import SUFFIX, SourceVideo, read_existing, versions_of, write_features

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".wmv", ".asf", ".flv", ".3gp", ".ogv", ".vob", ".mxf", ".gif"),
)  # what is taken out of a folder; a file that is named is taken whatever it is called


class Outcome(NamedTuple):
    """What became of one video."""

    video: Path
    file: Path
    kept: bool  # the file was there before, of this very video, with all of these experts
    error: str | None  # why the file is not there, or lacks these experts


def find_videos(paths: Iterable[str | os.PathLike[str]]) -> list[tuple[Path, Path]]:
    """The videos that are meant, each with its name below the folder that was given.

    Args:
        paths: files, and folders, of which all videos are taken, however deep.

    Raises:
        InputError: a folder without videos.
    """
    found: list[tuple[Path, Path]] = []
    for given in map(Path, paths):
        if not given.is_dir():
            found.append((given, Path(given.name)))
            continue
        files = sorted(_files_below(given))
        videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
        if not videos:
            raise InputError(
                f"there is no video in the folder {str(given)!r}; taken out of it are "
                f"{', '.join(VIDEO_SUFFIXES)}, and other files if they are named"
            )
        found += [(video, video.relative_to(given)) for video in videos]
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    """All files, however deep, also of linked folders, each folder once."""

    def tell(error: OSError) -> None:
        warn(f"{describe_error(error)}; the videos in it are left out")

    seen = set()
    for place, folders, files in os.walk(folder, onerror=tell, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in files)


def plan(videos: Iterable[tuple[Path, Path]], out: Path) -> dict[Path, Path]:
    """The feature file of each video, below `out`; and the video.

    Args:
        videos: from `find_videos`.

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


def extract_files(planned: Mapping[Path, Path], running: Mapping[str, Expert]) -> Iterator[Outcome]:
    """Write the feature files, one by one.

    Args:
        planned: from `plan`.
        running: from `mdmmt.experts.load`.
    """
    for file, video in planned.items():
        try:
            kept = extract_file(video, file, running)
        except Exception as error:  # what a file makes a decoder raise must not end the run
            yield Outcome(video, file, False, describe_error(error))
        else:
            yield Outcome(video, file, kept, None)


def extract_file(video: Path, file: Path, running: Mapping[str, Expert]) -> bool:
    """Let the feature file of one video hold what these experts find; runs those it lacks.

    What the file holds of other experts stays, unless it is of another video.

    Returns:
        whether all was there: of a video of the same content, by experts of the same versions.
    """
    if not video.is_file():
        raise InputError(f"there is no file {str(video)!r}")
    source = SourceVideo.of(video)
    versions = read_existing(file, source).versions
    missing = {
        name: expert for name, expert in running.items() if versions.get(name) != expert.version
    }
    if not missing:
        return True
    found = extract(video, missing)
    # Looked at again, since another process may have added other experts meanwhile.
    content = read_existing(file, source).with_experts(found, versions_of(missing))
    if not content.features:
        raise InputError(f"none of the experts {', '.join(missing)} found anything in {video}")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_features(file, content)
    return False

"""The videos and feature files that paths stand for, of files and of folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import InputError
from ..storage.files import visible_files
from ..storage.text import counted
from .files import SUFFIX, VIDEO_SUFFIXES

logger = logging.getLogger(__name__)

STILL_SUFFIX = ".gif"  # the one of `VIDEO_SUFFIXES` that still pictures have too


def find_videos(paths: Iterable[str | os.PathLike[str]]) -> list[tuple[Path, Path]]:
    """List videos.

    Args:
        paths: files, and folders, which are searched for videos however deep they are. Hidden
            files and folders in them (`.name`) are left out, and so are still pictures. A log
            line counts each of the two.

    Returns:
        the path of each video, and its path relative to the given folder.

    Raises:
        InputError: a folder without videos, or an empty path.
    """
    videos: list[tuple[Path, Path]] = []
    for given in map(_as_path, paths):
        if not os.path.isdir(given):  # `Path.is_dir` would raise for a long name
            videos.append((given, Path(given.name)))
            continue
        files, in_folder, _ = _files_in(given)
        if not in_folder:
            raise InputError(_nothing_in(given, files, "video"))
        videos += [(video, video.relative_to(given)) for video in in_folder]
    return videos


def find_videos_or_features(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """List videos and feature files.

    Args:
        paths: files, and folders, each of which stands for all videos in it, see `find_videos`, or
            for all feature files if it has no video. A log line counts those that are left out
            because of videos, of which they may be.

    Raises:
        InputError: a folder with neither, or an empty path.
    """
    files: list[Path] = []
    for given in map(_as_path, paths):
        if not os.path.isdir(given):  # `Path.is_dir` would raise for a long name
            files.append(given)
            continue
        all_files, videos, features = _files_in(given)
        if not videos and not features:
            raise InputError(_nothing_in(given, all_files, "video and no feature file"))
        if videos and features:
            what = counted(len(features), "feature file is", "feature files are")
            logger.info(
                "%s left out of %s, since it holds videos; any file can be named", what, given
            )
        files += videos or features
    return [str(file) for file in files]


def _as_path(path: str | os.PathLike[str]) -> Path:
    if not os.fspath(path):  # of which `Path` would make the present folder
        raise InputError("a path is empty, expected a file or a folder")
    return Path(path)


def _files_in(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """All files in a folder, and the videos and the feature files among them."""
    from ..media.opening import is_still  # imports PyAV

    files = sorted(visible_files(folder, followlinks=True))
    named_so = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    videos = [
        file for file in named_so if file.suffix.lower() != STILL_SUFFIX or not is_still(file)
    ]
    if stills := len(named_so) - len(videos):
        what = counted(stills, "still picture is", "still pictures are")
        logger.info("%s left out of %s", what, folder)
    return files, videos, [file for file in files if file.suffix == SUFFIX]


def _nothing_in(folder: Path, files: Sequence[Path], what: str) -> str:
    if not files:
        return f"there is no file in the folder {str(folder)!r}, expected videos in it or below it"
    return (
        f"there is no {what} in the folder {str(folder)!r}: its files are still pictures, or have "
        f"none of the suffixes of videos {', '.join(VIDEO_SUFFIXES)}; any file can be named"
    )

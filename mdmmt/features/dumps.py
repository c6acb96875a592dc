"""Dumps: the files in which MDMMT's authors keep features (github.com/papermsucode/mdmmt).

A dump holds the features that one expert made of many videos. It is a pair of files, `<prefix>.emb`
and `<prefix>.idx`, or several such pairs, `<prefix>_<k>.emb` and `<prefix>_<k>.idx`, one written by
each worker:

- `.emb`: the features of all videos, one after the other, as packed little-endian float32;
- `.idx`: text; for each video a line `VIDEO<TAB>path`, then for each of its features a line
  `start<TAB>end`, seconds with two decimals.

The files are not trusted: their sizes and all their numbers are checked against each other.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..storage.files import atomic_file
from ..storage.text import counted
from .types import ExpertFeatures, VideoFeatures

EMB, IDX = ".emb", ".idx"
VIDEO = "VIDEO\t"  # how a line of .idx that names a video begins
ROW_TYPE = np.dtype("<f4")


class DumpedVideo(NamedTuple):
    """The features that one expert made of one video."""

    path: str  # of the video, as it was given to the expert
    features: ExpertFeatures  # values: a read-only memory map; times: two decimals
    first_byte: int  # where the features begin in .emb


def read_dump(prefix: str | os.PathLike[str], dim: int) -> Iterator[DumpedVideo]:
    """Read the features of one expert, video by video, in the order of the files.

    Args:
        prefix: the path of the dump without `.emb` or `_<k>.emb`.
        dim: the width of the features, which the files do not hold.

    Raises:
        InputError: the files are missing, do not fit together, or have a line that is not as the
            module's docstring says.
    """
    for emb, idx in _pairs(Path(prefix)):
        yield from read_pair(emb, idx, dim)


def read_dumps(
    prefixes: Mapping[str, str | os.PathLike[str]], dims: Mapping[str, int]
) -> dict[str, VideoFeatures]:
    """Read the features of several experts and gather them by video.

    Args:
        prefixes: the dump of each expert, by the expert's name.
        dims: the width of each expert's features.

    Returns:
        the features of each video by its name (see `video_name`), with memory maps as values.
        Experts that made no features of a video are left out of it.

    Raises:
        InputError: see `read_dump`; or a dump has two videos of one name.
    """
    videos: dict[str, dict[str, ExpertFeatures]] = {}
    for expert, prefix in prefixes.items():
        paths: dict[str, str] = {}
        for dumped in read_dump(prefix, dims[expert]):
            name = video_name(dumped.path)
            if name in paths:
                raise InputError(
                    f"the dump {os.fspath(prefix)!r} has features of {paths[name]!r} and of "
                    f"{dumped.path!r}, expected each video once"
                )
            paths[name] = dumped.path
            by_expert = videos.setdefault(name, {})
            if len(dumped.features):
                by_expert[expert] = dumped.features
    return dict(videos)


def write_dumps(
    prefixes: Mapping[str, str | os.PathLike[str]], videos: Iterable[tuple[str, VideoFeatures]]
) -> None:
    """Write the dumps of several experts: all of them or, unless a disk fails midway, none.

    Args:
        prefixes: the path of each expert's dump, by the expert's name. Folders are made as needed.
        videos: the path and the features of each video, taken one at a time. An expert without
            features of a video gets no entry for it. Experts without a prefix are not written.

    Raises:
        InputError: an expert's features differ in width from those of the videos before, their
            times are not in order, a path contains a line break, or two videos have one name.
    """
    dims: dict[str, int] = {}
    names: set[str] = set()
    with ExitStack() as renames:
        parts = {}
        for expert, prefix in prefixes.items():
            emb, idx = _pair(Path(prefix))
            emb.parent.mkdir(parents=True, exist_ok=True)
            # The stack unwinds backwards: readers look for .idx, so it appears after its .emb.
            idx_part = renames.enter_context(atomic_file(idx))
            parts[expert] = renames.enter_context(atomic_file(emb)), idx_part
        with ExitStack() as open_files:
            files = {
                expert: (
                    open_files.enter_context(emb.open("wb")),
                    open_files.enter_context(_open_text(idx, "w")),
                )
                for expert, (emb, idx) in parts.items()
            }
            for path, features in videos:
                name = video_name(path)
                if name in names:
                    raise InputError(
                        f"there are two videos called {name!r}, which no reader of dumps could "
                        "tell apart"
                    )
                names.add(name)
                if "\n" in path:
                    raise InputError(f"the path {path!r} has a line break, which no dump can hold")
                if not _is_path_of_file(path):
                    raise InputError(f"{path!r} is not the path of a file")
                for expert, (emb_file, idx_file) in files.items():
                    expert_features = features.get(expert)
                    if not expert_features:
                        continue
                    _check_fit(f"{path}, expert {expert}", expert_features, dims, expert)
                    emb_file.write(np.ascontiguousarray(expert_features.values, ROW_TYPE).data)
                    idx_file.write(f"{VIDEO}{path}\n")
                    idx_file.writelines(
                        f"{start_s:.2f}\t{end_s:.2f}\n"
                        for start_s, end_s in expert_features.times_s
                    )


def read_pair(emb: Path, idx: Path, dim: int) -> Iterator[DumpedVideo]:
    """Read the videos of one pair of files; see `read_dump`."""
    videos = list(_read_times(idx))
    values = _map(emb, idx, sum(len(times_s) for _, times_s in videos), dim)
    first = 0
    for path, times_s in videos:
        features = ExpertFeatures(values[first : first + len(times_s)], times_s)
        yield DumpedVideo(path, features, first_byte=first * dim * ROW_TYPE.itemsize)
        first += len(times_s)


def video_name(path: str) -> str:
    """The name by which captions call a video: its file name without the suffix."""
    return os.path.splitext(os.path.basename(path))[0]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file of the authors', which may hold paths that are not UTF-8.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with _open_text(path, "r") as file:
            text = file.read()
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    return text.removesuffix("\n").split("\n") if text else []


def _pairs(prefix: Path) -> list[tuple[Path, Path]]:
    """The pairs of files of a dump, in the order of their workers."""
    name = re.compile(re.escape(prefix.name) + r"(?:_(\d+))?" + re.escape(IDX))
    files = os.listdir(prefix.parent) if prefix.parent.is_dir() else []
    matches = [match for file in files if (match := name.fullmatch(file))]
    if not matches:
        raise InputError(
            f"there is no dump {str(prefix)!r}, expected the files {prefix.name}{EMB} and "
            f"{prefix.name}{IDX}, or {prefix.name}_0{EMB} and {prefix.name}_0{IDX} and so on"
        )
    matches.sort(key=lambda match: int(match[1] or -1))
    return [_pair(prefix.with_name(match[0].removesuffix(IDX))) for match in matches]


def _pair(prefix: Path) -> tuple[Path, Path]:
    return prefix.with_name(prefix.name + EMB), prefix.with_name(prefix.name + IDX)


def _read_times(idx: Path) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield each video's path, and the times (n, 2) of its features in seconds."""
    video: str | None = None
    times: list[tuple[float, float]] = []
    for number, line in enumerate(read_lines(idx), start=1):
        if line.startswith(VIDEO):
            if video is not None:
                yield video, np.array(times).reshape(-1, 2)
            video, times = line.removeprefix(VIDEO), []
            if not _is_path_of_file(video):
                raise InputError(f"{idx}, line {number}: {video!r} is not the path of a file")
            continue
        try:
            start_s, end_s = map(float, line.split("\t"))
        except ValueError:
            start_s, end_s = math.inf, math.inf
        if video is None or not _is_interval(start_s, end_s):
            raise InputError(
                f"{idx}, line {number}: {line!r}, expected "
                + ("VIDEO<TAB>path" if video is None else "start<TAB>end in seconds, or a VIDEO")
            )
        times.append((start_s, end_s))
    if video is not None:
        yield video, np.array(times).reshape(-1, 2)


def _is_path_of_file(path: str) -> bool:
    return "\0" not in path and bool(video_name(path))


def _is_interval(start_s: float, end_s: float) -> bool:
    """Whether the times are in order, or both unknown."""
    return (math.isnan(start_s) and math.isnan(end_s)) or -math.inf < start_s <= end_s < math.inf


def _map(emb: Path, idx: Path, rows: int, dim: int) -> NDArray[np.float32]:
    """The features in .emb, (rows, dim), as a memory map."""
    if dim < 1:
        raise InputError(f"the features of {emb} are declared {dim} wide, expected 1 or more")
    try:
        size = emb.stat().st_size
        if size != rows * dim * ROW_TYPE.itemsize:
            width, rest = divmod(size, max(rows, 1) * ROW_TYPE.itemsize)
            hint = f", which would be {width} wide" if width and not rest else ""
            raise InputError(
                f"{emb} has {counted(size, 'byte')}{hint}; expected {counted(rows, 'feature')} "
                f"{dim} wide, one for each line of times in {idx}"
            )
        if rows == 0:  # an empty file cannot be mapped
            return np.zeros((0, dim), dtype=ROW_TYPE)
        return np.memmap(emb, dtype=ROW_TYPE, mode="r", shape=(rows, dim))
    except OSError as error:
        raise InputError(f"{str(emb)!r} cannot be read: {error.strerror}") from error


def _open_text(path: Path, mode: str) -> IO[str]:
    # A path may hold any bytes, a carriage return among them.
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="\n")


def _check_fit(where: str, features: ExpertFeatures, dims: dict[str, int], expert: str) -> None:
    """Raise unless a dump, whose width is that of its first video, can hold these features."""
    width = features.values.shape[1]
    if width != dims.setdefault(expert, width):
        raise InputError(
            f"{where}: features are {features.values.shape}, expected (n, {dims[expert]})"
        )
    for start_s, end_s in features.times_s:
        if not _is_interval(start_s, end_s):
            raise InputError(f"{where}: the times {start_s:g} and {end_s:g}, expected start <= end")

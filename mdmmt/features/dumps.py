"""The files in which MDMMT's authors keep features and captions (github.com/papermsucode/mdmmt).

A dump holds one expert's features of many videos, as a pair of files, `<prefix>.emb` and
`<prefix>.idx`, or several such pairs `<prefix>_<k>`, one a worker:

- `.emb`: the features of all videos, one after the other, as packed little-endian float32;
- `.idx`: text; for each video a line `VIDEO<TAB>path`, then for each of its features a line
  `start<TAB>end`, seconds with two decimals.

A caption index is a text file for each video, `<video>.capts`, whose lines are tab-separated:

1. the experts' names;
2. the widths of their features;
3. for each expert the paths of its `.emb` and `.idx`, both empty where it has nothing;
4. for each expert three numbers, for all of the video: its first byte in `.emb`, the place of the
   first line of times in `.idx`, and how many features there are (-1, -1, 0 for nothing);
5. and all further lines: a caption, its start and end in seconds, and for the segment between them
   the three numbers of each expert; those of the last experts may be missing.

Neither kind is trusted: all numbers are checked against each other and against the files' sizes.
The places in `.idx` are not used, since they follow from the features' own.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from ..datasets.annotations import Caption
from ..errors import InputError
from ..storage.files import atomic_file
from .types import ExpertFeatures, VideoFeatures

EMB, IDX, CAPTS = ".emb", ".idx", ".capts"
VIDEO = "VIDEO\t"  # how the line starts that names a video
ROW_TYPE = np.dtype("<f4")


class Dumped(NamedTuple):
    """What one expert found in one video."""

    video: str  # the path that was given to the expert
    features: NDArray[np.float32]  # (n, d), a read-only memory map
    times: NDArray[np.float64]  # (n, 2), seconds, with two decimals; NaN where unknown


class IndexedCaption(NamedTuple):
    """A caption, and the features that its segment was found to have."""

    caption: Caption
    selected: VideoFeatures  # views of those of the whole video


@dataclass(frozen=True)
class CaptionIndex:
    """The content of a `.capts` file, with the features it points to."""

    video: str
    extracted: VideoFeatures  # of the whole video; features are memory maps
    captions: tuple[IndexedCaption, ...]


def read_dump(prefix: str | os.PathLike[str], dim: int) -> Iterator[Dumped]:
    """The features of one expert, video by video, in the order of the files.

    Args:
        prefix: the path of a dump without `.emb`, `_<k>.emb`.
        dim: width of the features, which the files do not say.

    Raises:
        InputError: no such files, a line that is not as above, or files that do not fit together.
    """
    for emb, idx in _parts(Path(prefix)):
        for _, dumped in _read_pair(emb, idx, dim):
            yield dumped


def read_dumps(
    prefixes: Mapping[str, str | os.PathLike[str]], dims: Mapping[str, int]
) -> dict[str, VideoFeatures]:
    """The features of several experts, by video.

    Args:
        prefixes, dims: the dump of each expert, and the width of its features.

    Returns:
        features, which are memory maps, by the name of the video's file without folder and suffix.
        Experts that found nothing in a video are not in its features.

    Raises:
        InputError: see `read_dump`; or two videos of one name in a dump.
    """
    videos: dict[str, dict[str, ExpertFeatures]] = {}
    for name, prefix in prefixes.items():
        paths: dict[str, str] = {}
        for dumped in read_dump(prefix, dims[name]):
            video = video_name(dumped.video)
            if video in paths:
                raise InputError(
                    f"the dump {os.fspath(prefix)!r} has features of {paths[video]!r} and of "
                    f"{dumped.video!r}, expected each video once"
                )
            paths[video] = dumped.video
            experts = videos.setdefault(video, {})
            if len(dumped.features):
                experts[name] = ExpertFeatures(dumped.features, dumped.times)
    return videos


def write_dumps(
    prefixes: Mapping[str, str | os.PathLike[str]], videos: Iterable[tuple[str, VideoFeatures]]
) -> None:
    """Write the dumps of several experts; all of them appear, or none, unless a disk fails.

    Args:
        prefixes: where to write that of each expert.
        videos: each video's path and features, one at a time; what an expert has not found in a
            video is left out of its dump, and experts that are not in `prefixes` are passed over.

    Raises:
        InputError: features and times that do not fit together or to those of the videos before,
            or a path that would end its line.
    """
    dims: dict[str, int] = {}
    names: set[str] = set()
    with ExitStack() as renamed:
        parts = {}
        for name, prefix in prefixes.items():
            emb, idx = _pair(Path(prefix))
            emb.parent.mkdir(parents=True, exist_ok=True)
            # The stack goes backwards, so an .idx, for which readers look, comes after its .emb.
            idx_part = renamed.enter_context(atomic_file(idx))
            parts[name] = renamed.enter_context(atomic_file(emb)), idx_part
        with ExitStack() as closed:
            files = {
                name: (
                    closed.enter_context(emb.open("wb")),
                    closed.enter_context(_open_text(idx, "w")),
                )
                for name, (emb, idx) in parts.items()
            }
            for video, extracted in videos:
                called = video_name(video)
                if called in names:
                    raise InputError(
                        f"there are two videos called {called!r}, which no reader of dumps could "
                        "tell apart"
                    )
                names.add(called)
                if "\n" in video:
                    raise InputError(f"the path {video!r} has a line break, which no dump can hold")
                for name, (emb, idx) in files.items():
                    one = extracted.get(name, ())
                    if not len(one):
                        continue
                    _check_fit(f"{video}, expert {name}", one, dims, name)
                    emb.write(np.ascontiguousarray(one.values, dtype=ROW_TYPE))
                    idx.write(f"{VIDEO}{video}\n")
                    idx.writelines(
                        f"{start_s:.2f}\t{end_s:.2f}\n" for start_s, end_s in one.times_s
                    )


def read_caption_indexes(
    paths: Iterable[str | os.PathLike[str]], moved: tuple[str, str] | None = None
) -> Iterator[CaptionIndex]:
    """Read `.capts` files and the dumps that they name, each of which is opened once.

    Args:
        paths: the files; the name of each without its suffix is that of the video.
        moved: the folder in which the dumps were when the files were written, and where it is now.

    Raises:
        InputError: with file and line; or a dump that is not there, or has other features.
    """
    dumps: dict[tuple[Path, Path, int], dict[int, Dumped]] = {}
    for path in map(Path, paths):
        lines = _lines(path)
        if len(lines) < 4:
            raise InputError(f"{path} has {len(lines)} lines, expected 4 and one for each caption")
        names = lines[0].split("\t")
        dims = _integers(path, 2, lines[1].split("\t"), len(names))
        files = lines[2].split("\t")
        if len(files) != 2 * len(names):
            raise InputError(
                f"{path}, line 3: {len(files)} paths, expected an {EMB} and an {IDX} for each of "
                f"the experts {', '.join(names)}"
            )
        whole = _integers(path, 4, lines[3].split("\t"), 3 * len(names))
        experts = {}
        for i, (name, dim) in enumerate(zip(names, dims, strict=True)):
            first_byte, _, count = whole[3 * i : 3 * i + 3]
            if count == 0:
                continue
            emb, idx = (_moved(file, moved) for file in files[2 * i : 2 * i + 2])
            if (emb, idx, dim) not in dumps:
                pair = _read_pair(emb, idx, dim)
                dumps[emb, idx, dim] = {
                    first: dumped for first, dumped in pair if len(dumped.features)
                }
            dumped = dumps[emb, idx, dim].get(first_byte)
            found = len(dumped.features) if dumped else 0
            if not dumped or found != count or video_name(dumped.video) != path.stem:
                raise InputError(
                    f"{path}, line 4: {count} features of {name} from byte {first_byte} of {emb}, "
                    f"where there are {found} of {dumped.video if dumped else 'no video'!r}"
                )
            experts[name] = _Whole(first_byte, dumped)
        captions = tuple(
            _caption(path, number, line, names, experts)
            for number, line in enumerate(lines[4:], start=5)
        )
        extracted = {
            name: ExpertFeatures(one.dumped.features, one.dumped.times)
            for name, one in experts.items()
        }
        yield CaptionIndex(path.stem, extracted, captions)


def video_name(path: str) -> str:
    """What captions call a video: the name of its file without folder and suffix."""
    return os.path.splitext(os.path.basename(path))[0]


class _Whole(NamedTuple):
    """What an expert found in all of a video, and where that is in its .emb."""

    first_byte: int
    dumped: Dumped


def _parts(prefix: Path) -> list[tuple[Path, Path]]:
    """The pairs of files of a dump, in the order of their workers."""
    name = re.compile(re.escape(prefix.name) + r"(?:_(\d+))?" + re.escape(IDX))
    folder = os.listdir(prefix.parent) if prefix.parent.is_dir() else []
    found = [match for file in folder if (match := name.fullmatch(file))]
    if not found:
        raise InputError(
            f"there is no dump {str(prefix)!r}, expected the files {prefix.name}{EMB} and "
            f"{prefix.name}{IDX}, or {prefix.name}_0{EMB} and {prefix.name}_0{IDX} and so on"
        )
    found.sort(key=lambda match: int(match[1] or -1))
    return [_pair(prefix.with_name(match[0].removesuffix(IDX))) for match in found]


def _pair(prefix: Path) -> tuple[Path, Path]:
    return prefix.with_name(prefix.name + EMB), prefix.with_name(prefix.name + IDX)


def _read_pair(emb: Path, idx: Path, dim: int) -> Iterator[tuple[int, Dumped]]:
    """The videos of a pair of files, each with its first byte in .emb."""
    videos = list(_read_times(idx))
    features = _map(emb, idx, sum(len(times) for _, times in videos), dim)
    first = 0
    for video, times in videos:
        yield first * dim * ROW_TYPE.itemsize, Dumped(video, features[first:][: len(times)], times)
        first += len(times)


def _read_times(idx: Path) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Each video's path, and the times (n, 2) of its features in seconds."""
    video: str | None = None
    times: list[tuple[float, float]] = []
    for number, line in enumerate(_lines(idx), start=1):
        if line.startswith(VIDEO):
            if video is not None:
                yield video, np.array(times).reshape(-1, 2)
            video, times = line.removeprefix(VIDEO), []
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


def _is_interval(start_s: float, end_s: float) -> bool:
    """Whether these are times in order, or no times, as of features that do not know theirs."""
    return (math.isnan(start_s) and math.isnan(end_s)) or -math.inf < start_s <= end_s < math.inf


def _map(emb: Path, idx: Path, rows: int, dim: int) -> NDArray[np.float32]:
    """The features in .emb, (rows, dim), as a memory map."""
    if dim < 1:
        raise InputError(f"features of {emb} are said to be {dim} wide, expected 1 or more")
    try:
        size = emb.stat().st_size
        if size != rows * dim * ROW_TYPE.itemsize:
            width, rest = divmod(size, max(rows, 1) * ROW_TYPE.itemsize)
            hint = f", which would be {width} wide" if width and not rest else ""
            raise InputError(
                f"{emb} has {size} bytes{hint}; expected {rows} features {dim} wide, "
                f"as there are times in {idx}"
            )
        if rows == 0:  # nothing cannot be mapped
            return np.zeros((0, dim), dtype=ROW_TYPE)
        return np.memmap(emb, dtype=ROW_TYPE, mode="r", shape=(rows, dim))
    except OSError as error:
        raise InputError(f"{str(emb)!r} cannot be read: {error.strerror}") from error


def _caption(
    path: Path, number: int, line: str, names: Sequence[str], experts: Mapping[str, _Whole]
) -> IndexedCaption:
    """One line of a caption index."""
    where = f"{path}, line {number}"
    text, *values = line.split("\t")
    try:
        start_s, end_s = map(float, values[:2])
    except ValueError:
        start_s = end_s = math.nan
    if not start_s < end_s:
        raise InputError(
            f"{where}: {line!r}, expected a caption, its start and a later end in seconds, and "
            "three numbers for each expert"
        )
    runs = _integers(path, number, values[2:], 3 * min(len(names), len(values[2:]) // 3))
    selected = {}
    for name, first_byte, count in zip(names, runs[0::3], runs[2::3], strict=False):
        if count == 0:
            continue
        if name not in experts:
            raise InputError(f"{where}: features of {name}, of which line 4 says there are none")
        whole, (_, features, times) = experts[name]
        first, rest = divmod(first_byte - whole, features.shape[1] * ROW_TYPE.itemsize)
        if rest or not 0 <= first < first + count <= len(features):
            raise InputError(
                f"{where}: {count} features of {name} from byte {first_byte}, which are not among "
                f"the {len(features)} from byte {whole} that line 4 speaks of"
            )
        selected[name] = ExpertFeatures(features, times)[first : first + count]
    return IndexedCaption(Caption(path.stem, start_s, end_s, text, where), selected)


def _integers(path: Path, number: int, values: Sequence[str], count: int) -> list[int]:
    try:
        integers = [int(value) for value in values]
    except ValueError:
        integers = []
    if len(integers) != count or not integers:
        raise InputError(f"{path}, line {number}: {values}, expected {count} whole numbers")
    return integers


def _moved(file: str, moved: tuple[str, str] | None) -> Path:
    if moved is None or not Path(file).is_relative_to(moved[0]):
        return Path(file)
    return Path(moved[1]) / Path(file).relative_to(moved[0])


def _lines(path: Path) -> list[str]:
    try:
        with _open_text(path, "r") as file:
            text = file.read()
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    return text.removesuffix("\n").split("\n") if text else []


def _open_text(path: Path, mode: str) -> TextIO:
    # A path may hold any bytes, a carriage return among them.
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="\n")


def _check_fit(where: str, features: ExpertFeatures, dims: dict[str, int], name: str) -> None:
    """Raise unless a dump, whose width is that of its first video, can hold these features."""
    width = features.values.shape[1]
    if width != dims.setdefault(name, width):
        raise InputError(
            f"{where}: features are {features.values.shape}, expected (n, {dims[name]})"
        )
    for start_s, end_s in features.times_s:
        if not _is_interval(start_s, end_s):
            raise InputError(f"{where}: the times {start_s:g} and {end_s:g}, expected start <= end")

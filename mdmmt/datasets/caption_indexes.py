"""Caption indexes: the files in which MDMMT's authors keep captions with their features.

A caption index is a text file for each video, `<video>.capts`, which points into dumps (see
`mdmmt.features.dumps`). Its lines are tab-separated:

1. the names of the experts;
2. the widths of their features;
3. for each expert the paths of its `.emb` and `.idx`, both empty if it has no features;
4. for each expert three numbers about the whole video: the first byte of its features in `.emb`,
   the place of the first line of its times in `.idx`, and the number of features (-1, -1, 0 if
   there are none);
5. and all further lines: a caption, its start and end in seconds, and for each expert the three
   numbers about the segment between them; those of the last experts may be missing.

The file is not trusted: all its numbers are checked against each other and against the dumps. The
places in `.idx` are not used, since they follow from those in `.emb`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..features.dumps import EMB, IDX, ROW_TYPE, DumpedVideo, read_lines, read_pair, video_name
from ..features.types import VideoFeatures
from ..storage.text import counted
from .annotations import Caption

HEADER_LINES = 4


class IndexedCaption(NamedTuple):
    """A caption with the features of its segment."""

    caption: Caption
    features: VideoFeatures  # views of the video's features


@dataclass(frozen=True)
class CaptionIndex:
    """The content of a `.capts` file, with the features to which it points."""

    video: str
    features: VideoFeatures  # of the whole video; the values are memory maps
    captions: tuple[IndexedCaption, ...]


def read_caption_indexes(
    paths: Iterable[str | os.PathLike[str]], moved: tuple[str, str] | None = None
) -> Iterator[CaptionIndex]:
    """Read `.capts` files and the dumps that they name; each dump is opened once.

    Args:
        paths: the files; each is named after its video.
        moved: the folder in which the dumps were when the files were written, and the folder in
            which they are now.

    Raises:
        InputError: a wrong line, named by file and line; or a dump is missing or has other features
            than the file says.
    """
    dumps: dict[tuple[Path, Path, int], dict[int, DumpedVideo]] = {}
    for path in map(Path, paths):
        lines = read_lines(path)
        if len(lines) < HEADER_LINES:
            raise InputError(
                f"{path} has {counted(len(lines), 'line')}, expected {HEADER_LINES} and one for "
                "each caption"
            )
        videos = _read_header(path, lines, moved, dumps)
        experts = lines[0].split("\t")
        captions = tuple(
            _read_caption(path, number, line, experts, videos)
            for number, line in enumerate(lines[HEADER_LINES:], start=HEADER_LINES + 1)
        )
        features = {expert: dumped.features for expert, dumped in videos.items()}
        yield CaptionIndex(path.stem, features, captions)


def _read_header(
    path: Path,
    lines: Sequence[str],
    moved: tuple[str, str] | None,
    dumps: dict[tuple[Path, Path, int], dict[int, DumpedVideo]],
) -> dict[str, DumpedVideo]:
    """Find the features that each expert made of the whole video.

    Args:
        dumps: the videos of each dump that was opened before, by their first byte; dumps that are
            opened here are added.
    """
    experts = lines[0].split("\t")
    dims = _integers(path, 2, lines[1].split("\t"), len(experts))
    files = lines[2].split("\t")
    if len(files) != 2 * len(experts):
        raise InputError(
            f"{path}, line 3: {counted(len(files), 'path')}, expected an {EMB} and an {IDX} for "
            f"each of the experts {', '.join(experts)}"
        )
    places = _integers(path, 4, lines[3].split("\t"), 3 * len(experts))
    videos = {}
    for i, (expert, dim) in enumerate(zip(experts, dims, strict=True)):
        first_byte, _, count = places[3 * i : 3 * i + 3]
        if count == 0:
            continue
        emb, idx = (_relocate(file, moved) for file in files[2 * i : 2 * i + 2])
        if (emb, idx, dim) not in dumps:
            dumps[emb, idx, dim] = {
                dumped.first_byte: dumped
                for dumped in read_pair(emb, idx, dim)
                if len(dumped.features)  # a video without features begins where the next does
            }
        dumped = dumps[emb, idx, dim].get(first_byte)
        actual = len(dumped.features) if dumped else 0
        if not dumped or actual != count or video_name(dumped.path) != path.stem:
            raise InputError(
                f"{path}, line 4: {counted(count, 'feature')} of {expert} from byte {first_byte} "
                f"of {emb}, where there are {actual} of {dumped.path if dumped else 'no video'!r}"
            )
        videos[expert] = dumped
    return videos


def _read_caption(
    path: Path,
    number: int,
    line: str,
    experts: Sequence[str],
    videos: Mapping[str, DumpedVideo],
) -> IndexedCaption:
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
    places = _integers(path, number, values[2:], 3 * min(len(experts), len(values[2:]) // 3))
    segment = {}
    for expert, first_byte, count in zip(experts, places[0::3], places[2::3], strict=False):
        if count == 0:
            continue
        if expert not in videos:
            raise InputError(f"{where}: features of {expert}, which has none according to line 4")
        video_start, features = videos[expert].first_byte, videos[expert].features
        row_bytes = features.values.shape[1] * ROW_TYPE.itemsize
        first, rest = divmod(first_byte - video_start, row_bytes)
        if rest or not 0 <= first < first + count <= len(features):
            raise InputError(
                f"{where}: {counted(count, 'feature')} of {expert} from byte {first_byte}, "
                f"expected some of the {len(features)} from byte {video_start} according to line 4"
            )
        segment[expert] = features[first : first + count]
    return IndexedCaption(Caption(path.stem, start_s, end_s, text, where), segment)


def _integers(path: Path, number: int, values: Sequence[str], count: int) -> list[int]:
    try:
        integers = [int(value) for value in values]
    except ValueError:
        integers = []
    if len(integers) != count or not integers:
        raise InputError(f"{path}, line {number}: {values}, expected {count} whole numbers")
    return integers


def _relocate(file: str, moved: tuple[str, str] | None) -> Path:
    """The path of a dump's file now, if its folder was moved."""
    if moved is None or not Path(file).is_relative_to(moved[0]):
        return Path(file)
    return Path(moved[1]) / Path(file).relative_to(moved[0])

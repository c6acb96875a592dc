"""Annotation files of the datasets people have -> captions. The content of a file tells its kind:

- MSR-VTT: JSON of `videos` and `sentences`; one split of it, the test by default.
- MSR-VTT 1k-A: CSV with the columns `key,vid_key,video_id,sentence`.
- LSMDC: six tab-separated columns without a heading: clip, four times of it in the film, sentence.
- ActivityNet Captions: JSON that has `timestamps` and `sentences` for each video.
- MSVD: CSV of Microsoft Research with `VideoID`, `Start`, `End`, `Language` and `Description`, of
  which the English ones with a text are taken; or AllVideoDescriptions.txt, lines of a clip's name,
  a space, and a sentence. Clips are called `<VideoID>_<Start>_<End>`.
- MDMMT's authors (github.com/papermsucode/mdmmt, `mdata/`): JSON that has `text`, `start` and `end`
  for each video; an end of -1 is that of the video.
- Your own: CSV with the columns `video`, `caption` and, if wanted, `start_s` and `end_s`; or JSON
  lines (.jsonl) of objects with these names. An empty or absent time is that of the whole video.

Videos are called what the file calls them. Times are seconds in the video's file; where a dataset
hands out clips that are cut already, a caption is about all of its clip.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..storage.text import numbered_lines, parse_json, read_text

PLAIN = ("video", "start_s", "end_s", "caption")
MSRVTT_1KA = ("key", "vid_key", "video_id", "sentence")
MSVD = ("VideoID", "Start", "End", "Language", "Description")
MSVD_CLIP = re.compile(r"\S+_\d+_\d+")
LSMDC_COLUMNS = 6


@dataclass(frozen=True)
class Caption:
    """A text that says what is in a segment of a video."""

    video: str
    start_s: float
    end_s: float | None  # None: where the video ends
    text: str
    where: str = field(default="", compare=False)  # the file and line it was read from


class Segment(NamedTuple):
    """A part of a video."""

    video: str
    start_s: float
    end_s: float


class Duplicate(NamedTuple):
    """Two segments that show the same, or nearly so."""

    tested: Segment  # of a test set
    trained: Segment  # of a training set


def read_captions(path: str | os.PathLike[str], split: str | None = None) -> list[Caption]:
    """The captions of an annotation file, in its order.

    Args:
        path: a file of one of the kinds that the module's text lists.
        split: which part of an MSR-VTT file is wanted, None for the test; the other kinds have one
            file for each.

    Raises:
        InputError: a file that cannot be read, is of no known kind, or has not the split that is
            asked for; or with file and line, or the number of the record: a field that is missing
            or wrong, or a caption without its video.
    """
    path = Path(path)
    if path.suffix == ".json":
        captions = list(_from_json(path, split))
    else:
        captions = list(_from_json_lines(path) if path.suffix == ".jsonl" else _from_table(path))
        _refuse_split(path, split)
    if not captions:
        raise InputError(f"{path} has no caption")
    return captions


def read_duplicates(path: str | os.PathLike[str]) -> list[Duplicate]:
    """What the authors of MDMMT found in a test set and in a training set alike.

    Args:
        path: `<test set>_<training set>.lst` of github.com/papermsucode/mdmmt, `duplicate_lists/`;
            lines of six tab-separated columns, twice a video's file name, a start and an end. The
            authors warn that times may be some seconds off.

    Raises:
        InputError: with file and line.
    """
    path = Path(path)
    found = []
    for line, where in numbered_lines(path, read_text(path)):
        values = line.split("\t")
        if len(values) != 6:
            raise InputError(f"{where}: {len(values)} columns, expected 6 separated by tabs")
        tested, trained = (
            Segment(
                _filled(values[i], where, "video"),
                _seconds(values[i + 1], where, "start"),
                _seconds(values[i + 2], where, "end"),
            )
            for i in (0, 3)
        )
        found.append(Duplicate(tested, trained))
    return found


def read_video_list(path: str | os.PathLike[str]) -> list[str]:
    """The names in a list of videos, one a line, as the authors' `lists/*/*.vids`."""
    path = Path(path)
    return [line.strip() for line, _ in numbered_lines(path, read_text(path))]


def _refuse_split(path: Path, split: str | None) -> None:
    if split is not None:
        raise InputError(
            f"{path} has no splits, of which {split!r} was asked for; expected no split, or the "
            "JSON of MSR-VTT"
        )


def _from_json(path: Path, split: str | None) -> Iterator[Caption]:
    content = parse_json(read_text(path), str(path))
    if _is_object(content) and {"videos", "sentences"} <= content.keys():
        return _from_msrvtt(path, content, "test" if split is None else split)
    records = list(content.values()) if _is_object(content) else []
    if records and all(map(_is_object, records)):
        for sign, read in (("timestamps", _from_activitynet), ("text", _from_authors)):
            if sign in records[0]:
                _refuse_split(path, split)
                return read(path, content)
    raise InputError(
        f"{path} is none of the known kinds of JSON: MSR-VTT has videos and sentences, ActivityNet "
        "Captions has timestamps and sentences for each video, MDMMT's authors have text, start "
        "and end for each video"
    )


def _from_msrvtt(path: Path, content: Mapping[str, Any], split: str) -> Iterator[Caption]:
    splits = {}
    for index, video in enumerate(_list(content, "videos", str(path))):
        where = f"{path}, video {index}"
        name = _filled(_get(video, "video_id", where), where, "video_id")
        splits[name] = _filled(_get(video, "split", where), where, "split")
    if split not in splits.values():
        there = ", ".join(sorted(set(splits.values()))) or "none"
        raise InputError(f"{path} has no video of the split {split!r}, its splits are: {there}")
    for index, sentence in enumerate(_list(content, "sentences", str(path))):
        where = f"{path}, sentence {index}"
        video = _filled(_get(sentence, "video_id", where), where, "video_id")
        text = _filled(_get(sentence, "caption", where), where, "caption")
        if video not in splits:
            raise InputError(f"{where}: the video {video!r} is not among the videos of this file")
        if splits[video] == split:
            # The times of its videos are those in the film that a clip was taken from.
            yield Caption(video, 0.0, None, text, where)


def _from_activitynet(path: Path, content: Mapping[str, Any]) -> Iterator[Caption]:
    for video, record in content.items():
        where = f"{path}, video {video!r}"
        spans, sentences = _list(record, "timestamps", where), _list(record, "sentences", where)
        if len(spans) != len(sentences):
            raise InputError(
                f"{where}: {len(spans)} timestamps and {len(sentences)} sentences, expected as "
                "many of both"
            )
        for index, (span, text) in enumerate(zip(spans, sentences, strict=True)):
            here = f"{where}, caption {index}"
            if not isinstance(span, list) or len(span) != 2:
                raise InputError(f"{here}: the timestamp {span!r}, expected [start, end]")
            start_s, end_s = _seconds(span[0], here, "start"), _seconds(span[1], here, "end")
            yield Caption(video, start_s, end_s, _filled(text, here, "sentence"), here)


def _from_authors(path: Path, content: Mapping[str, Any]) -> Iterator[Caption]:
    for video, record in content.items():
        where = f"{path}, video {video!r}"
        columns = [_list(record, name, where) for name in ("text", "start", "end")]
        if len(columns[0]) > min(map(len, columns)):
            raise InputError(
                f"{where}: {', '.join(str(len(one)) for one in columns)} values of text, start "
                "and end, expected times for each text"
            )
        # Their file for MSR-VTT has a time too many for each video.
        for index, (text, start, end) in enumerate(zip(*columns, strict=False)):
            here = f"{where}, caption {index}"
            start_s, end_s = _seconds(start, here, "start"), _seconds(end, here, "end")
            text = _filled(text, here, "text")
            yield Caption(video, start_s, None if end_s == -1 else end_s, text, here)


def _from_json_lines(path: Path) -> Iterator[Caption]:
    for line, where in numbered_lines(path, read_text(path)):
        yield _plain(parse_json(line, where), where)


def _plain(record: Any, where: str) -> Caption:
    unknown = [name for name in record if name not in PLAIN] if _is_object(record) else []
    if unknown:
        raise InputError(f"{where}: has {', '.join(unknown)}, known are {', '.join(PLAIN)}")
    video = _filled(_get(record, "video", where), where, "video")
    text = _filled(_get(record, "caption", where), where, "caption")
    start, end = (
        None if record.get(name) in (None, "") else _seconds(record[name], where, name)
        for name in ("start_s", "end_s")
    )
    start_s = start or 0.0
    if not 0 <= start_s <= (math.inf if end is None else end):
        until = "the end" if end is None else f"{end:g}"
        raise InputError(
            f"{where}: from second {start_s:g} to {until}, expected 0 <= start_s <= end_s"
        )
    return Caption(video, start_s, end, text, where)


def _from_table(path: Path) -> Iterator[Caption]:
    text = read_text(path)
    first, _ = next(numbered_lines(path, text), ("", ""))
    columns = [name.strip() for name in first.split(",")]
    if set(columns) == set(MSRVTT_1KA):
        for record, where in _rows(path, text):
            video = _filled(record["video_id"], where, "video_id")
            yield Caption(video, 0.0, None, _filled(record["sentence"], where, "sentence"), where)
    elif set(MSVD) <= set(columns):
        for record, where in _rows(path, text):
            if record["Language"] == "English" and record["Description"].strip():
                clip = "_".join(_filled(record[name], where, name) for name in MSVD[:3])
                yield Caption(clip, 0.0, None, record["Description"], where)
    elif {"video", "caption"} <= set(columns) <= set(PLAIN):
        for record, where in _rows(path, text):
            yield _plain(record, where)
    elif "\t" in first:
        yield from _from_lsmdc(path, text)
    elif first.startswith("#") or MSVD_CLIP.fullmatch(first.split(" ")[0]):
        yield from _from_msvd_text(path, text)
    else:
        raise InputError(
            f"{path}, line 1: {first[:100]!r}, expected the columns {','.join(PLAIN)}, or those of "
            f"MSR-VTT 1k-A ({','.join(MSRVTT_1KA)}), MSVD ({','.join(MSVD)}) or LSMDC "
            f"({LSMDC_COLUMNS} separated by tabs)"
        )


def _from_lsmdc(path: Path, text: str) -> Iterator[Caption]:
    for line, where in numbered_lines(path, text):
        values = line.split("\t")
        if len(values) != LSMDC_COLUMNS:
            raise InputError(
                f"{where}: {len(values)} columns, expected the {LSMDC_COLUMNS} of LSMDC, separated "
                "by tabs: clip, start and end aligned, start and end extracted, sentence"
            )
        video = _filled(values[0], where, "clip")
        yield Caption(video, 0.0, None, _filled(values[-1], where, "sentence"), where)


def _from_msvd_text(path: Path, text: str) -> Iterator[Caption]:
    for line, where in numbered_lines(path, text):
        if line.startswith("#"):
            continue
        clip, _, sentence = line.partition(" ")
        if not MSVD_CLIP.fullmatch(clip):
            raise InputError(f"{where}: {line[:100]!r}, expected <VideoID>_<Start>_<End> sentence")
        yield Caption(clip, 0.0, None, _filled(sentence, where, "sentence"), where)


def _rows(path: Path, text: str) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a CSV file by its heading, and where each of them ends."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    try:
        for values in reader:
            if not values:  # a blank line
                continue
            where = f"{path}, line {reader.line_num}"
            if columns is None:
                columns = [name.strip() for name in values]
            elif len(values) != len(columns):
                raise InputError(
                    f"{where}: {len(values)} columns, expected {len(columns)}: {','.join(columns)}"
                )
            else:
                yield dict(zip(columns, values, strict=True)), where
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from error


def _is_object(record: Any) -> bool:
    return isinstance(record, Mapping)


def _get(record: Any, name: str, where: str) -> Any:
    if not _is_object(record):
        raise InputError(f"{where}: is a {type(record).__name__}, expected an object")
    if name not in record:
        raise InputError(f"{where}: has no {name}, but {', '.join(map(str, record)) or 'nothing'}")
    return record[name]


def _list(record: Any, name: str, where: str) -> Sequence[Any]:
    value = _get(record, name, where)
    if not isinstance(value, list):
        raise InputError(f"{where}: {name} is a {type(value).__name__}, expected a list")
    return value


def _filled(value: Any, where: str, name: str) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {name} is {value!r}, expected a text")
    return value.strip()


def _seconds(value: Any, where: str, name: str) -> float:
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"{where}: {name} is {value!r}, expected seconds")
    return seconds

"""Annotation files -> captions: one reader for each format that the usual datasets come in.

The content of a file tells its format. To add one, write a reader and a line of `FORMATS` below.

Videos keep the names that the file gives them. Times are seconds in the video's file. Where a
dataset hands out clips that were cut from longer videos, a caption describes the whole clip.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..storage.text import counted, numbered_lines, parse_json, read_text
from .fields import checked_seconds, checked_text, get_list, get_text

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt")
OWN_FIELDS = ("video", "start_s", "end_s", "caption")
MSRVTT_DEFAULT_SPLIT = "test"
MSRVTT_1KA_COLUMNS = ("key", "vid_key", "video_id", "sentence")
MSVD_COLUMNS = ("VideoID", "Start", "End", "Language", "Description")
MSVD_CLIP = re.compile(r"\S+_\d+_\d+")  # <VideoID>_<Start>_<End>
LSMDC_COLUMNS = 6


@dataclass(frozen=True)
class Caption:
    """A text that describes a segment of a video."""

    video: str
    start_s: float
    end_s: float | None  # None: the end of the video
    text: str
    where: str = field(default="", compare=False)  # the file and line it was read from


@dataclass(frozen=True)
class AnnotationFile:
    """The content of an annotation file, from which the formats are told apart."""

    path: Path
    text: str
    parsed: Any  # the JSON of a .json file; None for all other files
    split: str  # the one that is read, if the format has splits

    @cached_property
    def first_line(self) -> str:
        """The first line that is not blank; '' for JSON and JSON lines."""
        if self.path.suffix in (".json", ".jsonl"):
            return ""
        return next((line for line, _ in numbered_lines(self.path, self.text)), "")

    @property
    def columns(self) -> set[str]:
        """The names in the first line, as in the heading of a CSV file."""
        return {name.strip() for name in self.first_line.split(",")}


class Format(NamedTuple):
    """A format of annotation files."""

    name: str
    layout: str  # for a person, in the message that no format fits a file
    matches: Callable[[AnnotationFile], bool]
    read: Callable[[AnnotationFile], Iterator[Caption]]
    has_splits: bool = False


def read_captions(
    path: str | os.PathLike[str],
    split: str | None = None,
    default_split: str = MSRVTT_DEFAULT_SPLIT,
) -> list[Caption]:
    """Read the captions of an annotation file, in the order of the file.

    Args:
        path: a file in one of the `FORMATS`.
        split: the split to read of an MSR-VTT file, None for the default one. The other formats
            have a file for each split and take None alone.
        default_split: of an MSR-VTT file. The other formats take any.

    Raises:
        InputError: the file cannot be read, is in no known format, or lacks the split. A field that
            is missing or wrong, or a caption without its video, is named by file and line, or by
            file and number of the record.
    """
    path = Path(path)
    text = read_text(path)
    parsed = parse_json(text, str(path)) if path.suffix == ".json" else None
    file = AnnotationFile(path, text, parsed, default_split if split is None else split)
    file_format = _format_of(file)
    if split is not None and not file_format.has_splits:
        raise InputError(
            f"{path} is in the format {file_format.name}, which has no splits; expected no split "
            f"instead of {split!r}"
        )
    captions = list(file_format.read(file))
    if not captions:
        raise InputError(f"{path} has no caption")
    return captions


def _format_of(file: AnnotationFile) -> Format:
    for candidate in FORMATS:
        if candidate.matches(file):
            return candidate
    line = "" if file.path.suffix == ".json" else f", line 1: {file.first_line[:100]!r}"
    known = "; ".join(f"{one.name} ({one.layout})" for one in FORMATS)
    raise InputError(f"{file.path}{line}: is in no known format, expected one of: {known}")


# MSR-VTT, one JSON file of all splits.


def _is_msrvtt(file: AnnotationFile) -> bool:
    return isinstance(file.parsed, dict) and {"videos", "sentences"} <= file.parsed.keys()


def _read_msrvtt(file: AnnotationFile) -> Iterator[Caption]:
    path = file.path
    splits = {}
    for number, video in enumerate(get_list(file.parsed, "videos", str(path)), start=1):
        where = f"{path}, video {number}"
        splits[get_text(video, "video_id", where)] = get_text(video, "split", where)
    if file.split not in splits.values():
        known = ", ".join(sorted(set(splits.values()))) or "none"
        raise InputError(
            f"{path} has no video of the split {file.split!r}, its splits are: {known}"
        )
    for number, sentence in enumerate(get_list(file.parsed, "sentences", str(path)), start=1):
        where = f"{path}, sentence {number}"
        name = get_text(sentence, "video_id", where)
        text = get_text(sentence, "caption", where)
        if name not in splits:
            raise InputError(f"{where}: the video {name!r} is not among the videos of this file")
        if splits[name] == file.split:
            # The start and end in the file are times in the film from which the clip was cut.
            yield Caption(name, 0.0, None, text, where)


# ActivityNet Captions, and MDMMT's authors: JSON with a record for each video.


def _has_records_with(name: str) -> Callable[[AnnotationFile], bool]:
    def matches(file: AnnotationFile) -> bool:
        records = list(file.parsed.values()) if isinstance(file.parsed, dict) else []
        return (
            bool(records) and all(isinstance(one, dict) for one in records) and name in records[0]
        )

    return matches


def _read_activitynet(file: AnnotationFile) -> Iterator[Caption]:
    for video, record in file.parsed.items():
        where = f"{file.path}, video {video!r}"
        spans, sentences = (
            get_list(record, "timestamps", where),
            get_list(record, "sentences", where),
        )
        if len(spans) != len(sentences):
            raise InputError(
                f"{where}: {counted(len(spans), 'timestamp')} and "
                f"{counted(len(sentences), 'sentence')}, expected as many of both"
            )
        captions = zip(spans, sentences, strict=True)
        for number, (span, text) in enumerate(captions, start=1):
            here = f"{where}, caption {number}"
            if not isinstance(span, list) or len(span) != 2:
                raise InputError(f"{here}: the timestamp {span!r}, expected [start, end]")
            start_s = checked_seconds(span[0], "start", here)
            end_s = checked_seconds(span[1], "end", here)
            yield Caption(video, start_s, end_s, checked_text(text, "sentence", here), here)


def _read_authors(file: AnnotationFile) -> Iterator[Caption]:
    """`mdata/` of github.com/papermsucode/mdmmt. An end of -1 is the end of the video."""
    for video, record in file.parsed.items():
        where = f"{file.path}, video {video!r}"
        texts, starts, ends = (get_list(record, name, where) for name in ("text", "start", "end"))
        if len(texts) > min(len(starts), len(ends)):
            raise InputError(
                f"{where}: {len(texts)}, {len(starts)}, {len(ends)} values of text, start and end, "
                "expected times for each text"
            )
        # Not strict: the authors' file for MSR-VTT has one time too many for each video.
        captions = zip(texts, starts, ends, strict=False)
        for number, (text, start, end) in enumerate(captions, start=1):
            here = f"{where}, caption {number}"
            start_s = checked_seconds(start, "start", here)
            end_s = checked_seconds(end, "end", here)
            text = checked_text(text, "text", here)
            yield Caption(video, start_s, None if end_s == -1 else end_s, text, here)


# MSR-VTT 1k-A and MSVD as CSV.


def _is_msrvtt_1ka(file: AnnotationFile) -> bool:
    return file.columns == set(MSRVTT_1KA_COLUMNS)


def _read_msrvtt_1ka(file: AnnotationFile) -> Iterator[Caption]:
    for record, where in _csv_rows(file):
        video, text = get_text(record, "video_id", where), get_text(record, "sentence", where)
        yield Caption(video, 0.0, None, text, where)


def _is_msvd(file: AnnotationFile) -> bool:
    return set(MSVD_COLUMNS) <= file.columns


def _read_msvd(file: AnnotationFile) -> Iterator[Caption]:
    """Yield the English descriptions that are not empty."""
    for record, where in _csv_rows(file):
        if record["Language"] == "English" and record["Description"].strip():
            clip = "_".join(get_text(record, name, where) for name in ("VideoID", "Start", "End"))
            yield Caption(clip, 0.0, None, record["Description"], where)


# MSVD as AllVideoDescriptions.txt.


def _is_msvd_text(file: AnnotationFile) -> bool:
    line = file.first_line
    return line.startswith("#") or bool(MSVD_CLIP.fullmatch(line.split(" ")[0]))


def _read_msvd_text(file: AnnotationFile) -> Iterator[Caption]:
    for line, where in numbered_lines(file.path, file.text):
        if line.startswith("#"):
            continue
        clip, _, sentence = line.partition(" ")
        if not MSVD_CLIP.fullmatch(clip):
            raise InputError(f"{where}: {line[:100]!r}, expected <VideoID>_<Start>_<End> sentence")
        yield Caption(clip, 0.0, None, checked_text(sentence, "sentence", where), where)


# LSMDC: tab-separated columns without a heading.


def _is_lsmdc(file: AnnotationFile) -> bool:
    return "\t" in file.first_line


def _read_lsmdc(file: AnnotationFile) -> Iterator[Caption]:
    """Yield one caption for each clip. The four times in a line are those of the film."""
    for line, where in numbered_lines(file.path, file.text):
        values = line.split("\t")
        if len(values) != LSMDC_COLUMNS:
            raise InputError(
                f"{where}: {counted(len(values), 'column')}, expected the {LSMDC_COLUMNS} of LSMDC "
                "with tabs between them: clip, start and end aligned, start and end extracted, "
                "sentence"
            )
        video = checked_text(values[0], "clip", where)
        yield Caption(video, 0.0, None, checked_text(values[-1], "sentence", where), where)


# The user's own, as CSV or JSON lines.


def _is_own_csv(file: AnnotationFile) -> bool:
    return {"video", "caption"} <= file.columns <= set(OWN_FIELDS)


def _read_own_csv(file: AnnotationFile) -> Iterator[Caption]:
    for record, where in _csv_rows(file):
        yield _own_caption(record, where)


def _is_own_json_lines(file: AnnotationFile) -> bool:
    return file.path.suffix == ".jsonl"


def _read_own_json_lines(file: AnnotationFile) -> Iterator[Caption]:
    for line, where in numbered_lines(file.path, file.text):
        yield _own_caption(parse_json(line, where), where)


def _own_caption(record: Any, where: str) -> Caption:
    """The caption of one record. A missing or empty time means the start or end of the video."""
    unknown = (
        [name for name in record if name not in OWN_FIELDS] if isinstance(record, dict) else []
    )
    if unknown:
        raise InputError(f"{where}: has {', '.join(unknown)}, known are {', '.join(OWN_FIELDS)}")
    video, text = get_text(record, "video", where), get_text(record, "caption", where)
    start, end = (
        None if record.get(name) in (None, "") else checked_seconds(record[name], name, where)
        for name in ("start_s", "end_s")
    )
    start_s = start or 0.0
    if not 0 <= start_s <= (math.inf if end is None else end):
        until = "the end" if end is None else f"{end:g}"
        raise InputError(
            f"{where}: from second {start_s:g} to {until}, expected 0 <= start_s <= end_s"
        )
    return Caption(video, start_s, end, text, where)


def _csv_rows(file: AnnotationFile) -> Iterator[tuple[dict[str, str], str]]:
    """Yield the rows of a CSV file by its heading, each with the line on which it ends."""
    reader = csv.reader(io.StringIO(file.text, newline=""), strict=True)
    columns: list[str] | None = None
    try:
        for values in reader:
            if not values:  # a blank line
                continue
            where = f"{file.path}, line {reader.line_num}"
            if columns is None:
                columns = [name.strip() for name in values]
            elif len(values) != len(columns):
                raise InputError(
                    f"{where}: {counted(len(values), 'column')}, expected {len(columns)}: "
                    f"{','.join(columns)}"
                )
            else:
                yield dict(zip(columns, values, strict=True)), where
    except csv.Error as error:
        raise InputError(f"{file.path}, line {reader.line_num}: {error}") from error


FORMATS = (  # the first that matches a file reads it
    Format(
        "MSR-VTT",
        "JSON with videos and sentences",
        _is_msrvtt,
        _read_msrvtt,
        has_splits=True,
    ),
    Format(
        "ActivityNet Captions",
        "JSON with timestamps and sentences for each video",
        _has_records_with("timestamps"),
        _read_activitynet,
    ),
    Format(
        "MDMMT's authors",
        "JSON with text, start and end for each video",
        _has_records_with("text"),
        _read_authors,
    ),
    Format(
        "MSR-VTT 1k-A",
        f"CSV with {','.join(MSRVTT_1KA_COLUMNS)}",
        _is_msrvtt_1ka,
        _read_msrvtt_1ka,
    ),
    Format("MSVD", f"CSV with {','.join(MSVD_COLUMNS)}", _is_msvd, _read_msvd),
    Format("LSMDC", f"{LSMDC_COLUMNS} tab-separated columns", _is_lsmdc, _read_lsmdc),
    Format(
        "MSVD's AllVideoDescriptions.txt",
        "lines of <VideoID>_<Start>_<End>, a space and a sentence",
        _is_msvd_text,
        _read_msvd_text,
    ),
    Format("CSV", f"with {','.join(OWN_FIELDS)}", _is_own_csv, _read_own_csv),
    Format(
        "JSON lines",
        f"a .jsonl file of objects with {', '.join(OWN_FIELDS)}",
        _is_own_json_lines,
        _read_own_json_lines,
    ),
)

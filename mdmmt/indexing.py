"""Many videos -> an index of their windows; what is done is kept, so a stopped run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InputError
from .feature_files import SUFFIX, read_features
from .files import sha256_of
from .index import Index

if TYPE_CHECKING:
    from .model import Model

PATH = "path"  # names the file in a line of metadata


class Outcome(NamedTuple):
    """What became of one file."""

    path: str
    windows: int  # that were added
    kept: bool  # the index had them already
    error: str | None  # why it has none


def index_files(
    index: Index,
    model: Model,
    paths: Iterable[str],
    window_s: float | None = None,
    stride_s: float | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Outcome]:
    """Add the windows of each file, one file by the other, unless they are there.

    Args:
        paths: video files, which the index knows by their absolute paths, and feature files, which
            it knows by their videos' names.
        window_s, stride_s: see `Model.encode_segments`.
        metadata: of some files, by their path.
    """
    for path in paths:
        about = (metadata or {}).get(path, {})
        try:
            name, content = os.path.abspath(path), ""
            if Path(path).suffix == SUFFIX:
                source = read_features(Path(path)).source
                name, content = source.name, source.sha256
            content = content or sha256_of(Path(path))
            source = json.dumps([content, window_s, stride_s, about], sort_keys=True)
            if index.holds(name, source):
                yield Outcome(path, 0, True, None)
                continue
            found = model.encode_segments(path, window_s=window_s, stride_s=stride_s)
            index.add(name, found, source, about)
        except (InputError, OSError) as error:
            yield Outcome(path, 0, False, str(error))
        else:
            yield Outcome(path, len(found.vectors), False, None)


def read_metadata(file: Path) -> dict[str, dict[str, Any]]:
    """What is known of some files besides: JSON lines, `{"path": "a.mp4", "year": 2021}`.

    Raises:
        InputError: with file and line.
    """
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            found[record.pop(PATH)] = record
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise InputError(
                f"{file}, line {number}: {line[:80]!r}, expected a JSON object with a {PATH!r}"
            ) from error
    return found

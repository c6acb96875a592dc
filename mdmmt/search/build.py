"""Many videos -> an index of their windows; what is done is kept, so a stopped run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError, describe_error
from ..features.files import find_feature_files, read_header
from ..storage.files import sha256_of
from ..storage.text import numbered_lines, parse_json, read_text
from .index import Index, checked_metadata

if TYPE_CHECKING:
    from ..model import Model

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
    features: Path | None = None,
) -> Iterator[Outcome]:
    """Add the windows of each file, one file by the other, unless they are there.

    Args:
        paths: video files and feature files; the index knows them by their absolute paths.
        window_s, stride_s: see `Model.encode_segments`.
        metadata: of some files, by their absolute paths, see `read_metadata`; the others keep
            what the index has of them.
        features: a folder of feature files; that of a video, of the same content and with all
            that the model's experts found in it, spares running them.

    Raises:
        InputError: no feature file is in `features`.
    """
    metadata = metadata or {}
    experts = list(model.reader.names)
    made_before: dict[str, list[Path]] = {}
    for file, video in find_feature_files(features) if features else ():
        made_before.setdefault(video.name, []).append(file)
    for path in paths:
        name = os.path.abspath(path)
        try:
            if not os.path.isfile(path):
                raise InputError("there is no such file")
            content = sha256_of(Path(path))
            known = index.metadata(name)
            about = metadata.get(name, known)
            files = made_before.get(os.path.basename(path), ())
            made, versions = _made_before(files, content, experts)
            facts = [content, window_s, stride_s, experts]
            held = index.source(name)
            if held is not None and _is_of(held, facts, versions):
                if about != known:
                    index.add(name, index.segments(name), held, about)
                yield Outcome(path, 0, True, None)
                continue
            found = model.encode_segments(made or path, window_s=window_s, stride_s=stride_s)
            source = json.dumps({"facts": facts, "versions": versions})
            index.add(name, found, source, about)
        except Exception as error:  # what a file makes a decoder raise must not end the run
            yield Outcome(path, 0, False, describe_error(error))
        else:
            yield Outcome(path, len(found.vectors), False, None)


def _made_before(
    files: Iterable[Path], content: str, experts: Sequence[str]
) -> tuple[Path | None, dict[str, str] | None]:
    """The feature file of this content by all of these experts, and their versions."""
    for file in files:
        try:
            source, versions = read_header(file)
        except InputError:  # as good as none
            continue
        if source.sha256 == content and set(experts) <= set(versions):
            return file, {name: versions[name] for name in experts}
    return None, None


def _is_of(held: str, facts: list[Any], versions: Mapping[str, str] | None) -> bool:
    """Whether what the index holds by this `source` is what would be made again.

    Without a feature file, the versions of the experts are not known before they are run.
    """
    try:
        was = json.loads(held)
        return was["facts"] == facts and versions in (None, was["versions"])
    except (KeyError, TypeError, ValueError):  # of another program
        return False


def read_metadata(file: Path) -> dict[str, dict[str, Any]]:
    """What is known of some files besides: JSON lines, `{"path": "a.mp4", "year": 2021}`.

    Returns:
        by the absolute path; a path in the file may be relative to the current folder.

    Raises:
        InputError: with file and line.
    """
    found: dict[str, dict[str, Any]] = {}
    for line, where in numbered_lines(file, read_text(file)):
        record = parse_json(line, where)
        if not isinstance(record, dict) or not isinstance(record.get(PATH), str):
            raise InputError(f"{where}: {line[:80]!r}, expected a JSON object with a {PATH!r}")
        path = os.path.abspath(record.pop(PATH))
        if path in found:
            raise InputError(f"{where}: there was a line of {path!r} before")
        try:
            found[path] = checked_metadata(record)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return found

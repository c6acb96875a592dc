"""Add many video files to an index; a run that was stopped goes on where it ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..background import in_caller
from ..batch.outcome import Outcome, run_each
from ..errors import InputError
from ..features.files import SUFFIX, FeatureFolder, read_header
from ..features.listing import find_videos_or_features
from ..model import Model
from ..storage.files import check_file, sha256_of
from ..storage.text import numbered_lines, parse_json, read_text
from .checks import checked_metadata
from .index import Index
from .sources import MixtureCheck, Source

PATH = "path"  # the field of a line of metadata that names the file


def index_files(
    index: Index,
    model: Model,
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    window_s: float | None = None,
    stride_s: float | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    features: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    restore: bool = False,
) -> Iterator[Outcome[int]]:
    """Add the windows of each file, one file after the other, unless the index has them.

    Args:
        paths: video files, feature files and folders of them, see
            `mdmmt.features.find_videos_or_features`; the index stores their absolute paths.
        window_s, stride_s: see `Model.encode_segments`.
        metadata: of files, by absolute path, see `read_metadata`; a file that it leaves out keeps
            the metadata that the index has.
        features: a folder of feature files. A video is not decoded if the folder has the features
            of all experts of the model for the same content.
        jobs: how many files are read at once. They are added in the order of the paths.
        restore: whether files are added again that `Index.delete` has removed with `keep_out`.

    Returns:
        An outcome for each path, with the result of `index_file`. A file that is left out, as it
        was deleted, has none.

    Raises:
        InputError: `features` holds no feature file, or `jobs` is not above 0.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    found = find_videos_or_features(given)
    folder = FeatureFolder(Path(features)) if features else None
    mixture = MixtureCheck(index)

    def read(path: str) -> Callable[[], int]:
        about = (metadata or {}).get(os.path.abspath(path))
        files = folder.files_of(os.path.basename(path)) if folder else ()
        return _read_file(index, mixture, model, path, window_s, stride_s, about, files)

    wanted = ((path, path) for path in found if restore or not was_deleted(index, path))
    return _add_each(run_each(wanted, read, jobs))


def was_deleted(index: Index, path: str) -> bool:
    """Whether a build leaves a file out, since it was deleted.

    A file whose path no index can hold was not, so the build comes to it and names it.
    """
    try:
        return index.is_deleted(os.path.abspath(path))
    except InputError:
        return False


def _add_each(outcomes: Iterable[Outcome[Callable[[], int]]]) -> Iterator[Outcome[int]]:
    for outcome in outcomes:
        if outcome.result is None:
            yield Outcome(outcome.name, None, outcome.error)
        else:
            yield from run_each([(outcome.name, outcome.result)], lambda add: add())


def index_file(
    index: Index,
    model: Model,
    path: str | os.PathLike[str],
    window_s: float | None = None,
    stride_s: float | None = None,
    metadata: Mapping[str, Any] | None = None,
    feature_files: Sequence[str | os.PathLike[str]] = (),
) -> int:
    """Add the windows of one file, unless the index has them.

    Args:
        path: a video file or a feature file; the index stores its absolute path.
        window_s, stride_s: see `Model.encode_segments`.
        metadata: of the file. None keeps what the index has.
        feature_files: feature files that may be of this video; the first one with the same content
            and the features of all experts is used instead of the video.

    Returns:
        The number of windows that were added; 0 if the index had them already.

    Raises:
        InputError: the file is missing, or `Model.encode_segments` refuses it; or the index holds
            features of other versions of the experts, or of another clock.
    """
    mixture = MixtureCheck(index)
    files = [Path(file) for file in feature_files]
    add = _read_file(index, mixture, model, os.fspath(path), window_s, stride_s, metadata, files)
    return add()


def _read_file(
    index: Index,
    mixture: MixtureCheck,
    model: Model,
    path: str,
    window_s: float | None,
    stride_s: float | None,
    metadata: Mapping[str, Any] | None,
    feature_files: Sequence[Path],
) -> Callable[[], int]:
    """Read one file; the function that is returned adds it and returns the result."""
    check_file(path, "a video file or a feature file")
    name = os.path.abspath(path)
    content = sha256_of(Path(path))
    experts = list(model.expert_names)
    file = next(matching_feature_files(feature_files, content, experts), None)
    if file is None and Path(path).suffix == SUFFIX:
        file = Path(path)
    # The windows depend on these facts and on the versions and the clock of the features. If none
    # of them has changed, neither have the windows. Without a feature file, the versions are not
    # known until the experts are loaded, and count as unchanged.
    facts = [content, window_s, stride_s, experts]
    source = Source(facts, *model.reader.versions_of(file)) if file else Source(facts, None, None)

    def update_if_current() -> bool:
        stored_text, stored_metadata = index.source(name), index.metadata(name)
        if stored_text is None or not _is_current(Source.parse(stored_text), source):
            return False
        if metadata not in (None, stored_metadata):
            index.add(name, index.segments(name), stored_text, metadata)
        return True

    if in_caller(update_if_current):
        return lambda: 0
    if not file:
        source = Source(facts, *model.reader.versions_of(path))
    in_caller(lambda: mixture.check(name, source))
    segments = model.encode_segments(file or path, window_s=window_s, stride_s=stride_s)

    def add() -> int:
        if update_if_current():  # the same path came before, and was read at the same time
            return 0
        mixture.check(name, source)
        kept = index.metadata(name) if metadata is None else metadata
        index.add(name, segments, str(source), kept)
        mixture.note_added(source)
        return len(segments.vectors)

    return add


def matching_feature_files(
    files: Iterable[Path], content: str, experts: Sequence[str]
) -> Iterator[Path]:
    """Yield the feature files of this content by all of these experts."""
    for file in files:
        try:
            source, versions, _ = read_header(file)
        except InputError:  # a damaged feature file counts as missing
            continue
        if source.sha256 == content and set(experts) <= set(versions):
            yield file


def _is_current(stored: Source | None, source: Source) -> bool:
    """Whether the windows of the index have the same sources, as far as those are known."""
    return stored is not None and (stored == source or source == Source(stored.facts, None, None))


def read_metadata(file: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Read the metadata of files from JSON lines, such as `{"path": "a.mp4", "year": 2021}`.

    Returns:
        The metadata by absolute path; a path in the file may be relative to the current folder.

    Raises:
        InputError: naming the file and the line.
    """
    file = Path(file)
    metadata: dict[str, dict[str, Any]] = {}
    for line, where in numbered_lines(file, read_text(file)):
        record = parse_json(line, where)
        if not isinstance(record, dict) or not isinstance(record.get(PATH), str):
            raise InputError(f"{where}: {line[:80]!r}, expected a JSON object with a {PATH!r}")
        path = os.path.abspath(record.pop(PATH))
        if path in metadata:
            raise InputError(f"{where}: an earlier line names {path!r} as well")
        try:
            metadata[path] = checked_metadata(record)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return metadata

"""Feature files: the features of one video on disk, as `mdmmt extract` writes them.

A feature file is a safetensors file. For each expert it holds `features.NAME` (n, d) float32 and
`times.NAME` (n, 2) float64, the seconds at which each feature begins and ends, over the whole
video. Its header names the video (name, size, SHA-256), the version of each expert that was run,
and the clock of the times, which is 'track' if the header names none. An expert that made no
features, such as one for sound in a silent film, has a version only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import InputError
from ..experts.base import Expert
from ..media.specs import CLOCKS, MEDIA_VERSION, Clock
from ..storage.files import LOCK_FILE, atomic_file, sha256_of, visible_files
from .types import ExpertFeatures, VideoFeatures

SUFFIX = ".safetensors"
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".wmv", ".asf", ".flv", ".3gp", ".ogv", ".vob", ".mxf", ".gif"),
)  # suffixes of the videos in a folder; a named file may have any suffix
FORMAT = "mdmmt-features-1"
VALUES, TIMES = "features.", "times."  # how the names of tensors begin
EXPERT_NAME = re.compile(r"\w[\w.-]*", re.ASCII)  # names cannot lead out of a folder


@dataclass(frozen=True)
class SourceVideo:
    """The video file that features were made from, identified by its hash."""

    name: str  # without its folder
    size_bytes: int | None  # None: unknown, as of features that came without their video
    sha256: str | None

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> SourceVideo:
        """Describe a file, which is read to the end for its hash."""
        path = Path(path)
        return cls(path.name, path.stat().st_size, sha256_of(path))


@dataclass(frozen=True)
class FeatureFile:
    """The content of a feature file."""

    features: VideoFeatures
    source: SourceVideo
    versions: Mapping[str, str]  # of each expert that was run
    clock: Clock = "file"  # of the times, see `mdmmt.features.extract`

    def with_experts(
        self, features: VideoFeatures, versions: Mapping[str, str], clock: Clock = "file"
    ) -> FeatureFile:
        """A copy in which these experts' features and versions are added or replaced.

        Raises:
            InputError: features of other experts, which stay, go by another clock.
        """
        others = {name: one for name, one in self.features.items() if name not in versions}
        if others and clock != self.clock:
            raise InputError(
                f"the features of {', '.join(others)} go by the clock {self.clock!r} and those of "
                f"{', '.join(versions)} by {clock!r}, which one file cannot hold; expected one "
                "clock, or all of these experts"
            )
        features, versions = others | dict(features), {**self.versions, **versions}
        return FeatureFile(features, self.source, versions, clock)


class FeatureHeader(NamedTuple):
    """What the header of a feature file says."""

    source: SourceVideo
    versions: dict[str, str]  # of each expert that was run
    clock: Clock


def versions_of(experts: Mapping[str, Expert]) -> dict[str, str]:
    """The versions of experts and decoding: features of different versions must not be mixed."""
    return {name: f"{one.version}, media {MEDIA_VERSION}" for name, one in experts.items()}


def write_features(path: str | os.PathLike[str], content: FeatureFile) -> None:
    """Write a feature file. It appears whole or not at all."""
    tensors = {}
    for name, features in content.features.items():
        tensors[VALUES + name] = np.ascontiguousarray(features.values)
        tensors[TIMES + name] = np.ascontiguousarray(features.times_s)
    header = {
        "format": FORMAT,
        "source": json.dumps(asdict(content.source)),
        "experts": json.dumps(dict(content.versions)),
        "clock": content.clock,
    }
    with atomic_file(Path(path)) as part:
        part.write_bytes(save(tensors, header))


def find_feature_files(folder: Path) -> list[tuple[Path, Path]]:
    """Find the feature files below a folder.

    Returns:
        the path of each file, and the path of its video relative to the folder.

    Raises:
        InputError: the folder holds no feature file.
    """
    files = sorted(file for file in visible_files(folder) if file.name.endswith(SUFFIX))
    if not files:
        raise InputError(
            f"there is no feature file ({SUFFIX}) in {str(folder)!r}; `mdmmt extract` writes them"
        )
    return [
        (file, file.relative_to(folder).with_name(file.name.removesuffix(SUFFIX))) for file in files
    ]


def read_header(path: Path) -> FeatureHeader:
    """Read the header of a feature file.

    Raises:
        InputError: the file cannot be read, or is not a feature file.
    """
    with _open(path) as file:
        return _parse_header(path, file)


def read_features(path: str | os.PathLike[str]) -> FeatureFile:
    """Read a feature file.

    Raises:
        InputError: the file cannot be read, is not a feature file, or contradicts itself.
    """
    path = Path(path)
    with _open(path) as file:
        source, versions, clock = _parse_header(path, file)
        try:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
        except TypeError as error:  # a kind of number that NumPy does not have
            raise InputError(f"{str(path)!r} is not a feature file: {error}") from error
    features = {}
    for name in versions:
        values, times_s = (tensors.pop(kind + name, None) for kind in (VALUES, TIMES))
        if values is None and times_s is None:
            continue
        try:
            if values.dtype != np.float32 or times_s.dtype != np.float64 or not len(values):
                raise ValueError
            features[name] = ExpertFeatures(values, times_s)
        except (AttributeError, TypeError, ValueError) as error:  # InputError is a ValueError
            raise InputError(
                f"{path}: features and times of the expert {name} do not fit together"
            ) from error
    if tensors:
        raise InputError(f"{path} holds {', '.join(tensors)}, which belong to none of its experts")
    return FeatureFile(features, source, versions, clock)


class Existing(NamedTuple):
    """The features that a file has of a video already."""

    content: FeatureFile  # empty if the file is missing or useless
    useless: str = ""  # why the file is useless; "" for a good or a missing file


def read_existing(path: Path, source: SourceVideo) -> Existing:
    """Read the features that a file has of a video already.

    Raises:
        InputError: the file exists and may not be read, so it must not be replaced either.
    """
    nothing = FeatureFile({}, source, {})
    try:
        content = read_features(path)
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise
        missing = isinstance(cause, FileNotFoundError)
        return Existing(nothing, "" if missing else f"it is damaged ({error})")
    same = (content.source.size_bytes, content.source.sha256) == (source.size_bytes, source.sha256)
    if not same:
        return Existing(nothing, "it is of another video")
    return Existing(replace(content, source=source))  # the video may have been renamed


def update_features(
    path: Path,
    source: SourceVideo,
    features: VideoFeatures,
    versions: Mapping[str, str],
    clock: Clock = "file",
) -> None:
    """Add or replace the features of some experts in the feature file of a video.

    The folder is locked from reading to writing, so that several processes can add the features of
    different experts to one file.

    Args:
        versions: of each expert that was run, with or without features.
        clock: of the times.

    Raises:
        InputError: see `read_existing` and `FeatureFile.with_experts`.
    """
    import filelock  # torch requires it; the operator, which reads this module, does not need it

    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(LOCK_FILE)):
        existing = read_existing(path, source).content
        content = existing.with_experts(features, versions, clock)
        write_features(path, content)


class FeatureFolder(Mapping[str, VideoFeatures]):
    """The features of the videos in a folder, each file read when its video is asked for.

    A key is a video's path below the folder or its file name, either with or without the suffix. A
    video whose suffix the folder does not know, as of an author's dump, is found with any.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Find the feature files; none of them is read yet.

        Raises:
            InputError: the folder holds no feature file.
        """
        self._files: dict[str, set[Path]] = {}
        self._whole_names: dict[str, set[Path]] = {}
        found = find_feature_files(Path(folder))
        self._videos = [str(video) for _, video in found]
        for file, video in found:
            keys = (str(video), str(video.with_suffix("")), video.name, video.stem)
            for key in keys:
                self._files.setdefault(key, set()).add(file)
            for key in (str(video), video.name):
                self._whole_names.setdefault(key, set()).add(file)

    def __getitem__(self, video: str) -> VideoFeatures:
        """Read the features of a video.

        Raises:
            KeyError: the folder has no features of this video.
            InputError: several videos have this name, or `read_features` refuses the file.
        """
        return read_features(self._file_of(video)).features

    def videos(self) -> list[str]:
        """The path of each video below the folder, where the mapping has several keys for each."""
        return list(self._videos)

    def header(self, video: str) -> FeatureHeader:
        """The header of a video's feature file. Errors are those of `folder[video]`."""
        return read_header(self._file_of(video))

    def _file_of(self, video: str) -> Path:
        files = self.files_of(video)
        if not files:
            raise KeyError(video)
        if len(files) > 1:
            raise InputError(f"the video {video!r} could be any of {', '.join(map(str, files))}")
        return files[0]

    def files_of(self, video: str) -> list[Path]:
        """The feature files of the videos with this name or path; none is read."""
        stem, suffix = os.path.splitext(video)
        files = self._files.get(video)
        if files is None and suffix.lower() in VIDEO_SUFFIXES:
            files = self._whole_names.get(stem)  # of a video whose suffix is not known
        return sorted(files or ())

    def __contains__(self, video: object) -> bool:
        return isinstance(video, str) and bool(self.files_of(video))

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _open(path: Path) -> safe_open:
    try:
        path.open("rb").close()  # safetensors reports a file without permission as missing
        return safe_open(path, framework="numpy")
    except FileNotFoundError as error:
        raise InputError(f"there is no file {str(path)!r}") from error
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise InputError(f"{str(path)!r} is not a readable feature file: {error}") from error


def _parse_header(path: Path, file: safe_open) -> FeatureHeader:
    header = file.metadata() or {}
    if header.get("format") != FORMAT:
        raise InputError(
            f"{str(path)!r} is not a feature file: its header says format "
            f"{header.get('format')!r}, expected {FORMAT!r}, which `mdmmt extract` writes"
        )
    try:
        versions, source = (
            json.loads(header["experts"]),
            SourceVideo(**json.loads(header["source"])),
        )
        if not all(EXPERT_NAME.fullmatch(name) for name in versions):
            raise ValueError("names of experts")
        if not (isinstance(source.name, str) and isinstance(source.sha256, str | None)):
            raise ValueError("the source")
        clock = header.get("clock", "track")  # files from before there was a choice
        if clock not in CLOCKS:
            raise ValueError("the clock")
        versions = {name: str(version) for name, version in versions.items()}
        return FeatureHeader(source, versions, clock)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(path)!r} has a damaged header: {error!r}") from error

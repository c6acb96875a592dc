"""What experts found in one video, as a file: `mdmmt extract` writes it, all else reads it.

A safetensors file that holds for each expert `features.NAME` (n, d) float32 and `times.NAME` (n, 2)
float64, the seconds at which each feature begins and ends, over the whole of the video. Its header
says of what video (name, size, SHA-256), and by which version of each expert; an expert that found
nothing, as one for sound in a silent film, stands only there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import InputError
from ..experts.base import Expert, Extracted
from ..storage.files import atomic_file, sha256_of

SUFFIX = ".safetensors"
FORMAT = "mdmmt-features-1"
FEATURES, TIMES = "features.", "times."
EXPERT_NAME = re.compile(r"\w[\w.-]*", re.ASCII)  # none that leads out of a folder


@dataclass(frozen=True)
class Source:
    """A video file, by its content; which is not known of features that came without it."""

    name: str  # without its folder
    size_bytes: int | None
    sha256: str | None

    @classmethod
    def of(cls, path: Path) -> Source:
        return cls(path.name, path.stat().st_size, sha256_of(path))


@dataclass(frozen=True)
class FeatureFile:
    """The content of a feature file."""

    extracted: Extracted
    source: Source
    versions: Mapping[str, str]  # of each expert that was run

    def with_experts(self, extracted: Extracted, versions: Mapping[str, str]) -> FeatureFile:
        """What these experts found besides; it takes the place of what they found before."""
        others = {name: one for name, one in self.extracted.items() if name not in versions}
        return FeatureFile(others | dict(extracted), self.source, {**self.versions, **versions})


def versions_of(experts: Mapping[str, Expert]) -> dict[str, str]:
    """What tells the features of these experts from those of others of the same names."""
    return {name: expert.version for name, expert in experts.items()}


def write_features(path: Path, content: FeatureFile) -> None:
    """Write a feature file, whole or not at all."""
    tensors = {}
    for name, (features, times) in content.extracted.items():
        tensors[FEATURES + name] = np.ascontiguousarray(features, dtype=np.float32)
        tensors[TIMES + name] = np.ascontiguousarray(times, dtype=np.float64)
    header = {
        "format": FORMAT,
        "source": json.dumps(asdict(content.source)),
        "experts": json.dumps(dict(content.versions)),
    }
    with atomic_file(path) as part:
        part.write_bytes(save(tensors, header))


def find_feature_files(folder: Path) -> list[tuple[Path, Path]]:
    """The feature files below a folder, each with the name of its video below that folder.

    Raises:
        InputError: there is none.
    """
    files = sorted(folder.rglob(f"?*{SUFFIX}"))
    if not files:
        raise InputError(
            f"there is no feature file ({SUFFIX}) in {str(folder)!r}; `mdmmt extract` writes them"
        )
    return [
        (file, file.relative_to(folder).with_name(file.name.removesuffix(SUFFIX))) for file in files
    ]


def read_header(path: Path) -> tuple[Source, dict[str, str]]:
    """Of what video a feature file is, and the versions of the experts that were run.

    Raises:
        InputError: it cannot be read, or is no feature file.
    """
    with _opened(path) as file:
        return _header(path, file)


def read_features(path: Path) -> FeatureFile:
    """Read a feature file.

    Raises:
        InputError: it cannot be read, is no feature file, or its parts do not fit together.
    """
    with _opened(path) as file:
        source, versions = _header(path, file)
        try:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
        except TypeError as error:  # a kind of number that NumPy does not have
            raise InputError(f"{str(path)!r} is no feature file: {error}") from error
    extracted = {}
    for name in versions:
        features, times = (tensors.pop(kind + name, None) for kind in (FEATURES, TIMES))
        if features is None and times is None:
            continue
        fits = (
            features is not None
            and times is not None
            and (features.dtype, times.dtype) == (np.float32, np.float64)
            and features.ndim == 2
            and times.shape == (len(features), 2)
            and len(features) > 0
        )
        if not fits:
            raise InputError(f"{path}: features and times of the expert {name} do not fit together")
        extracted[name] = features, times
    if tensors:
        raise InputError(f"{path} holds {', '.join(tensors)}, which belong to none of its experts")
    return FeatureFile(extracted, source, versions)


def held_features(path: Path, source: Source) -> FeatureFile:
    """What a file holds of a video; nothing if it is not there, of another one, or damaged.

    Raises:
        InputError: it is there and cannot be read, so nobody knows what it holds.
    """
    nothing = FeatureFile({}, source, {})
    try:
        content = read_features(path)
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise
        return nothing
    same = (content.source.size_bytes, content.source.sha256) == (source.size_bytes, source.sha256)
    return replace(content, source=source) if same else nothing  # it may have another name today


class FeatureFolder(Mapping[str, Extracted]):
    """The features of the videos in a folder, each file read when its video is asked for.

    A key is a video's path below the folder or its file name, either with or without the suffix.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Find the feature files; none of them is read yet.

        Raises:
            InputError: the folder holds no feature file.
        """
        self._files: dict[str, set[Path]] = {}
        for file, video in find_feature_files(Path(folder)):
            keys = (str(video), str(video.with_suffix("")), video.name, video.stem)
            for key in keys:
                self._files.setdefault(key, set()).add(file)

    def __getitem__(self, video: str) -> Extracted:
        """Read the features of a video.

        Raises:
            KeyError: the folder has no features of this video.
            InputError: several videos have this name, or `read_features` refuses the file.
        """
        files = self._files[video]
        if len(files) > 1:
            raise InputError(
                f"the video {video!r} could be any of {', '.join(map(str, sorted(files)))}"
            )
        return read_features(next(iter(files))).extracted

    def __contains__(self, video: object) -> bool:
        return video in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _opened(path: Path) -> safe_open:
    try:
        path.open("rb").close()  # safetensors says of what may not be read that it is not there
        return safe_open(path, framework="numpy")
    except FileNotFoundError as error:
        raise InputError(f"there is no file {str(path)!r}") from error
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise InputError(f"{str(path)!r} is no readable feature file: {error}") from error


def _header(path: Path, file: safe_open) -> tuple[Source, dict[str, str]]:
    header = file.metadata() or {}
    if header.get("format") != FORMAT:
        raise InputError(
            f"{str(path)!r} is no feature file: its header says format {header.get('format')!r}, "
            f"expected {FORMAT!r}, which `mdmmt extract` writes"
        )
    try:
        versions, source = json.loads(header["experts"]), Source(**json.loads(header["source"]))
        if not all(EXPERT_NAME.fullmatch(name) for name in versions):
            raise ValueError("names of experts")
        if not (isinstance(source.name, str) and isinstance(source.sha256, str | None)):
            raise ValueError("the source")
        return source, {name: str(version) for name, version in versions.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(path)!r} has a damaged header: {error!r}") from error

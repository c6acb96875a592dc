"""The one place that tells the kinds of videos apart: any kind in, features or tokens out.

A video is
- the dict of expert features that the video operator takes (see `mdmmt.features.tokens`);
- `VideoFeatures`: the features of each expert by its name;
- the path of a feature file, which `mdmmt extract` writes;
- the path of a video file;
- the frames that one of Towhee's video decoders yields.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..background import in_caller
from ..config import ExpertConfig, ExpertPrecision
from ..errors import InputError, InputTypeError, warn
from ..experts import Expert, expert_classes
from ..experts import load as load_experts
from ..items import as_items
from ..media.specs import Clock
from ..storage.files import check_file
from .extraction import extract
from .files import SUFFIX, read_features, read_header, versions_of
from .listing import find_videos_or_features
from .segments import check_windows, duration_s, overlaps, select, windows
from .tokens import (
    InputDict,
    VideoTokens,
    describe_truncation,
    read_input,
    to_input,
    tokens_of,
)
from .types import ExpertFeatures, VideoFeatures

WINDOWS = "windows"  # as `segments`: the video is cut into windows of one length
Span = tuple[float, float]  # start and end in seconds
VideoInput = Mapping[str, Any] | str | os.PathLike[str] | Iterable[NDArray[np.uint8]]
EXPECTED = "a path, the frames of one of Towhee's video decoders, or a dict of expert features"


class VideoReader:
    """Reads videos of any kind. Its experts are loaded once, when the first file comes."""

    def __init__(
        self,
        experts: Sequence[ExpertConfig],
        names: Sequence[str],
        device: torch.device,
        time_limit_s: float,
        precision: ExpertPrecision = "exact",
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            experts: those of the model, which say how many tokens it takes.
            names: the experts that are run.
            device: where the pretrained experts run.
            time_limit_s: how long a video file may take.
            precision: of the pretrained experts, as `check_precision` returns it.
        """
        self.experts = experts
        self.names = tuple(names)
        self.device = device
        self.time_limit_s = time_limit_s
        self.precision = precision
        self._lock = threading.Lock()
        self._running: dict[str, Expert] | None = None

    def tokens(
        self, video: VideoInput, where: str, start_s: float = 0.0, end_s: float | None = None
    ) -> tuple[list[VideoTokens], bool]:
        """The tokens of a video, or of each video of a batched dict.

        Args:
            where: the name of the video in error messages.
            start_s, end_s: the wanted part in seconds.

        Returns:
            the videos, and whether the dict has a batch axis.

        Raises:
            InputError, InputTypeError: see `mdmmt.Model.encode_video`.
        """
        if _is_input_dict(video):
            if start_s != 0.0 or end_s is not None:
                raise InputError(
                    f"{where} is a dict of tokens, which start_s and end_s cannot cut; "
                    "expected a path, frames or VideoFeatures"
                )
            return read_input(video, self.experts, where)
        name = _name(video, where)
        features = self._features(video, where, start_s, end_s)
        if truncation := describe_truncation(features, self.experts):
            warn(f"{name} {truncation}; segments='windows' takes all of it")
        return [tokens_of(features, self.experts, name)], False

    def segment_tokens(
        self,
        video: VideoInput,
        segments: str | Iterable[Span],
        window_s: float | None,
        stride_s: float | None,
    ) -> list[tuple[Span, VideoTokens]]:
        """The tokens of parts of one video, on which the experts run once.

        The arguments and errors are those of `mdmmt.Model.encode_segments`.
        """
        name = _name(video, "video")
        parts = self._segments(video, segments, window_s, stride_s)
        cut = [
            (span, truncation)
            for span, features in parts
            if (truncation := describe_truncation(features, self.experts))
        ]
        if cut:
            (start_s, end_s), truncation = cut[0]
            more = f" (and {len(cut) - 1} more)" if len(cut) > 1 else ""
            warn(
                f"{name}, seconds {start_s:g} to {end_s:g}{more}, {truncation}; "
                "shorter segments take all of it"
            )
        return [(span, tokens_of(features, self.experts, name)) for span, features in parts]

    def input_dict(self, video: VideoInput, start_s: float, end_s: float | None) -> InputDict:
        """The dict of a video that the video operator takes, padded to `max_tokens`."""
        if _is_input_dict(video):
            raise InputTypeError(
                "video is a dict of tokens already, expected a path, frames or VideoFeatures"
            )
        (tokens,), _ = self.tokens(video, "video", start_s, end_s)
        return to_input(tokens, self.experts)

    def versions_of(self, path: str | os.PathLike[str]) -> tuple[dict[str, str], Clock]:
        """The versions of the experts, and the clock, of the features that a file is read as.

        Those of a video are of the experts of this reader, which are loaded for that.

        Raises:
            InputError: `read_header` refuses the file.
            WeightsError: the weights of a pretrained expert are missing.
        """
        if Path(path).suffix != SUFFIX:
            return versions_of(self._load_experts()), "file"
        header = read_header(Path(path))
        versions = {name: one for name, one in header.versions.items() if name in self.names}
        return versions, header.clock

    def window_lengths(self, window_s: float | None, stride_s: float | None) -> tuple[float, float]:
        """Window and stride in seconds, checked.

        None means the longest window in which every expert stays within `max_tokens`, and the
        stride of one window.
        """
        if window_s is None:
            window_s = min(tokens * clip_s for tokens, clip_s in self._token_lengths().values())
        stride_s = window_s if stride_s is None else stride_s
        check_windows(window_s, stride_s)
        return window_s, stride_s

    def _features(
        self, video: VideoInput, where: str, start_s: float, end_s: float | None
    ) -> VideoFeatures:
        """The features of one part; of a whole video at least as many as the model takes."""
        _check(video, where)
        if start_s == 0.0 and end_s is None:
            return self._read(video, where, 0.0, None)
        span = _checked_span((start_s, math.inf if end_s is None else end_s))
        return _select(self._read(video, where, *span), span, where)

    def _segments(
        self,
        video: VideoInput,
        segments: str | Iterable[Span],
        window_s: float | None,
        stride_s: float | None,
    ) -> list[tuple[Span, VideoFeatures]]:
        if _is_input_dict(video):
            raise InputTypeError(
                "video is a dict of tokens, which cannot be cut into segments; expected a path, "
                "frames or VideoFeatures"
            )
        _check(video, "video")
        if isinstance(segments, str):
            if segments != WINDOWS:
                raise InputError(
                    f"segments is {segments!r}, expected 'windows' or a list of (start_s, end_s)"
                )
            lengths_s = self.window_lengths(window_s, stride_s)  # before the experts are run
            return windows(self._read(video, "video", 0.0, math.inf), *lengths_s)
        if (window_s, stride_s) != (None, None):
            raise InputError("window_s and stride_s are for segments='windows', not for a list")
        if isinstance(segments, Mapping) or not isinstance(segments, Iterable):
            raise InputTypeError(
                f"segments is a {type(segments).__name__}, expected 'windows' or a list of "
                "(start_s, end_s)"
            )
        spans = [_checked_span(span, index) for index, span in enumerate(segments)]
        if not spans:
            raise InputError("segments is an empty list, expected some (start_s, end_s)")
        starts, ends = zip(*spans, strict=True)
        features = self._read(video, "video", min(starts), max(ends))
        return [(span, _select(features, span, "video")) for span in spans]

    def _read(
        self, video: VideoInput, where: str, start_s: float, end_s: float | None
    ) -> VideoFeatures:
        """The features of the experts that are run: at least those from start to end.

        An `end_s` of None asks for as many as the model takes, and one more to tell whether the
        video goes on.
        """
        if isinstance(video, Mapping):
            features = {name: one for name, one in video.items() if name in self.names}
        elif isinstance(video, str | os.PathLike) and Path(video).suffix == SUFFIX:
            features = dict(read_features(Path(video)).features)
            features = {name: one for name, one in features.items() if name in self.names}
        else:
            enough = None
            if end_s is None:
                end_s, enough = math.inf, self._enough_features()
            running = self._load_experts()
            limit_s = self.time_limit_s
            features = dict(extract(video, running, start_s, end_s, limit_s, max_features=enough))
        if not features:
            raise InputError(
                f"{_name(video, where)} has no features of the experts {', '.join(self.names)}, "
                "expected those of at least one"
            )
        return features

    def _load_experts(self) -> dict[str, Expert]:
        def load() -> dict[str, Expert]:
            with self._lock:
                if self._running is None:
                    self._running = load_experts(
                        self.names, device=self.device, precision=self.precision
                    )
                return self._running

        return in_caller(load)

    def _enough_features(self) -> dict[str, int]:
        """How many features each expert makes of a whole video, wherever its track begins.

        All go equally far, so that a message can tell which part of the video the model takes.
        """
        lengths = self._token_lengths()
        seconds = max((tokens + 0.5) * clip_s for tokens, clip_s in lengths.values())
        return {name: math.ceil(seconds / clip_s - 1e-9) for name, (_, clip_s) in lengths.items()}

    def _token_lengths(self) -> dict[str, tuple[int, float]]:
        """For each expert that is run, `max_tokens` and the seconds of a token."""
        classes = expert_classes(self.names)
        return {
            expert.name: (expert.max_tokens, classes[expert.name].spec.clip_s)
            for expert in self.experts
            if expert.name in classes
        }


def split_list(video: Any) -> tuple[list[tuple[str, Any]], bool]:
    """The videos of a list, each with its name in messages, and whether there is a list.

    A folder stands for the list of its videos or feature files, in the order of their names. Else a
    list is whatever `as_items` takes for one. Its first item tells it from the frames of one
    video, which are in a list or an iterator as well. Of an iterator that item is taken out, so
    only the videos that are returned are whole.

    Raises:
        InputError: the list is empty, or the folder has nothing to embed.
    """
    if isinstance(video, str | os.PathLike) and os.path.isdir(video):
        video = find_videos_or_features([video])
    if isinstance(video, Iterator):
        first = list(islice(video, 1))
        video = chain(first, video)
        if not (first and isinstance(first[0], str | os.PathLike | Mapping)):
            return [("video", video)], False
    items = as_items(video)
    if items is None or _is_frames(items):
        return [("video", video if items is None else items)], False
    if not items:
        raise InputError(
            f"video is an empty {type(video).__name__}, expected {EXPECTED}, or a list of them"
        )
    return [(f"video {index}", item) for index, item in enumerate(items)], True


def check_experts(experts: Any, known: Sequence[str]) -> list[str]:
    """The names of experts; an InputError or InputTypeError unless they are some of the model's."""
    names = as_items(experts)
    if names is None:
        raise InputTypeError(f"experts is {experts!r}, expected a list of names")
    unknown = [str(name) for name in names if name not in known]
    if unknown or not names:
        raise InputError(f"experts is {names}, expected some of the model's: {', '.join(known)}")
    return [str(name) for name in names]


def _is_input_dict(video: Any) -> bool:
    return isinstance(video, Mapping) and not _is_video_features(video)


def _is_video_features(video: Any) -> bool:
    return (
        isinstance(video, Mapping)
        and bool(video)
        and all(isinstance(one, ExpertFeatures) for one in video.values())
    )


def _is_frames(value: Any) -> bool:
    """Whether this is one video as frames of Towhee's decoders, which know their time."""
    if isinstance(value, list | tuple):
        return bool(value) and all(hasattr(frame, "timestamp") for frame in value)
    return isinstance(value, Iterator)


def _check(video: Any, where: str) -> None:
    """Raise unless a video is features, frames or an existing file; before experts are loaded."""
    if isinstance(video, str | os.PathLike):
        check_file(video, "a video file or a feature file")
    elif not _is_frames(video) and not _is_video_features(video):
        raise InputTypeError(f"{where} is a {type(video).__name__}, expected {EXPECTED}")


def _name(video: Any, where: str) -> str:
    """The name of a video in messages: its path, if it has one."""
    return repr(os.fspath(video)) if isinstance(video, str | os.PathLike) else where


def _checked_span(span: Any, index: int | None = None) -> Span:
    where = "start_s and end_s are" if index is None else f"segment {index} is"
    try:
        start_s, end_s = map(float, span)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{where} {span!r}, expected (start_s, end_s) in seconds") from error
    if not 0 <= start_s < end_s or (index is not None and math.isinf(end_s)):
        raise InputError(
            f"{where} {start_s:g} and {end_s:g}, expected 0 <= start_s < end_s in seconds"
        )
    return start_s, end_s


def _select(features: VideoFeatures, span: Span, where: str) -> VideoFeatures:
    start_s, end_s = span
    if not overlaps(features, start_s, end_s):
        raise InputError(
            f"{where} ends at second {duration_s(features):g}, so it has nothing between the "
            f"seconds {start_s:g} and {end_s:g}"
        )
    # The authors' rule takes the nearest features of each expert. Those of a track that sets in
    # after the segment are of another moment.
    begun = {
        name: one
        for name, one in features.items()
        if not (len(one) and one.have_times and one.times_s[0, 0] > end_s)
    }
    return select(begun, start_s, end_s)

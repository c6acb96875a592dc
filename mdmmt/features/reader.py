"""One video of any kind -> the features of it, or of parts of it.

A video is a file, a feature file that `mdmmt extract` has written, or the frames of one of Towhee's
video decoders. A dict of features is none: see `mdmmt.features.tokens`.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..config import ExpertConfig
from ..errors import InputError, InputTypeError, warn
from . import files as feature_files
from .segments import check_windows, duration_s, inside, select, windows

if TYPE_CHECKING:
    from ..experts import Expert, Extracted

WINDOWS = "windows"  # as `segments`: the video is cut into windows of one length
Span = tuple[float, float]  # start and end in seconds


class Reader:
    """Runs a model's experts on videos. They are loaded once, when the first file comes.

    Args:
        experts: those of the model, which say how many tokens it takes.
        names: those of them that are run.
    """

    def __init__(
        self, experts: Sequence[ExpertConfig], names: Sequence[str], device: torch.device
    ) -> None:
        self.experts = experts
        self.names = names
        self.device = device
        self._lock = threading.Lock()
        self._running: dict[str, Expert] | None = None

    def part(
        self, video: Any, where: str = "video", start_s: float = 0.0, end_s: float | None = None
    ) -> Extracted:
        """The features of one part; of a whole video at least as many as the model takes.

        Args:
            where: how the error messages call the video.

        Raises:
            InputError, InputTypeError: see `mdmmt.model.Model.encode_video`.
        """
        check_video(video, where)
        if start_s == 0.0 and end_s is None:
            # A token more than is taken tells that there is more.
            reach_s = max((tokens + 0.5) * clip_s for tokens, clip_s in self._token_lengths())
            part = self._extract(video, where, 0.0, reach_s)
        else:
            start_s, end_s = _span((start_s, math.inf if end_s is None else end_s))
            part = _select(self._extract(video, where, start_s, end_s), start_s, end_s, where)
        if lost := self._lost(part):
            warn(f"{_called(video, where)} {lost}; segments='windows' takes all of it")
        return part

    def parts(
        self,
        video: Any,
        segments: str | Sequence[Span],
        window_s: float | None,
        stride_s: float | None,
    ) -> list[tuple[Span, Extracted]]:
        """The features of several parts, from one run of the experts; see `encode_segments`."""
        check_video(video, "video")
        if isinstance(segments, str):
            if segments != WINDOWS:
                raise InputError(
                    f"segments is {segments!r}, expected 'windows' or a list of (start_s, end_s)"
                )
            lengths_s = self.window_lengths(window_s, stride_s)  # before the experts are run
            parts = windows(self._extract(video, "video"), *lengths_s)
        elif (window_s, stride_s) != (None, None):
            raise InputError("window_s and stride_s are for segments='windows', not for a list")
        elif not isinstance(segments, Sequence):
            raise InputTypeError(
                f"segments is a {type(segments).__name__}, expected 'windows' or a list of "
                "(start_s, end_s)"
            )
        else:
            spans = [_span(one, index) for index, one in enumerate(segments)]
            if not spans:
                raise InputError("segments is an empty list, expected some (start_s, end_s)")
            starts, ends = zip(*spans, strict=True)
            extracted = self._extract(video, "video", min(starts), max(ends))
            parts = [(span, _select(extracted, *span, "video")) for span in spans]
        cut = [(span, lost) for span, part in parts if (lost := self._lost(part))]
        if cut:
            (start_s, end_s), lost = cut[0]
            more = f" (and {len(cut) - 1} more)" if cut[1:] else ""
            warn(
                f"{_called(video, 'video')}, seconds {start_s:g} to {end_s:g}{more}, {lost}; "
                "shorter segments take all of it"
            )
        return parts

    @property
    def window_s(self) -> float:
        """Seconds of a video of which no expert makes more tokens than the model takes."""
        return min(tokens * clip_s for tokens, clip_s in self._token_lengths())

    def window_lengths(self, window_s: float | None, stride_s: float | None) -> tuple[float, float]:
        """Window and stride in seconds, checked; None is what `encode_segments` says of it."""
        window_s = self.window_s if window_s is None else window_s
        stride_s = window_s if stride_s is None else stride_s
        check_windows(window_s, stride_s)
        return window_s, stride_s

    def _extract(
        self, video: Any, where: str, start_s: float = 0.0, end_s: float = math.inf
    ) -> Extracted:
        """Features and seconds, of a feature file all of it, else at least from start to end."""
        if isinstance(video, str | os.PathLike) and Path(video).suffix == feature_files.SUFFIX:
            found = feature_files.read_features(Path(video)).extracted
            found = {name: one for name, one in found.items() if name in self.names}
        else:
            from .. import experts

            with self._lock:
                if self._running is None:
                    self._running = experts.load(self.names, device=self.device)
            found = experts.extract(video, self._running, start_s, end_s)
        if not found:
            raise InputError(
                f"{_called(video, where)} has nothing of the experts {', '.join(self.names)}, "
                "expected something of one of them"
            )
        return found

    def _token_lengths(self) -> list[tuple[int, float]]:
        """Of each expert that is run, how many tokens the model takes, and a token's seconds."""
        from ..experts import expert_classes

        running = expert_classes(self.names)
        return [
            (expert.max_tokens, running[expert.name].spec.clip_s)
            for expert in self.experts
            if expert.name in running
        ]

    def _lost(self, part: Extracted) -> str:
        """What `to_tokens` will leave out since the model has no room for it; nothing if none."""
        taken: dict[str, list[str]] = {}
        for expert in self.experts:
            _, times = part.get(expert.name, (None, ()))
            if len(times) > expert.max_tokens:
                what = f"the first {expert.max_tokens} tokens"
                if not np.isnan(times).any():
                    end_s = times[expert.max_tokens - 1, 1]
                    what = f"the seconds {times[0, 0]:g} to {end_s:g}"
                taken.setdefault(what, []).append(expert.name)
        said = ", ".join(f"of {' and '.join(names)} {what}" for what, names in taken.items())
        return said and f"is longer than what this model takes: {said} are embedded"


def _called(video: Any, where: str) -> str:
    """How messages call a video."""
    return repr(os.fspath(video)) if isinstance(video, str | os.PathLike) else where


def check_experts(experts: Any, known: Sequence[str]) -> None:
    """Raises InputError or InputTypeError unless these are some of the model's experts."""
    if isinstance(experts, str) or not isinstance(experts, Sequence):
        raise InputTypeError(f"experts is {experts!r}, expected a list of names")
    unknown = [str(name) for name in experts if name not in known]
    if unknown or not experts:
        raise InputError(
            f"experts is {list(experts)}, expected some of the model's: {', '.join(known)}"
        )


def is_frames(value: Any) -> bool:
    """Whether this is one video as frames of Towhee's decoders, which know their time."""
    if isinstance(value, list | tuple):
        return bool(value) and all(hasattr(frame, "timestamp") for frame in value)
    return isinstance(value, Iterator)


def check_video(video: Any, where: str) -> None:
    """Raises InputError or InputTypeError unless this is a file that is there, or frames."""
    if isinstance(video, str | os.PathLike):
        if not os.path.isfile(video):
            raise InputError(
                f"{where} is {os.fspath(video)!r}, where there is no file; expected a video file, "
                "or, where all of it is embedded, a dict of expert features"
            )
    elif not is_frames(video):
        raise InputTypeError(
            f"{where} is a {type(video).__name__}, expected a path, the frames of one of Towhee's "
            "video decoders, or, where all of it is embedded, a dict of expert features"
        )


def _span(span: Any, index: int | None = None) -> Span:
    """A segment's start and end, checked."""
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


def _select(extracted: Extracted, start_s: float, end_s: float, where: str) -> Extracted:
    if not inside(extracted, start_s, end_s):
        raise InputError(
            f"{where} lasts {duration_s(extracted):g} seconds, so it has nothing between the "
            f"seconds {start_s:g} and {end_s:g}"
        )
    return select(extracted, start_s, end_s)

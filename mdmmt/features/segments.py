"""Segments: the features of a part of a video, and the windows of a long video."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np

from ..errors import InputError, InputTypeError
from .types import ExpertFeatures, VideoFeatures

MAX_WINDOWS = 1_000_000  # of one video; more than that is a mistake, and would fill the memory


def select(features: VideoFeatures, start_s: float, end_s: float | None) -> VideoFeatures:
    """The features of a segment: of each expert a run, chosen as the authors of MDMMT choose it.

    The run goes from the interval that holds `start_s` to the one that holds `end_s`, which is
    included. Intervals are closed; if several hold a time, the first one counts. In a gap, the
    start takes the interval before and the end the one after. Outside, each takes the nearest.

    Args:
        features: of the whole video.
        start_s, end_s: the segment in seconds. An `end_s` of None is the end of the longest expert.

    Returns:
        views of the given arrays, with at least one feature of each expert that has any.

    Raises:
        InputError: the segment has no length, or an expert's times are unknown, out of order or
            negative. Unknown times do no harm if the whole video is asked for.
    """
    present = _present(features)
    if start_s <= 0 and end_s is None:
        return present
    _check_times(present)
    end_s = duration_s(present) if end_s is None else end_s
    if not start_s < end_s:
        raise InputError(
            f"the segment ({start_s:g}, {end_s:g}) has no length, expected start < end"
        )
    selected = {}
    for name, one in present.items():
        times_s, last = one.times_s, len(one) - 1
        first = min(int(np.searchsorted(times_s[:, 1], start_s)), last)
        if start_s < times_s[first, 0]:  # a gap, or nothing, comes before this interval
            first = max(first - 1, 0)
        stop = min(int(np.searchsorted(times_s[:, 1], end_s)), last) + 1
        selected[name] = one[first:stop]
    return selected


def overlaps(features: VideoFeatures, start_s: float, end_s: float | None) -> bool:
    """Whether a segment has a length and touches the features of at least one expert.

    An evaluation leaves captions of other segments out.

    Raises:
        InputError: see `select`.
    """
    present = _present(features)
    if not present or (start_s <= 0 and end_s is None):
        return bool(present)
    _check_times(present)
    end_s = duration_s(present) if end_s is None else end_s
    return start_s < end_s and any(
        one.times_s[0, 0] <= end_s and start_s <= one.times_s[-1, 1] for one in present.values()
    )


def duration_s(features: VideoFeatures) -> float:
    """The second at which the longest expert ends; NaN if the times of one are unknown."""
    ends = [one.times_s[-1, 1] for one in _present(features).values()]
    return float(np.max(ends, initial=0.0))


def windows(
    features: VideoFeatures, window_s: float, stride_s: float
) -> list[tuple[tuple[float, float], VideoFeatures]]:
    """Cut a video into windows that leave nothing out.

    Window k starts at k * stride_s. A feature belongs to each window that holds the middle of its
    time, where a window includes its start and excludes its end. If stride and window are equal,
    each feature is in one window. The last window ends where the longest expert ends.

    Returns:
        for each window that has features its start and end in seconds, and the features.

    Raises:
        InputError: a window or stride that is not positive and finite, or leaves holes; or times
            as in `select`.
    """
    check_windows(window_s, stride_s)
    present = _present(features)
    _check_times(present)
    video_end_s = duration_s(present)
    if video_end_s / stride_s > MAX_WINDOWS:
        raise InputError(
            f"{video_end_s:g} seconds in steps of {stride_s:g} are more than {MAX_WINDOWS} "
            "windows; expected a longer stride"
        )
    middles_s = {name: one.times_s.mean(axis=1) for name, one in present.items()}
    cut: list[tuple[tuple[float, float], VideoFeatures]] = []
    k, is_last = 0, False
    while not is_last:
        start_s = k * stride_s
        # Not start_s + window_s: without overlap, this is the very number at which the next starts.
        end_s = (k + 1) * stride_s + (window_s - stride_s)
        is_last = end_s >= video_end_s
        window: dict[str, ExpertFeatures] = {}
        for name, one in present.items():
            first = int(np.searchsorted(middles_s[name], start_s))
            stop = len(one) if is_last else int(np.searchsorted(middles_s[name], end_s))
            if first < stop:
                window[name] = one[first:stop]
        if window:
            cut.append(((start_s, min(end_s, video_end_s)), window))
        k += 1
    return cut


def check_windows(window_s: float, stride_s: float) -> None:
    """Raise unless window and stride are positive numbers and the stride is at most the window.

    Raises:
        InputError, InputTypeError: see `windows`.
    """
    for name, value in (("window_s", window_s), ("stride_s", stride_s)):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InputTypeError(f"{name} is {value!r}, expected a number of seconds")
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value:g}, expected a number of seconds above 0")
    if stride_s > window_s:
        raise InputError(
            f"stride_s is {stride_s:g} and window_s {window_s:g}, which would leave holes between "
            "the windows; expected a stride of at most one window"
        )


def _present(features: VideoFeatures) -> VideoFeatures:
    """The experts that have features."""
    return {name: one for name, one in features.items() if len(one)}


def _check_times(features: VideoFeatures) -> None:
    """Raise unless all times are known, in order and not negative."""
    for name, one in features.items():
        if not one.have_times:
            raise InputError(
                f"the features of the expert {name} have no times, so no segment can be cut out "
                "of them; expected times, or the whole video as the segment"
            )
        times_s = one.times_s
        in_order = (times_s[:, 0] <= times_s[:, 1]).all() and (np.diff(times_s, axis=0) >= 0).all()
        if not in_order or times_s[0, 0] < 0:
            raise InputError(
                f"the times of the expert {name} are negative or out of order, expected "
                "0 <= start <= end, each at or after the one before"
            )

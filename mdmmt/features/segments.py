"""Which features belong to a segment of a video, and a long video cut into windows.

Features and times of an expert are those of `mdmmt.experts.extract`: (n, d), and (n, 2) with the
seconds at which each begins and ends, in the order of time.
"""

from __future__ import annotations

import math
from numbers import Real

import numpy as np

from ..errors import InputError, InputTypeError
from ..experts.base import Extracted

MOST_WINDOWS = 1_000_000  # of one video; more than that is a mistake, and would fill the memory


def select(extracted: Extracted, start_s: float, end_s: float | None) -> Extracted:
    """The features of a segment: of each expert a run, as the authors of MDMMT choose it.

    The run goes from the interval that holds `start_s` to the one that holds `end_s`, which is in
    it. Intervals are closed, and of several that hold a time the first one counts. In a gap, the
    start takes the interval before and the end the one after; outside, each takes the nearest.

    Args:
        extracted: features and times by expert.
        start_s, end_s: of the segment; an `end_s` of None is where the longest expert ends.

    Returns:
        views of the given arrays, with one feature or more of each expert that has any.

    Raises:
        InputError: the segment has no length, or an expert's times are unknown, out of order or
            negative. Unknown times do no harm where the whole video is wanted.
    """
    present = _present(extracted)
    if start_s <= 0 and end_s is None:
        return present
    _check_times(present)
    end_s = duration_s(present) if end_s is None else end_s
    if not start_s < end_s:
        raise InputError(
            f"the segment ({start_s:g}, {end_s:g}) has no length, expected start < end"
        )
    selected = {}
    for name, (features, times) in present.items():
        last = len(times) - 1
        first = min(int(np.searchsorted(times[:, 1], start_s)), last)
        if start_s < times[first, 0]:  # before it is a gap, or nothing
            first = max(first - 1, 0)
        stop = min(int(np.searchsorted(times[:, 1], end_s)), last) + 1
        selected[name] = features[first:stop], times[first:stop]
    return selected


def inside(extracted: Extracted, start_s: float, end_s: float | None) -> bool:
    """Whether a segment has a length, and touches what one expert at least has seen or heard.

    Captions of other segments are left out of an evaluation.

    Raises:
        InputError: see `select`.
    """
    present = _present(extracted)
    if not present or (start_s <= 0 and end_s is None):
        return bool(present)
    _check_times(present)
    end_s = duration_s(present) if end_s is None else end_s
    return start_s < end_s and any(
        times[0, 0] <= end_s and start_s <= times[-1, 1] for _, times in present.values()
    )


def duration_s(extracted: Extracted) -> float:
    """Where the longest expert ends; NaN where the times of one are unknown."""
    ends = [times[-1, 1] for _, times in _present(extracted).values()]
    return float(np.max(ends, initial=0.0))


def windows(
    extracted: Extracted, window_s: float, stride_s: float
) -> list[tuple[tuple[float, float], Extracted]]:
    """Cut a video into windows that leave nothing out.

    Window k starts at k * stride_s. A feature belongs to a window in which the middle of its time
    lies, the window's start included and its end not; where stride and window are the same, each
    feature is in one window. The last window ends where the longest expert ends.

    Returns:
        for each window that has features its start and end in seconds, and the features.

    Raises:
        InputError: a window or stride that is not positive and finite, or leaves holes; or times
            as in `select`.
    """
    check_windows(window_s, stride_s)
    present = _present(extracted)
    _check_times(present)
    video_end_s = duration_s(present)
    if video_end_s / stride_s > MOST_WINDOWS:
        raise InputError(
            f"{video_end_s:g} seconds in steps of {stride_s:g} are more than {MOST_WINDOWS} "
            "windows; expected a longer stride"
        )
    middles = {name: times.mean(axis=1) for name, (_, times) in present.items()}
    found = []
    k, is_last = 0, False
    while not is_last:
        start_s = k * stride_s
        # Not start_s + window_s: without overlap, this is the very number at which the next starts.
        end_s = (k + 1) * stride_s + (window_s - stride_s)
        is_last = end_s >= video_end_s
        part = {}
        for name, (features, times) in present.items():
            first = np.searchsorted(middles[name], start_s)
            stop = len(times) if is_last else np.searchsorted(middles[name], end_s)
            if first < stop:
                part[name] = features[first:stop], times[first:stop]
        if part:
            found.append(((start_s, min(end_s, video_end_s)), part))
        k += 1
    return found


def check_windows(window_s: float, stride_s: float) -> None:
    """Refuse windows that are none.

    Raises:
        InputError, InputTypeError: see `windows`.
    """
    for what, value in (("window_s", window_s), ("stride_s", stride_s)):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InputTypeError(f"{what} is {value!r}, expected a number of seconds")
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{what} is {value:g}, expected a number of seconds above 0")
    if stride_s > window_s:
        raise InputError(
            f"stride_s is {stride_s:g} and window_s {window_s:g}, which would leave holes between "
            "the windows; expected a stride of at most one window"
        )


def _present(extracted: Extracted) -> Extracted:
    """The experts that have features."""
    return {name: one for name, one in extracted.items() if len(one[0])}


def _check_times(present: Extracted) -> None:
    """Refuse times by which features cannot be cut."""
    for name, (_, times) in present.items():
        if np.isnan(times).any():
            raise InputError(
                f"the features of the expert {name} have no times, so no segment can be cut out "
                "of them; expected times, or the whole video as the segment"
            )
        in_order = (times[:, 0] <= times[:, 1]).all() and (np.diff(times, axis=0) >= 0).all()
        if not in_order or times[0, 0] < 0:
            raise InputError(
                f"the times of the expert {name} are negative or out of order, expected "
                "0 <= start <= end, each at or after the one before"
            )

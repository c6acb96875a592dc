"""The times of decoded frames, by the rules of the ffmpeg program."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Generic, TypeVar, cast

import av
from av.format import Flags as FormatFlags

from .limits import MAX_GAP_S

# A broadcast's clock may jump back and ahead by this much before it counts as set anew.
MAX_JUMP_BACK_S, MAX_JUMP_AHEAD_S = 0.1, 10.0
MAX_STEP_S = 1.0  # a frame that is further behind the one before is held back until the next one

Frame = TypeVar("Frame", bound="av.VideoFrame | av.AudioFrame")


class Clock:
    """Sets the times of decoded frames, counted from the start of the file.

    A frame whose time or duration is unknown follows the frame before it, and lasts as long.
    """

    def __init__(
        self,
        start: int,
        duration: int = 1,
        ignore_times: bool = False,
        max_jumps: tuple[int, int] | None = None,
        max_gap: float = math.inf,
    ) -> None:
        """All times are in the units of the stream.

        Args:
            start: the time that becomes 0.
            duration: of a frame, until a frame tells a better one.
            ignore_times: whether the times in the file cannot be trusted.
            max_jumps: how far a frame may come before and after its expected time. A frame beyond
                that is taken to be on time, and the clock to be set anew. None: no limit.
            max_gap: how long a frame may last, or be behind the one before it.
        """
        self._start = start
        self._duration = duration
        self._ignore_times = ignore_times
        self._max_jumps = max_jumps
        self._max_gap = max_gap
        self._last: int | None = None
        self.gap = 0  # before or behind the frame that was set last, if beyond `max_gap`
        self.after_gap = False  # whether that gap is before the frame

    @classmethod
    def of_stream(cls, container: av.container.InputContainer, video: av.VideoStream) -> Clock:
        """A clock for the video stream of a file that was just opened."""
        flags, unit_s = container.format.flags, video.time_base
        assert unit_s is not None  # a stream that is being demuxed has one
        max_gap = float(MAX_GAP_S / unit_s)
        duration = max(1, round(1 / video.average_rate / unit_s)) if video.average_rate else 1
        duration = min(duration, math.ceil(max_gap))
        # Times of such formats may begin anywhere, and begin again within the file.
        if flags & cast(int, FormatFlags.ts_discont.value):
            max_jumps = round(MAX_JUMP_BACK_S / unit_s), round(MAX_JUMP_AHEAD_S / unit_s)
            return cls(video.start_time or 0, duration, max_jumps=max_jumps, max_gap=max_gap)
        start_s = Fraction(container.start_time or 0, av.time_base)
        start = round(start_s / unit_s)
        return cls(start, duration, not has_times(container), max_gap=max_gap)

    def set_time(self, frame: av.VideoFrame) -> None:
        """Set the time and duration of the next frame, in the order in which frames are shown.

        Sets `gap` and `after_gap` too. A frame before a gap lasts no longer than others.
        """
        time = self._time_of(frame)
        step = time - (self._last or 0)  # from the frame before, or from the start
        lasts_too_long = frame.duration > self._max_gap
        self.after_gap = step > self._max_gap
        if self.after_gap:
            self.gap = step
        else:
            self.gap = frame.duration if lasts_too_long else 0
        is_known = self._last is not None and not self.after_gap  # how far it is from another frame
        self._learn_duration(
            self._duration if lasts_too_long else frame.duration, step if is_known else 0
        )
        frame.pts, frame.duration = time, self._duration
        self._last = time

    def _time_of(self, frame: av.VideoFrame) -> int:
        """The time of the next frame: that of the file, unless it is unknown or a jump."""
        expected = 0 if self._last is None else self._last + self._duration
        stated = frame.dts if frame.pts is None else frame.pts
        if stated is None or self._ignore_times:
            return expected
        late = stated - self._start - expected
        if self._is_jump(late):  # the clock was set anew
            self._start += late
            return expected
        return expected + late

    def _learn_duration(self, stated: int, step: int) -> None:
        """Take the duration that a frame states, or else the step from the frame before it.

        Args:
            stated: 0 stands for none. So does 1 beside a longer step, in formats that write it for
                frames of any duration.
            step: 0 if it is not known.
        """
        if stated > 1 or (stated == 1 and step <= 2):
            self._duration = stated
        elif step > 0:
            self._duration = step

    def _is_jump(self, late: int) -> bool:
        if self._max_jumps is None or self._last is None:
            return False
        back, ahead = self._max_jumps
        return not -back <= late <= ahead


def has_times(container: av.container.InputContainer) -> bool:
    """Whether the format of an open file has times; streams such as .h264 have none."""
    return not container.format.flags & cast(int, FormatFlags.no_timestamps.value)


class FalseTimes(Generic[Frame]):
    """Takes false times, such as a flipped bit makes, from the frames of one track.

    A frame far behind the one before it is held back. If the next frame is earlier than that, the
    time of the frame was false, and the frame loses it.
    """

    def __init__(self, last_s: float, max_step_s: float = MAX_STEP_S) -> None:
        """
        Args:
            last_s: the time before the first frame.
            max_step_s: from one frame to the next; a frame beyond it is held back.
        """
        self.last_s = last_s  # the last time that is certain
        self.false_s: float | None = None  # the time that a frame of the last `push` has lost
        self._max_step_s = max_step_s
        self._held: Frame | None = None

    def push(self, frame: Frame) -> list[Frame]:
        """The frames that are certain now: one that was held back, and this one if it is."""
        self.false_s = None
        certain = self._release(frame.time)
        if frame.time is not None:
            if frame.time > self.last_s + self._max_step_s:
                self._held = frame
                return certain
            self.last_s = frame.time
        return [*certain, frame]

    def finish(self) -> list[Frame]:
        """The frame that is still held back, if there is one."""
        self.false_s = None
        return self._release(None)

    def _release(self, next_s: float | None) -> list[Frame]:
        frame, self._held = self._held, None
        if frame is None:
            return []
        assert frame.time is not None  # or it would not have been held back
        if next_s is not None and next_s < frame.time:
            self.false_s = frame.time
            frame.pts = frame.dts = None
        else:
            self.last_s = frame.time
        return [frame]

"""Single pictures of a video file, at given times."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import av
import numpy as np

from ..errors import InputError
from .clock import Clock, has_times
from .limits import MAX_PIXELS, check_picture
from .opening import open_media
from .presentation import Crop, Presentation
from .tracks import best_track

if TYPE_CHECKING:
    from PIL.Image import Image

NEAR_S = 2.0  # decoding on so far costs less than a seek, which ends at a key frame before it
SEARCHED_S = 1.0  # after a time whose picture is empty: longer than a blink or a cut to black
LOW_CONTRAST = 5.0  # of 255: what noise leaves of an empty picture once it is small
SMALL = (32, 32)  # pixels of the picture whose contrast is measured


def stills_at(path: str | os.PathLike[str], times_s: Sequence[float]) -> list[Image]:
    """All pictures of `each_still_at`, in memory at once."""
    return list(each_still_at(path, times_s))


def each_still_at(path: str | os.PathLike[str], times_s: Sequence[float]) -> Iterator[Image]:
    """The pictures that a video shows at given times, cropped, turned and mirrored as it says.

    An empty picture, such as a black one, gives way to the first one of the next `SEARCHED_S`
    seconds that shows something. The next picture is decoded only when it is asked for. Times in
    ascending order take one pass over the file.

    Args:
        path: any local file that FFmpeg reads.
        times_s: seconds from the first picture; after the end the last picture is shown.

    Yields:
        One picture for each time, in the same order.

    Raises:
        InputError: the file cannot be read, no picture in it can be decoded, or they are beyond the
            bounds of `limits`.
    """
    try:
        with ExitStack() as stack:
            frames = _Frames(path, stack)
            for time_s in times_s:
                frames.go_to(time_s)
                yield _still_at(frames, time_s)
    except InputError:
        raise
    except Exception as error:  # of any kind, since the file has caused it
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"no picture can be read from {os.fspath(path)!r} ({reason})") from error


def has_sound(path: str | os.PathLike[str]) -> bool:
    """Whether a file can be opened and has an audio stream."""
    try:
        with open_media(path) as container:
            return best_track(container, path, "audio") is not None
    except (av.FFmpegError, OSError, InputError):
        return False


def end_s(path: str | os.PathLike[str]) -> float | None:
    """The second at which a file ends, by its header; None if it cannot be read or does not say."""
    try:
        with open_media(path) as container:
            return None if container.duration is None else container.duration / av.time_base
    except (av.FFmpegError, OSError, InputError):
        return None


class _Frames:
    """The frames of a stream from any time on; what lies a little ahead is reached without a seek.

    Times are seconds from the first picture.
    """

    def __init__(self, path: str | os.PathLike[str], stack: ExitStack) -> None:
        """Open a file, which `stack` closes. Nothing else may be in `stack`."""
        self.path, self.stack = path, stack
        self._open()
        self.has_times = self.can_seek = has_times(self.container)

    def _open(self) -> None:
        """Open the file, or open it anew to read it from the beginning."""
        self.stack.close()
        self.container = self.stack.enter_context(open_media(self.path))
        stream = best_track(self.container, self.path, "video")
        if stream is None:
            raise LookupError("the file has no video stream")
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        if stream.width and stream.height:  # a header may leave them open
            check_picture(stream.width, stream.height)
        assert stream.time_base is not None  # a stream that is being demuxed has one
        self.stream, self.time_base = stream, stream.time_base
        self.clock = Clock.of_stream(self.container, stream)
        self.first_s = float((stream.start_time or 0) * stream.time_base)
        self.decoded = self.container.decode(stream)
        self.recent: deque[av.VideoFrame] = deque(maxlen=2)  # the last two, decoded in this order

    def time_s(self, frame: av.VideoFrame) -> float | None:
        return None if frame.time is None else frame.time - self.first_s

    def is_near(self, time_s: float) -> bool:
        """Whether a time is not before the recent frames, and little after them."""
        times_s = [self.time_s(frame) for frame in self.recent]
        if not times_s or times_s[0] is None or times_s[-1] is None:
            return False
        return times_s[0] <= time_s <= times_s[-1] + NEAR_S

    def go_to(self, time_s: float) -> None:
        """Let `on` yield frames from one at or before this time on, or from the first."""
        if self.is_near(time_s):
            return
        if self.can_seek:
            self.can_seek = self._seek(time_s)
            if not self.can_seek:  # which loses the place in the file
                self._open()
        elif self._is_past(time_s):
            self._open()

    def _is_past(self, time_s: float) -> bool:
        """Whether a time is before the recent frames."""
        begun_s = self.time_s(self.recent[0]) if self.recent else None
        return begun_s is not None and time_s < begun_s

    def _seek(self, time_s: float) -> bool:
        """Go to a key frame at or before a time; False if the format cannot, such as .swf."""
        offset = int((self.first_s + time_s) / self.time_base)
        try:
            self.container.seek(offset, stream=self.stream)
        except PermissionError:  # FFmpeg's code -1
            return False
        self.decoded = self.container.decode(self.stream)
        self.recent.clear()
        return True

    def on(self) -> Iterator[av.VideoFrame]:
        """Yield the recent frames, and decode on."""
        yield from tuple(self.recent)
        for frame in self.decoded:
            if not self.has_times:
                self.clock.set_time(frame)
            self.recent.append(frame)
            yield frame


def _still_at(frames: _Frames, time_s: float) -> Image:
    shown = None  # the picture of this time, or the last one before it
    for frame in frames.on():
        frame_s = frames.time_s(frame)
        later_s = -1.0 if frame_s is None else frame_s - time_s
        if shown is None or later_s <= 0:
            shown = frame
        elif later_s > SEARCHED_S or contrast(shown.to_image()) >= LOW_CONTRAST:
            break
        elif contrast(frame.to_image()) >= LOW_CONTRAST:
            shown = frame
            break
    if shown is None:
        raise LookupError("no frame can be decoded")
    return Presentation.of(shown, Crop.of_stream(frames.stream)).apply(shown).to_image()


def contrast(picture: Image) -> float:
    """The standard deviation of the channel that varies most, from 0 for a picture of one colour.

    It is measured on a small picture, which has less noise.
    """
    small = np.asarray(picture.convert("RGB").resize(SMALL), dtype=np.float32)
    return float(small.std(axis=(0, 1)).max())

"""Single pictures of a video file, at given times."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import av
import numpy as np

from ..errors import InputError
from .limits import MAX_PIXELS, check_picture
from .opening import open_media
from .presentation import Crop, Presentation
from .tracks import best_track

if TYPE_CHECKING:
    from PIL.Image import Image

SEARCHED_S = 1.0  # after a time whose picture is empty: longer than a blink or a cut to black
LOW_CONTRAST = 5.0  # of 255: what noise leaves of an empty picture once it is small
SMALL = (32, 32)  # pixels of the picture whose contrast is measured


def stills_at(path: str | os.PathLike[str], times_s: Sequence[float]) -> list[Image]:
    """All pictures of `each_still_at`, in memory at once."""
    return list(each_still_at(path, times_s))


def each_still_at(path: str | os.PathLike[str], times_s: Sequence[float]) -> Iterator[Image]:
    """The pictures that a video shows at given times, cropped, turned and mirrored as it says.

    An empty picture, such as a black one, gives way to the first one of the next `SEARCHED_S`
    seconds that shows something. The next picture is decoded only when it is asked for.

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
        with open_media(path) as container:
            video = best_track(container, path, "video")
            if video is None:
                raise LookupError("the file has no video stream")
            video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            for time_s in times_s:
                yield _still_at(container, video, time_s)
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


def is_still(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds one picture and nothing else; False if it cannot be read."""
    try:
        with open_media(path) as container:
            packets = (packet for packet in container.demux() if packet.size)
            return [packet.stream.type for packet in islice(packets, 2)] == ["video"]
    except (av.FFmpegError, OSError, InputError):
        return False


def _still_at(
    container: av.container.InputContainer, stream: av.VideoStream, time_s: float
) -> Image:
    assert stream.time_base is not None  # a stream that is being demuxed has one
    if stream.width and stream.height:  # a header may leave them open
        check_picture(stream.width, stream.height)
    first_s = float((stream.start_time or 0) * stream.time_base)
    # Seeking ends at a key frame at or before the time; the frames from there on are decoded.
    container.seek(int((first_s + time_s) / stream.time_base), stream=stream)
    shown = None  # the picture of this time, or the last one before it
    for frame in container.decode(stream):
        later_s = -1.0 if frame.time is None else frame.time - first_s - time_s
        if shown is None or later_s <= 0:
            shown = frame
        elif later_s > SEARCHED_S or contrast(shown.to_image()) >= LOW_CONTRAST:
            break
        elif contrast(frame.to_image()) >= LOW_CONTRAST:
            shown = frame
            break
    if shown is None:
        raise LookupError("no frame can be decoded")
    return Presentation.of(shown, Crop.of_stream(stream)).apply(shown).to_image()


def contrast(picture: Image) -> float:
    """The standard deviation of the channel that varies most, from 0 for a picture of one colour.

    It is measured on a small picture, which has less noise.
    """
    small = np.asarray(picture.convert("RGB").resize(SMALL), dtype=np.float32)
    return float(small.std(axis=(0, 1)).max())

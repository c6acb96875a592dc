"""The frames of Towhee's video decoders -> clips of frames, for any number of experts."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .clock import Clock
from .frames import FrameCutter
from .limits import MAX_GAP_S
from .specs import AudioSpec, Clip, FrameSpec
from .specs import Clock as ClockName

PIXEL_FORMATS = {"RGB": "rgb24", "BGR": "bgr24"}  # by the mode of Towhee's frames


def read_frames(
    frames: Iterable[NDArray[np.uint8]],
    specs: Mapping[str, FrameSpec | AudioSpec],
    clock_name: ClockName = "file",
) -> Iterator[Clip]:
    """Cut decoded frames for each expert, as `decode.read_clips` cuts the frames of a file.

    Args:
        frames: `towhee.types.VideoFrame`s, as Towhee's video decoders yield them: (height, width,
            3) uint8 arrays with a `mode`, RGB or BGR, and a `timestamp` in milliseconds, in the
            order of time. They are taken one by one. Second 0 is the time of the first frame.
        specs: the kind of clip for each expert, by the expert's name. Experts for sound get none.
        clock_name: of the times; by 'file' the last clip ends with the last frame.

    Raises:
        InputError: there are no frames, or one of them is something else.
    """
    cutters = [
        FrameCutter(name, spec, from_zero=False, offset_s=None if clock_name == "track" else 0.0)
        for name, spec in specs.items()
        if isinstance(spec, FrameSpec)
    ]
    clock, last_ms = None, -math.inf
    for index, image in enumerate(frames):
        frame = _as_av_frame(index, image)
        time_ms: float = image.timestamp  # type: ignore[attr-defined]  # checked just above
        if time_ms <= last_ms:
            raise InputError(
                f"frame {index} is of millisecond {time_ms}, and the one before it of "
                f"{last_ms}; expected frames in the order of time"
            )
        last_ms = time_ms
        clock = clock or Clock(start=frame.pts or 0, max_gap=MAX_GAP_S * 10**6)
        clock.set_time(frame)
        for cutter in cutters:
            yield from cutter.push(frame, clock.after_gap)
    if clock is None:
        raise InputError("there are no frames, expected those of a video")
    for cutter in cutters:
        yield from cutter.finish()


def _as_av_frame(index: int, image: NDArray[np.uint8]) -> av.VideoFrame:
    """Check one of the frames given to `read_frames`, and make it a frame of PyAV."""
    mode, time_ms = getattr(image, "mode", None), getattr(image, "timestamp", None)
    if not isinstance(image, np.ndarray) or mode not in PIXEL_FORMATS:
        raise InputError(
            f"frame {index} is {type(image).__name__} of mode {mode!r}, expected frames of "
            f"Towhee's video decoders, of mode {' or '.join(PIXEL_FORMATS)}"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            f"frame {index} is {image.dtype} of shape {image.shape}, "
            "expected uint8 of (height, width, 3)"
        )
    if not isinstance(time_ms, numbers.Real) or not math.isfinite(time_ms):
        raise InputError(f"frame {index} has timestamp {time_ms!r}, expected milliseconds")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), PIXEL_FORMATS[mode])
    frame.pts, frame.time_base = round(cast(float, time_ms) * 1000), Fraction(1, 10**6)
    return frame

"""The types between decoding and experts: what an expert takes of a file, and one clip of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

# Of the clips that files give, and their times. It is raised when a file gives others than before,
# since features of both must not be mixed. 2: frames are cropped, turned and mirrored as the file
# says, the tracks are those of the ffmpeg program, and late sound has its time in the file.
MEDIA_VERSION = 2

# 'file': the times of picture and sound are those of a player, in which 0 is the start of the file.
# 'track': those of MDMMT's authors, in which sound begins at 0 and a last clip has its full length.
Clock = Literal["file", "track"]
CLOCKS: tuple[Clock, ...] = get_args(Clock)


@dataclass(frozen=True)
class FrameSpec:
    """Clips of square frames from the middle of the picture, at a constant frame rate."""

    fps: int
    short_side: int  # pixels of the picture's shorter side after scaling, even
    crop: int  # pixels of the side of the square that is cut out of the middle
    clip_frames: int  # frames in one clip

    @property
    def clip_s(self) -> float:
        """The duration of a clip in seconds; the next clip starts where it ends."""
        return self.clip_frames / self.fps


@dataclass(frozen=True)
class AudioSpec:
    """Windows of mono sound. Window k stands for the seconds (k * hop_s, (k + 1) * hop_s)."""

    sample_rate_hz: int
    window_s: float
    hop_s: float  # from the start of one window to the start of the next

    @property
    def clip_s(self) -> float:
        """The seconds that a window stands for: one hop."""
        return self.hop_s


class Clip(NamedTuple):
    """One clip of frames or window of sound, cut for one expert."""

    name: str  # of the expert
    data: NDArray[np.uint8] | NDArray[np.float32]  # (clip_frames, crop, crop, 3), or (samples,)
    start_s: float
    end_s: float

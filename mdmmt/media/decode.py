"""A video file -> clips of frames and windows of sound, in one pass, for any number of experts.

By the clock 'file', times are those of a player: seconds from the start of the file, for picture
and sound alike. By the clock 'track', sound that sets in late begins at 0 with its first sample, as
in the PCM that the authors of MDMMT had the ffmpeg program write.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol, cast

import av
from av.container import Flags as ContainerFlags
from av.format import Flags as FormatFlags

from ..background import check_stop
from ..errors import InputError, warn
from ..storage.files import check_file
from .audio import SoundClock, WindowCutter
from .clock import MAX_JUMP_AHEAD_S, MAX_STEP_S, Clock, FalseTimes
from .frames import FrameCutter
from .limits import (
    MAX_GAP_S,
    MAX_PIXELS,
    TIME_LIMIT_S,
    BoundError,
    TimeLimit,
    check_picture,
    check_sample_rate,
)
from .opening import is_animated_webp, open_media, stated_duration_s, states_no_length
from .presentation import NO_CROP, Crop
from .specs import AudioSpec, Clip, FrameSpec
from .specs import Clock as ClockName
from .tracks import best_track

TOLERATED_LOSS_S = 1.0  # a file may end this much before its stated duration
LOSS = "a part of the picture or sound is missing"


def read_clips(
    path: str | os.PathLike[str],
    specs: Mapping[str, FrameSpec | AudioSpec],
    end_s: float = math.inf,
    time_limit_s: float = TIME_LIMIT_S,
    clock: ClockName = "file",
    max_clips: Mapping[str, int] | None = None,
) -> Generator[Clip, None, None]:
    """Decode a file once and cut it for each expert; only the current clips are in memory.

    The clips of one expert come in the order of time. An expert gets no clips if the file lacks
    its medium. Of a damaged file, all readable clips are yielded, then a warning is emitted.

    Args:
        path: any local file that FFmpeg reads.
        specs: the kind of clip for each expert, by the expert's name.
        end_s: the last clip of an expert is the first one that reaches this second.
        time_limit_s: how long the file may take, with the work that is done on its clips.
        clock: of the times.
        max_clips: how many clips an expert gets at most, by its name. None: any number.

    Raises:
        InputError: there is no such file, nothing in it can be decoded, or it takes too long.
    """
    check_file(path)
    with ExitStack() as stack:
        try:
            container = stack.enter_context(open_media(path))
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{os.fspath(path)!r} is not a video that can be read ({_reason(error)})"
            ) from error
        # Without this, PyAV invents missing times in the order of decoding.
        container.flags &= ~cast(int, ContainerFlags.gen_pts.value)
        try:
            file_pass = _FilePass(
                container, path, specs, end_s, time_limit_s, clock, max_clips or {}
            )
            yield from file_pass.clips()
        except (InputError, Warning):
            raise
        except Exception as error:  # of any kind, since the file has caused it
            raise InputError(f"{os.fspath(path)!r} cannot be read ({_reason(error)})") from error


class _Cutter(Protocol):
    """`FrameCutter` or `WindowCutter`: the frames of one stream -> the clips of one expert."""

    def push(self, frame: Any) -> Iterator[Clip]: ...

    def finish(self) -> Iterator[Clip]: ...


class _Damage(NamedTuple):
    second: float  # that the file had reached
    reason: str


class _FilePass:
    """One pass over an open file: demuxes, decodes, hands frames to cutters, notes damage."""

    def __init__(
        self,
        container: av.container.InputContainer,
        path: str | os.PathLike[str],
        specs: Mapping[str, FrameSpec | AudioSpec],
        end_s: float,
        time_limit_s: float,
        clock: ClockName,
        max_clips: Mapping[str, int],
    ) -> None:
        self._container = container
        self._path = os.fspath(path)
        self._end_s = end_s
        self._time_limit = TimeLimit(path, time_limit_s)
        self._clock_name = clock
        self._clips_left = dict(max_clips)
        self._start_s = (container.start_time or 0) / av.time_base
        self._reached_s = 0.0  # the end of the last packet in time
        self._decoded = False  # whether any frame has been
        self._pictures = 0  # in the picture's track so far
        self._damage: _Damage | None = None  # the first
        video = best_track(container, path, "video")
        audio = best_track(container, path, "audio")
        if video is None and audio is None:
            raise InputError(f"{self._path!r} holds neither picture nor sound")
        self._picture_index = None if video is None else video.index
        self._has_sound = audio is not None
        if video is not None:
            video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            video.thread_type = "SLICE"  # threads by frame are faster, but may hide damage
            self._clock = Clock.of_stream(container, video)
        self._cutters = self._make_cutters(specs, video, audio)
        # In other formats times are ignored, or a jump is a clock that is set anew.
        can_be_false = not self._has_flag(FormatFlags.ts_discont | FormatFlags.no_timestamps)
        max_step_s = MAX_STEP_S if can_be_false else math.inf
        self._times: dict[int, FalseTimes[av.VideoFrame | av.AudioFrame]] = {
            stream: FalseTimes(self._start_s, max_step_s) for stream in self._cutters
        }

    def _make_cutters(
        self,
        specs: Mapping[str, FrameSpec | AudioSpec],
        video: av.VideoStream | None,
        audio: av.AudioStream | None,
    ) -> dict[int, list[_Cutter]]:
        """The cutters by the index of their stream. A cutter goes after its last wanted clip."""
        # As in the ffmpeg program: beside other streams, a picture that sets in late is held back
        # to the beginning of the file; alone, it is itself the beginning.
        from_zero = len(self._container.streams) > 1
        crop = NO_CROP if video is None else Crop.of_stream(video)
        offset_s = None if video is None else self._picture_offset_s(video)
        cutters: dict[int, list[_Cutter]] = {}
        for name, spec in specs.items():
            if isinstance(spec, FrameSpec) and video is not None:
                frames = FrameCutter(name, spec, from_zero, crop, offset_s)
                cutters.setdefault(video.index, []).append(frames)
            elif isinstance(spec, AudioSpec) and audio is not None:
                windows = WindowCutter(name, spec, self._sound_clock())
                cutters.setdefault(audio.index, []).append(windows)
        return cutters

    def _picture_offset_s(self, video: av.VideoStream) -> float | None:
        """The second of the file that is second 0 of the picture's own clock."""
        if self._clock_name == "track":
            return None
        # In such formats the ffmpeg program, and so `Clock`, counts from the start of the picture.
        if not self._has_flag(FormatFlags.ts_discont) or video.start_time is None:
            return 0.0
        assert video.time_base is not None  # a stream that is being demuxed has one
        return max(0.0, float(video.start_time * video.time_base) - self._start_s)

    def _sound_clock(self) -> SoundClock | None:
        if self._clock_name == "track" or self._has_flag(FormatFlags.no_timestamps):
            return None
        discontinuous = self._has_flag(FormatFlags.ts_discont)
        return SoundClock(self._start_s, MAX_JUMP_AHEAD_S if discontinuous else math.inf)

    def _has_flag(self, flag: FormatFlags) -> bool:
        return bool(self._container.format.flags & cast(int, flag.value))

    def clips(self) -> Iterator[Clip]:
        """Yield the clips of all experts; at the end, warn of damage."""
        for stream, frame in self._frames():
            for cutter in tuple(self._cutters[stream]):
                yield from self._until_end(self._push(cutter, frame), stream, cutter)
        if self._cutters and not self._decoded:
            if is_animated_webp(self._path):
                raise InputError(
                    f"{self._path!r} is an animated WebP, which this version of PyAV cannot "
                    "decode; expected a video, or an animated GIF, PNG or AVIF"
                )
            reason = f" ({self._damage.reason})" if self._damage else ""
            raise InputError(
                f"{self._path!r} holds no picture or sound that can be decoded{reason}"
            )
        for stream, cutters in self._cutters.items():
            for cutter in tuple(cutters):
                yield from self._until_end(cutter.finish(), stream, cutter)
        self._check_duration()
        if self._damage is not None:
            warn(
                f"{self._path!r} is damaged at second {self._damage.second:.2f} "
                f"({self._damage.reason}); what could be read is used"
            )
        elif self._pictures == 1 and not self._has_sound:
            warn(
                f"{self._path!r} is a still picture, expected a video; it is used as a video of "
                "one frame"
            )

    def _push(self, cutter: _Cutter, frame: av.VideoFrame | av.AudioFrame) -> Iterator[Clip]:
        """Yield the clips that a frame completes. A frame that cannot be cut counts as damage."""
        try:
            if isinstance(cutter, FrameCutter):
                yield from cutter.push(cast(av.VideoFrame, frame), self._clock.after_gap)
            else:
                yield from cutter.push(frame)
            self._decoded = True
        except (BoundError, av.FFmpegError) as error:
            self._note_damage(_reason(error))

    def _until_end(self, clips: Iterator[Clip], stream: int, cutter: _Cutter) -> Iterator[Clip]:
        """Yield a cutter's clips up to its last wanted one, and then drop the cutter."""
        for clip in clips:
            yield clip
            if clip.name in self._clips_left:
                self._clips_left[clip.name] -= 1
            if clip.end_s >= self._end_s or self._clips_left.get(clip.name) == 0:
                self._cutters[stream].remove(cutter)
                return

    def _frames(self) -> Iterator[tuple[int, av.VideoFrame | av.AudioFrame]]:
        """Decode frame by frame, each with the index of its stream, past whatever is damaged.

        Streams without cutters are demuxed and not decoded. Demuxing costs next to nothing, and
        tells how far the file reaches.
        """
        packets = self._container.demux()
        while True:
            check_stop()
            self._time_limit.check()
            try:
                packet = next(packets)
                self._note_packet(packet)
                stream = packet.stream.index
                frames = self._decode(packet) if self._cutters.get(stream) else []
            except StopIteration:
                break
            except (av.FFmpegError, OSError, BoundError) as error:
                self._note_damage(_reason(error))
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._note_damage(LOSS)
                yield from self._timed(stream, self._times[stream].push(frame))
        for stream, times in self._times.items():
            yield from self._timed(stream, times.finish())

    def _timed(
        self, stream: int, frames: list[av.VideoFrame | av.AudioFrame]
    ) -> Iterator[tuple[int, av.VideoFrame | av.AudioFrame]]:
        """Set the times of frames of a stream, and note the damage that they show."""
        times = self._times[stream]
        if times.false_s is not None:
            self._note_damage(
                f"a time stamp is {times.false_s - times.last_s:.0f} seconds ahead of its "
                "neighbours",
                times.last_s - self._start_s,
            )
        for frame in frames:
            if isinstance(frame, av.VideoFrame):
                self._clock.set_time(frame)
                if self._clock.gap:
                    assert frame.time_base is not None  # a frame with a time has one
                    gap_s = float(self._clock.gap * frame.time_base)
                    self._note_damage(
                        f"a picture should last {gap_s:.0f} seconds, and at most {MAX_GAP_S} "
                        "are filled by repeating it"
                    )
            yield stream, frame

    def _decode(self, packet: av.Packet[Any]) -> Sequence[av.VideoFrame | av.AudioFrame]:
        """Decode a packet, unless its header asks for more memory than it may have."""
        _check_bounds(packet.stream.codec_context)
        # Only streams of video and audio have cutters, so there are no subtitles among these.
        frames = cast("Sequence[av.VideoFrame | av.AudioFrame]", packet.decode())
        for frame in frames:
            _check_bounds(frame)
        return frames

    def _note_packet(self, packet: av.Packet[Any]) -> None:
        if packet.size > 0 and packet.stream_index == self._picture_index:
            self._pictures += 1
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            end_s = float((time + (packet.duration or 0)) * packet.time_base) - self._start_s
            self._reached_s = max(self._reached_s, end_s)
        # The last packet of plain samples is short if their number was not known beforehand.
        codec = packet.stream.codec_context  # None if FFmpeg cannot decode the stream
        is_plain = codec is not None and codec.name.startswith("pcm_")
        if packet.is_corrupt and not (is_plain and states_no_length(self._path)):
            self._note_damage(LOSS)

    def _note_damage(self, reason: str, second: float | None = None) -> None:
        """Note the first damage. Without a second, it is where the file is read."""
        if self._damage is None:
            self._damage = _Damage(self._reached_s if second is None else second, reason)

    def _check_duration(self) -> None:
        """Note damage if the file ends well before its stated duration."""
        if not self._is_short(self._container.duration):
            return
        try:
            stated_s = stated_duration_s(self._path)
        except (av.FFmpegError, OSError):  # formats that are read from their end
            stated_s = None
        if stated_s is not None and self._reached_s < stated_s - TOLERATED_LOSS_S:
            self._note_damage(f"it should last {stated_s:.2f} seconds")

    def _is_short(self, duration: int | None) -> bool:
        return duration is not None and (
            self._reached_s < duration / av.time_base - TOLERATED_LOSS_S
        )


def _check_bounds(pictures_or_sound: Any) -> None:
    """Raise a `BoundError` if a frame, or the decoder of a stream, is beyond the bounds."""
    if isinstance(pictures_or_sound, av.VideoFrame | av.VideoCodecContext):
        if pictures_or_sound.width and pictures_or_sound.height:  # a header may leave them open
            check_picture(pictures_or_sound.width, pictures_or_sound.height)
    elif pictures_or_sound.sample_rate:
        check_sample_rate(pictures_or_sound.sample_rate)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")

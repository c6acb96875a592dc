"""A video file -> clips of frames and windows of sound, in one pass, for any number of experts.

Frames go through FFmpeg's own filters, as the authors of MDMMT cut theirs:
`fps=F:round=up, scale=W:H, crop=C:C:x:y`, then RGB. Sound is the mean of its channels, resampled.
Times are seconds from the beginning of the picture or of the sound: sound that sets in late begins
with its first sample, as in the PCM that the authors had the ffmpeg program write.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import Flags as ContainerFlags
from av.filter import Graph
from av.format import Flags as FormatFlags
from av.stream import Disposition
from numpy.typing import NDArray

from ..errors import InputError, warn
from .resample import Resampler
from .specs import AudioSpec, Clip, FrameSpec

TURNS = {  # filters that set upright what `frame.rotation` (degrees) says was filmed turned
    90: (("transpose", "cclock"),),
    -90: (("transpose", "clock"),),
    180: (("hflip", None), ("vflip", None)),
    -180: (("hflip", None), ("vflip", None)),
}
PIXEL_FORMATS = {"RGB": "rgb24", "BGR": "bgr24"}  # of the modes of Towhee's frames
PCM_FULL = 32768  # what 1.0 is as a 16-bit sample
# No videos: FFmpeg draws .txt files as if they were terminals, and the others are lists of files.
NO_VIDEOS = ("tty", "concat", "hls", "dash", "sdp")
TOLERATED_LOSS_S = 1.0  # a file may end that much before its stated duration
LOSS = "a part of the picture or sound is missing"
JUMPS_S = (0.1, 10.0)  # how far back and forth the clock of a broadcast may go and still be right


def read_clips(
    path: str | os.PathLike[str],
    wants: Mapping[str, FrameSpec | AudioSpec],
    end_s: float = math.inf,
) -> Iterator[Clip]:
    """Decode a file once and cut it for each expert; only the clips under way are in memory.

    Clips of one expert come in the order of time. An expert whose medium the file lacks gets
    none. A file that breaks off gives what can be read of it, and a warning.

    Args:
        path: any local file that FFmpeg reads.
        wants: what each expert, by name, is to be given.
        end_s: an expert's last clip is the first that reaches this second.

    Raises:
        InputError: no such file, or nothing in it can be decoded.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no file {os.fspath(path)!r}")
    try:
        container = open_media(path)
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{os.fspath(path)!r} is not a video that can be read ({_reason(error)})"
        ) from error
    with container:
        check_format(container, path)
        # PyAV would make up times where the file has none, but in the order of decoding.
        container.flags &= ~ContainerFlags.gen_pts.value
        yield from _cut(container, path, wants, end_s)


def open_media(path: str | os.PathLike[str]) -> av.container.InputContainer:
    """A file for reading; by its whole path, since FFmpeg takes `12:30.mp4` for a protocol."""
    return av.open(os.path.abspath(path))


def check_format(container: av.container.InputContainer, path: str | os.PathLike[str]) -> None:
    """Refuse texts, and lists that would have other files read."""
    if container.format.name in NO_VIDEOS:
        raise InputError(f"{os.fspath(path)!r} is a text, expected a video")


def read_frames(
    frames: Iterable[NDArray[np.uint8]], wants: Mapping[str, FrameSpec | AudioSpec]
) -> Iterator[Clip]:
    """Cut decoded frames for each expert, as `read_clips` does with those of a file.

    Args:
        frames: as `towhee.types.VideoFrame`, which Towhee's video decoders yield: (height, width,
            3) uint8 arrays with a `mode`, RGB or BGR, and a `timestamp` in milliseconds, in the
            order of time. Taken one by one. The time of the first is the 0 of all clips.
        wants: what each expert, by name, is to be given; those that want sound get nothing.

    Raises:
        InputError: no frames, or something else among them.
    """
    cutters = [
        FrameCutter(name, want, from_zero=False)
        for name, want in wants.items()
        if isinstance(want, FrameSpec)
    ]
    clock, last_ms = None, -math.inf
    for index, image in enumerate(frames):
        frame = _decoded(index, image)
        if image.timestamp <= last_ms:
            raise InputError(
                f"frame {index} is of millisecond {image.timestamp}, and the one before it of "
                f"{last_ms}; expected frames in the order of time"
            )
        last_ms = image.timestamp
        clock = clock or Clock(start=frame.pts)
        clock.set_time(frame)
        for cutter in cutters:
            yield from cutter.push(frame)
    if clock is None:
        raise InputError("there are no frames, expected those of a video")
    for cutter in cutters:
        yield from cutter.finish()


def _decoded(index: int, image: NDArray[np.uint8]) -> av.VideoFrame:
    """One of the frames given to `read_frames`, as PyAV has them."""
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
    frame.pts, frame.time_base = round(time_ms * 1000), Fraction(1, 10**6)
    return frame


def _cut(
    container: av.container.InputContainer,
    path: str | os.PathLike[str],
    wants: Mapping[str, FrameSpec | AudioSpec],
    end_s: float,
) -> Iterator[Clip]:
    video, audio = best_stream(container, "video"), best_stream(container, "audio")
    if video is None and audio is None:
        raise InputError(f"{os.fspath(path)!r} holds neither picture nor sound")
    # As in the ffmpeg program: beside other streams, a picture that sets in late is held back to
    # their beginning; alone, it is itself the beginning.
    from_zero = len(container.streams) > 1
    cutters: dict[int, list[FrameCutter | WindowCutter]] = {}  # those that want more, by stream
    for name, want in wants.items():
        if isinstance(want, FrameSpec) and video is not None:
            cutters.setdefault(video.index, []).append(FrameCutter(name, want, from_zero))
        elif isinstance(want, AudioSpec) and audio is not None:
            cutters.setdefault(audio.index, []).append(WindowCutter(name, want))
    if video is not None:
        video.thread_type = "SLICE"  # by frames it is a third faster, but may not tell of damage
        clock = Clock.of(container, video)

    # All streams are demuxed, which costs next to nothing, to know how far the file reaches.
    packets = container.demux()
    start_s = (container.start_time or 0) / av.time_base
    reached_s, decoded, damage = 0.0, False, None
    while True:
        try:
            packet = next(packets)
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                packet_end_s = float((time + packet.duration) * packet.time_base) - start_s
                reached_s = max(reached_s, packet_end_s)
            if packet.is_corrupt:
                damage = damage or (reached_s, LOSS)
            wanted_by = cutters.get(packet.stream.index, [])  # a last, empty packet has no other
            frames = packet.decode() if wanted_by else ()
        except StopIteration:
            break
        except av.FFmpegError as error:
            damage = damage or (reached_s, _reason(error))
            continue
        for frame in frames:
            decoded = True
            if frame.is_corrupt:
                damage = damage or (reached_s, LOSS)
            if isinstance(frame, av.VideoFrame):
                clock.set_time(frame)
            for cutter in tuple(wanted_by):
                for clip in cutter.push(frame):
                    yield clip
                    if clip.end_s >= end_s:
                        wanted_by.remove(cutter)
                        break
    if cutters and not decoded:
        raise InputError(f"{os.fspath(path)!r} holds no picture or sound that can be decoded")
    for cutter in (cutter for wanted_by in cutters.values() for cutter in wanted_by):
        for clip in cutter.finish():
            yield clip
            if clip.end_s >= end_s:
                break
    if damage is None and container.duration is not None:
        stated_s = container.duration / av.time_base
        if reached_s < stated_s - TOLERATED_LOSS_S:
            damage = (reached_s, f"it should last {stated_s:.2f} seconds")
    if damage is not None:
        warn(
            f"{os.fspath(path)!r} is damaged at second {damage[0]:.2f} ({damage[1]}); "
            "what could be read is used"
        )


class Clock:
    """Sets the times of decoded pictures by the rules of the ffmpeg program.

    They begin at 0. A picture whose time or duration is not known follows on the one before it,
    and lasts as long.
    """

    def __init__(
        self,
        start: int,
        duration: int = 1,
        timeless: bool = False,
        jumps: tuple[int, int] | None = None,
    ) -> None:
        """In units of the stream's times.

        Args:
            start: the time that becomes 0.
            duration: of a picture, until it is known better.
            timeless: the times in the file are not to be trusted.
            jumps: a picture that comes earlier or later than expected by more than these two is
                taken to be on time, its clock having been set anew. None: no clock is.
        """
        self._start = start
        self._duration = duration
        self._timeless = timeless
        self._jumps = jumps
        self._last: int | None = None

    @classmethod
    def of(cls, container: av.container.InputContainer, video: av.VideoStream) -> Clock:
        flags, unit_s = container.format.flags, video.time_base
        duration = max(1, round(1 / video.average_rate / unit_s)) if video.average_rate else 1
        if flags & FormatFlags.ts_discont.value:  # its clock may begin anywhere, and again
            jumps = tuple(round(jump_s / unit_s) for jump_s in JUMPS_S)
            return cls(video.start_time or 0, duration, jumps=jumps)
        start_s = Fraction(container.start_time or 0, av.time_base)
        timeless = bool(flags & FormatFlags.no_timestamps.value)
        return cls(round(start_s / unit_s), duration, timeless)

    def set_time(self, frame: av.VideoFrame) -> None:
        """Of the next picture, in the order in which they are shown."""
        expected = 0 if self._last is None else self._last + self._duration
        time = None if self._timeless else frame.dts if frame.pts is None else frame.pts
        late = 0 if time is None else time - self._start - expected
        if self._jumps and self._last is not None and not -self._jumps[0] <= late <= self._jumps[1]:
            self._start += late
            late = 0
        frame.pts = expected + late
        step = 0 if self._last is None else frame.pts - self._last
        if frame.duration > 1 or (frame.duration == 1 and step <= 2):
            self._duration = frame.duration
        elif step > 0:
            self._duration = step
        frame.duration = self._duration
        self._last = frame.pts


class FrameCutter:
    """Decoded frames -> clips of one expert, through a filter graph of its own."""

    def __init__(self, name: str, want: FrameSpec, from_zero: bool) -> None:
        """from_zero: whether the first clip begins at 0, or where the first frame is."""
        self.name = name
        self.want = want
        self._slot = 0 if from_zero else None  # of the next frame, at the rate that is wanted
        self._scaling: Scaling | None = None
        self._graph: Graph | None = None
        self._looks: tuple | None = None  # of the frames that the graph was made for
        self._frames: list[NDArray[np.uint8]] = []
        self._clips = 0

    def push(self, frame: av.VideoFrame) -> Iterator[Clip]:
        looks = (frame.width, frame.height, frame.format.name, frame.rotation)
        if looks != self._looks:
            yield from self._flush()
            self._scaling = self._scaling or Scaling.of(frame, self.want)
            self._graph, self._looks = _frame_graph(frame, self.want, self._scaling), looks
        self._graph.push(frame)
        yield from self._pull()

    def finish(self) -> Iterator[Clip]:
        """The rest; the frames of a last partial clip are repeated evenly until it is full."""
        yield from self._flush()
        if self._frames:
            last = len(self._frames) - 1
            picks = np.ceil(np.linspace(0, last, self.want.clip_frames)).astype(int)
            yield self._clip([self._frames[i] for i in picks])

    def _flush(self) -> Iterator[Clip]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull()

    def _pull(self) -> Iterator[Clip]:
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            if self._slot is None:
                self._slot = frame.pts
            picture = frame.to_ndarray()
            for _ in range(self._slot, frame.pts + 1):  # more than one where it sets in late
                self._frames.append(picture)
                if len(self._frames) == self.want.clip_frames:
                    yield self._clip(self._frames)
                    self._frames = []
            self._slot = max(self._slot, frame.pts + 1)

    def _clip(self, frames: list[NDArray[np.uint8]]) -> Clip:
        k, self._clips = self._clips, self._clips + 1
        length_s = self.want.clip_s
        return Clip(self.name, np.stack(frames), k * length_s, (k + 1) * length_s)


class WindowCutter:
    """Decoded sound -> windows of one expert."""

    def __init__(self, name: str, want: AudioSpec) -> None:
        self.name = name
        self.want = want
        self._kind: tuple | None = None  # of the sound that these two were made for
        self._to_pcm: av.AudioResampler | None = None
        self._resampler: Resampler | None = None  # none where the rate is the wanted one
        self._samples = np.empty(0, dtype=np.float32)  # since the beginning of window `_windows`
        self._windows = 0

    def push(self, frame: av.AudioFrame) -> Iterator[Clip]:
        kind = (frame.sample_rate, frame.layout.name, frame.format.name)
        if kind != self._kind:
            yield from self._flush()
            rate_hz, self._kind = frame.sample_rate, kind
            # Packed, as PyAV crashes where planes are more than seven.
            self._to_pcm = av.AudioResampler(format="s16", layout=frame.layout, rate=rate_hz)
            same_rate = rate_hz == self.want.sample_rate_hz
            self._resampler = None if same_rate else Resampler(rate_hz, self.want.sample_rate_hz)
        yield from self._cut(self._mono(frame))

    def finish(self) -> Iterator[Clip]:
        """The windows that the resampler still held; a last partial one is dropped."""
        yield from self._flush()

    def _flush(self) -> Iterator[Clip]:
        if self._to_pcm is not None:
            rest = self._mono(None)
            if self._resampler is not None:
                rest.append(self._resampler.finish())
            yield from self._cut(rest)

    def _mono(self, frame: av.AudioFrame | None) -> list[NDArray[np.float32]]:
        # The mean of the channels, not the weighted down-mix that FFmpeg would make.
        mono = []
        for pcm in self._to_pcm.resample(frame):
            channels = pcm.to_ndarray().reshape(pcm.samples, -1)
            mono.append((channels.mean(axis=1) / PCM_FULL).astype(np.float32))
        return mono if self._resampler is None else [self._resampler.push(piece) for piece in mono]

    def _cut(self, mono: list[NDArray[np.float32]]) -> Iterator[Clip]:
        self._samples = np.concatenate([self._samples, *mono])
        length = round(self.want.window_s * self.want.sample_rate_hz)
        hop = round(self.want.hop_s * self.want.sample_rate_hz)
        while len(self._samples) >= length:
            start_s = self._windows * self.want.hop_s
            yield Clip(self.name, self._samples[:length], start_s, start_s + self.want.hop_s)
            self._samples = self._samples[hop:]
            self._windows += 1


def best_stream(container: av.container.InputContainer, kind: str) -> av.stream.Stream | None:
    """The stream a player would take; a cover picture is no video."""
    stream = container.streams.best(kind)
    if stream is None or stream.disposition & Disposition.attached_pic:
        return None
    return stream


class Scaling(NamedTuple):
    """To what size pictures are brought, and where the square is cut out. In pixels."""

    width: int
    height: int
    x: int
    y: int

    @classmethod
    def of(cls, frame: av.VideoFrame, want: FrameSpec) -> Scaling:
        width, height = frame.width, frame.height
        if any(name == "transpose" for name, _ in _turns(frame)):
            width, height = height, width
        short = min(width, height)
        width, height = (round(side / short * want.short_side / 2) * 2 for side in (width, height))
        return cls(width, height, *(round((side - want.crop) * 0.5) for side in (width, height)))


def _frame_graph(frame: av.VideoFrame, want: FrameSpec, scaling: Scaling) -> Graph:
    """The filters for frames like this one."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    chain = [
        source,
        *(graph.add(name, args) for name, args in _turns(frame)),
        graph.add("fps", f"fps={want.fps}:round=up"),
        graph.add("scale", f"{scaling.width}:{scaling.height}"),
        graph.add("crop", f"{want.crop}:{want.crop}:{scaling.x}:{scaling.y}"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    return graph


def _turns(frame: av.VideoFrame) -> tuple[tuple[str, str | None], ...]:
    return TURNS.get(round(frame.rotation), ())


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")

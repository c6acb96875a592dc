"""A video file -> clips of frames and windows of sound, in one pass, for any number of experts.

Frames go through FFmpeg's own filters, as the authors of MDMMT cut theirs:
`fps=F:round=up, scale=W:H, crop=C:C:x:y`, then RGB. Sound is the mean of its channels, resampled.
Times are seconds from the beginning of the picture or of the sound.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.filter import Graph
from av.stream import Disposition
from numpy.typing import NDArray

from .errors import InputError
from .experts.base import AudioInput, FrameInput
from .resample import Resampler

TURNS = {  # filters that set upright what `frame.rotation` (degrees) says was filmed turned
    90: (("transpose", "cclock"),),
    -90: (("transpose", "clock"),),
    180: (("hflip", None), ("vflip", None)),
    -180: (("hflip", None), ("vflip", None)),
}
PCM_FULL = 32768  # what 1.0 is as a 16-bit sample
TEXT_DEMUXER = "tty"  # FFmpeg draws .txt files as if they were terminals
TOLERATED_LOSS_S = 1.0  # a file may end that much before its stated duration


class Clip(NamedTuple):
    """What one expert gets at once."""

    name: str  # of the expert
    data: NDArray  # (clip_frames, crop, crop, 3) uint8, or (samples,) float32
    start_s: float
    end_s: float


def read_clips(
    path: str | os.PathLike[str], wants: Mapping[str, FrameInput | AudioInput]
) -> Iterator[Clip]:
    """Decode a file once and cut it for each expert; only the clips under way are in memory.

    Clips of one expert come in the order of time. An expert whose medium the file lacks gets
    none. A file that breaks off gives what can be read of it, and a warning.

    Args:
        path: any local file that FFmpeg reads.
        wants: what each expert, by name, is to be given.

    Raises:
        InputError: no such file, or nothing in it can be decoded.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no file {os.fspath(path)!r}")
    try:
        container = av.open(os.fspath(path))
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{os.fspath(path)!r} is not a video that can be read ({_reason(error)})"
        ) from error
    with container:
        if container.format.name == TEXT_DEMUXER:
            raise InputError(f"{os.fspath(path)!r} is a text, expected a video")
        yield from _cut(container, path, wants)


def _cut(
    container: av.container.InputContainer,
    path: str | os.PathLike[str],
    wants: Mapping[str, FrameInput | AudioInput],
) -> Iterator[Clip]:
    video, audio = _best(container, "video"), _best(container, "audio")
    cutters: dict[int, list[FrameCutter | WindowCutter]] = {}
    for name, want in wants.items():
        if isinstance(want, FrameInput) and video is not None:
            cutters.setdefault(video.index, []).append(FrameCutter(name, want))
        elif isinstance(want, AudioInput) and audio is not None:
            cutters.setdefault(audio.index, []).append(WindowCutter(name, want))
    if video is None and audio is None:
        raise InputError(f"{os.fspath(path)!r} holds neither picture nor sound")

    # All streams are demuxed, which costs next to nothing, to know how far the file reaches.
    packets = container.demux()
    reached_s, decoded, damage = 0.0, False, None
    while True:
        try:
            packet = next(packets)
            if packet.pts is not None:
                end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                reached_s = max(reached_s, end_s)
            wanted_by = cutters.get(packet.stream_index, ())
            frames = packet.decode() if wanted_by else ()
        except StopIteration:
            break
        except av.FFmpegError as error:
            damage = damage or (reached_s, _reason(error))
            continue
        for frame in frames:
            decoded = True
            for cutter in wanted_by:
                yield from cutter.push(frame)
    if cutters and not decoded:
        raise InputError(f"{os.fspath(path)!r} holds no picture or sound that can be decoded")
    for cutter in (cutter for group in cutters.values() for cutter in group):
        yield from cutter.finish()
    if damage is None and container.duration is not None:
        stated_s = ((container.start_time or 0) + container.duration) / av.time_base
        if reached_s < stated_s - TOLERATED_LOSS_S:
            damage = (reached_s, f"it should last {stated_s:.2f} seconds")
    if damage is not None:
        warnings.warn(
            f"{os.fspath(path)!r} is damaged at second {damage[0]:.2f} ({damage[1]}); "
            "what could be read is used",
            stacklevel=3,
        )


class FrameCutter:
    """Decoded frames -> clips of one expert, through a filter graph of its own."""

    def __init__(self, name: str, want: FrameInput) -> None:
        self.name = name
        self.want = want
        self._graph: Graph | None = None
        self._frames: list[NDArray[np.uint8]] = []
        self._clips = 0

    def push(self, frame: av.VideoFrame) -> Iterator[Clip]:
        if self._graph is None:
            self._graph = _frame_graph(frame, self.want)
        self._graph.push(frame)
        yield from self._pull()

    def finish(self) -> Iterator[Clip]:
        """The rest; the frames of a last partial clip are repeated evenly until it is full."""
        if self._graph is None:
            return
        self._graph.push(None)
        yield from self._pull()
        if self._frames:
            last = len(self._frames) - 1
            picks = np.ceil(np.linspace(0, last, self.want.clip_frames)).astype(int)
            yield self._clip([self._frames[i] for i in picks])

    def _pull(self) -> Iterator[Clip]:
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            self._frames.append(frame.to_ndarray())
            if len(self._frames) == self.want.clip_frames:
                yield self._clip(self._frames)
                self._frames = []

    def _clip(self, frames: list[NDArray[np.uint8]]) -> Clip:
        length_s = self.want.clip_frames / self.want.fps
        k, self._clips = self._clips, self._clips + 1
        return Clip(self.name, np.stack(frames), k * length_s, (k + 1) * length_s)


class WindowCutter:
    """Decoded sound -> windows of one expert."""

    def __init__(self, name: str, want: AudioInput) -> None:
        self.name = name
        self.want = want
        self._to_pcm: av.AudioResampler | None = None
        self._resampler: Resampler | None = None  # none where the rate is the wanted one
        self._samples = np.empty(0, dtype=np.float32)  # since the beginning of window `_windows`
        self._windows = 0

    def push(self, frame: av.AudioFrame | None) -> Iterator[Clip]:
        if self._to_pcm is None:
            rate_hz = frame.sample_rate
            self._to_pcm = av.AudioResampler(format="s16p", layout=frame.layout, rate=rate_hz)
            if rate_hz != self.want.sample_rate_hz:
                self._resampler = Resampler(rate_hz, self.want.sample_rate_hz)
        # The mean of the channels, not the weighted down-mix that FFmpeg would make.
        means = [pcm.to_ndarray().mean(axis=0) / PCM_FULL for pcm in self._to_pcm.resample(frame)]
        mono = [mean.astype(np.float32) for mean in means]
        if self._resampler is not None:
            mono = [self._resampler.push(piece) for piece in mono]
            if frame is None:
                mono.append(self._resampler.finish())
        self._samples = np.concatenate([self._samples, *mono])
        length = round(self.want.window_s * self.want.sample_rate_hz)
        hop = round(self.want.hop_s * self.want.sample_rate_hz)
        while len(self._samples) >= length:
            start_s = self._windows * self.want.hop_s
            yield Clip(self.name, self._samples[:length], start_s, start_s + self.want.hop_s)
            self._samples = self._samples[hop:]
            self._windows += 1

    def finish(self) -> Iterator[Clip]:
        """The windows that the resampler still held; a last partial one is dropped."""
        if self._to_pcm is not None:
            yield from self.push(None)


def _best(container: av.container.InputContainer, kind: str) -> av.stream.Stream | None:
    """The stream a player would take; a cover picture is no video."""
    stream = container.streams.best(kind)
    if stream is None or stream.disposition & Disposition.attached_pic:
        return None
    return stream


def _frame_graph(frame: av.VideoFrame, want: FrameInput) -> Graph:
    """The filters for frames like this first one of the stream."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    turns = TURNS.get(round(frame.rotation), ())
    width, height = frame.width, frame.height
    if any(name == "transpose" for name, _ in turns):
        width, height = height, width
    # A picture that sets in late is held back to the beginning, as in the ffmpeg program.
    late = ":start_time=0" if (frame.time or 0) > 0 else ""
    short = min(width, height)
    width, height = (round(side / short * want.short_side / 2) * 2 for side in (width, height))
    x, y = (round((side - want.crop) * 0.5) for side in (width, height))
    chain = [
        source,
        *(graph.add(name, args) for name, args in turns),
        graph.add("fps", f"fps={want.fps}:round=up{late}"),
        graph.add("scale", f"{width}:{height}"),
        graph.add("crop", f"{want.crop}:{want.crop}:{x}:{y}"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    return graph


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")

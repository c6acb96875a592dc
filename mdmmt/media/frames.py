"""Decoded frames -> clips of square RGB frames, through FFmpeg's own filters.

The filters are those of the authors of MDMMT: `fps=F:round=up, scale=W:H, crop=C:C:x:y`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from .limits import check_picture
from .presentation import NO_CROP, Crop, Matrix, Presentation, display_matrix
from .specs import Clip, FrameSpec


class FrameCutter:
    """Cuts decoded frames into the clips of one expert, through a filter graph of its own."""

    def __init__(
        self,
        name: str,
        spec: FrameSpec,
        from_zero: bool,
        crop: Crop = NO_CROP,
        offset_s: float | None = 0.0,
    ) -> None:
        """
        Args:
            name: of the expert.
            spec: of its clips.
            from_zero: whether the first clip begins at second 0, or else at the first frame.
            crop: the crop that the container asks for.
            offset_s: the second of the file that is second 0 of the frames. The last clip then
                ends with its last frame. None: the authors' times, by which the first clip begins
                at second 0 and all clips have the same length.
        """
        self.name = name
        self.spec = spec
        self._crop = crop
        self._offset_s = offset_s
        self._first_s = offset_s or 0.0  # the start of the first clip
        self._picture_end_s = 0.0  # the end of the last frame pushed
        self._held: list[Clip] = []  # clips that may end after the picture
        self._next_slot = 0 if from_zero else None  # of the next frame, counted at `spec.fps`
        self._scaling: Scaling | None = None
        self._graph: Graph | None = None
        # Of the frames that `_graph` takes.
        self._format: tuple[int, int, str, Matrix | None] | None = None
        self._frames: list[NDArray[np.uint8]] = []
        self._clips = 0
        self._first_slot = self._next_slot  # of the first clip
        self._after_gap = False  # whether the next frame is the first one after a gap

    def push(self, frame: av.VideoFrame, after_gap: bool = False) -> Iterator[Clip]:
        """Yield the clips that this frame completes.

        After a gap, clips go on with the one in which the frame is. The clips between are left out,
        and those at both ends are filled up with the frames that they have.
        """
        if after_gap:
            yield from self.finish()
            self._graph, self._after_gap = None, True
        format_ = (frame.width, frame.height, frame.format.name, display_matrix(frame))
        if self._graph is None or format_ != self._format:
            yield from self._hold_back(self._flush())
            # Frames of another size are brought to the size of the first.
            presentation = Presentation.of(frame, self._crop)
            check_picture(presentation.width, presentation.height)
            self._scaling = self._scaling or Scaling.of(presentation, self.spec)
            self._graph = _filter_graph(frame, presentation, self.spec, self._scaling)
            self._format = format_
        if self._offset_s is not None and frame.pts is not None and frame.time_base is not None:
            end_s = self._offset_s + float((frame.pts + frame.duration) * frame.time_base)
            self._picture_end_s = max(self._picture_end_s, end_s)
        self._graph.push(frame)
        yield from self._hold_back(self._pull(self._graph))

    def finish(self) -> Iterator[Clip]:
        """Yield the rest. A last partial clip is filled up by repeating its frames evenly."""
        yield from self._hold_back(self._flush())
        if self._frames:
            last = len(self._frames) - 1
            picks = np.ceil(np.linspace(0, last, self.spec.clip_frames)).astype(int)
            self._held.append(self._clip([self._frames[i] for i in picks]))
            self._frames = []
        held, self._held = self._held, []
        for clip in held:
            if self._offset_s is None:
                yield clip
            else:
                end_s = max(clip.start_s, min(clip.end_s, self._picture_end_s))
                yield clip._replace(end_s=end_s)

    def _hold_back(self, clips: Iterator[Clip]) -> Iterator[Clip]:
        """Yield these clips and those held back, but for clips that may end after the picture."""
        for clip in clips:
            self._held.append(clip)
            yield from self._reached()
        yield from self._reached()

    def _reached(self) -> Iterator[Clip]:
        while self._held and (self._offset_s is None or self._held[0].end_s <= self._picture_end_s):
            yield self._held.pop(0)

    def _flush(self) -> Iterator[Clip]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull(self._graph)

    def _pull(self, graph: Graph) -> Iterator[Clip]:
        while True:
            try:
                frame = graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            slot = frame.pts
            assert slot is not None  # the fps filter has set it
            if self._first_slot is None:
                self._first_slot = slot
                if self._offset_s is not None:
                    self._first_s = self._offset_s + slot / self.spec.fps
            if self._after_gap:
                self._after_gap = False
                into_file = (slot - self._first_slot) // self.spec.clip_frames
                self._clips = max(self._clips, into_file)
                self._next_slot = self._first_slot + self._clips * self.spec.clip_frames
            next_slot = slot if self._next_slot is None else self._next_slot
            self._next_slot = max(next_slot, slot + 1)
            picture = cast("NDArray[np.uint8]", frame.to_ndarray())
            # The first frame fills several slots if the picture begins after 0.
            for _ in range(next_slot, slot + 1):
                self._frames.append(picture)
                if len(self._frames) == self.spec.clip_frames:
                    yield self._clip(self._frames)
                    self._frames = []

    def _clip(self, frames: list[NDArray[np.uint8]]) -> Clip:
        start_s = self._first_s + self._clips * self.spec.clip_s
        self._clips += 1
        end_s = self._first_s + self._clips * self.spec.clip_s
        return Clip(self.name, np.stack(frames), start_s, end_s)


class Scaling(NamedTuple):
    """The size that frames are scaled to, and the corner of the square cut out, in pixels."""

    width: int
    height: int
    x: int
    y: int

    @classmethod
    def of(cls, presentation: Presentation, spec: FrameSpec) -> Scaling:
        """The scaling of frames that are shown like this."""
        width, height = presentation.width, presentation.height
        short = min(width, height)
        width, height = (round(side / short * spec.short_side / 2) * 2 for side in (width, height))
        x, y = (round((side - spec.crop) * 0.5) for side in (width, height))
        return cls(width, height, x, y)


def _filter_graph(
    frame: av.VideoFrame, presentation: Presentation, spec: FrameSpec, scaling: Scaling
) -> Graph:
    """The filters for frames of this size, pixel format and presentation."""
    graph = Graph()
    graph.threads = 1  # small frames keep more threads waiting for one another
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    chain = [
        source,
        *(graph.add(name, args) for name, args in presentation.filters),
        graph.add("fps", f"fps={spec.fps}:round=up"),
        graph.add("scale", f"{scaling.width}:{scaling.height}"),
        graph.add("crop", f"{spec.crop}:{spec.crop}:{scaling.x}:{scaling.y}"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    return graph

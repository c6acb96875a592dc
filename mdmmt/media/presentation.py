"""How a file wants its frames shown: cropped, turned, mirrored.

The filters are those that the ffmpeg program puts before all others by its options
`-apply_cropping` and `-autorotate`, which are on by default.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import av
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType

Matrix = tuple[int, ...]  # 3 x 3, row by row; the first two columns count 1 / 65536
MATRIX_LAYOUT = struct.Struct("=9i")
Filter = tuple[str, str | None]  # name and arguments

# Elements of a Matroska file: those around the picture's description, and those of `Crop` in it.
SEGMENT, TRACKS, TRACK, VIDEO = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"
CROP_ELEMENTS = (b"\x54\xbb", b"\x54\xaa", b"\x54\xcc", b"\x54\xdd")


class Crop(NamedTuple):
    """The pixels that a container wants cut off each side of the decoded frames."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    @classmethod
    def of_stream(cls, video: av.VideoStream) -> Crop:
        """The crop rectangle of a stream in any kind of container.

        PyAV does not tell it, but FFmpeg writes it into the header of a Matroska file.
        """
        file = io.BytesIO()
        try:
            with av.open(file, "w", format="matroska") as container:
                container.add_stream_from_template(video)
                container.start_encoding()
                content = file.getvalue()
        except (av.FFmpegError, ValueError):  # Matroska takes no such stream
            return cls()
        for outer in (SEGMENT, TRACKS, TRACK, VIDEO):
            content = dict(_elements(content)).get(outer, b"")
        values = dict(_elements(content))
        return cls(*(int.from_bytes(values.get(name, b""), "big") for name in CROP_ELEMENTS))


NO_CROP = Crop()


class Presentation(NamedTuple):
    """The filters that turn decoded frames into shown ones, and the size of a shown frame."""

    filters: tuple[Filter, ...]
    width: int
    height: int

    @classmethod
    def of(cls, frame: av.VideoFrame, crop: Crop) -> Presentation:
        """The presentation of frames of the same size, format and display matrix."""
        width, height = frame.width, frame.height
        filters: list[Filter] = []
        if any(crop):
            step_x, step_y = _chroma_steps(frame.format)
            cropped = width - crop.left - crop.right, height - crop.top - crop.bottom
            if cropped[0] >= step_x and cropped[1] >= step_y:
                filters.append(("crop", f"{cropped[0]}:{cropped[1]}:{crop.left}:{crop.top}"))
                # The filter keeps to whole pixels of the colour planes.
                width, height = (
                    side // step * step
                    for side, step in zip(cropped, (step_x, step_y), strict=True)
                )
        upright = upright_filters(display_matrix(frame))
        if any(name == "transpose" for name, _ in upright):
            width, height = height, width
        return cls((*filters, *upright), width, height)

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        """One frame as it is to be shown."""
        if not self.filters:
            return frame
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        filters = (graph.add(name, arguments) for name, arguments in self.filters)
        graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
        graph.push(frame)
        return cast(av.VideoFrame, graph.pull())


def display_matrix(frame: av.VideoFrame) -> Matrix | None:
    """The matrix that transforms a frame before it is shown."""
    # `frame.side_data` is kept by the frame and refers to it, so frames would fill the memory until
    # Python looks for cycles.
    for data in SideDataContainer(frame):  # type: ignore[call-arg]  # its stub lacks __init__
        if data.type == SideDataType.DISPLAYMATRIX and data.buffer_size >= MATRIX_LAYOUT.size:
            return MATRIX_LAYOUT.unpack_from(bytes(data))
    return None


def upright_filters(matrix: Matrix | None) -> tuple[Filter, ...]:
    """The filters of `ffmpeg -autorotate` for a display matrix."""
    if matrix is None:
        return ()
    degrees = _clockwise_degrees(matrix)
    if degrees is None:
        return ()
    if abs(degrees - 90) < 1:
        return (("transpose", "cclock_flip" if matrix[3] > 0 else "clock"),)
    if abs(degrees - 180) < 1:
        flips = (("hflip", matrix[0]), ("vflip", matrix[4]))
        return tuple((name, None) for name, scale in flips if scale < 0)
    if abs(degrees - 270) < 1:
        return (("transpose", "clock_flip" if matrix[3] < 0 else "cclock"),)
    if degrees > 1:
        return (("rotate", f"{degrees:f}*PI/180"),)
    return (("vflip", None),) if degrees < 1 and matrix[4] < 0 else ()


def _clockwise_degrees(matrix: Matrix) -> float | None:
    """The angle from 0 to 360, rounded as the program rounds it; None if there is no angle."""
    scale_x, scale_y = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if scale_x == 0 or scale_y == 0:
        return None
    exact = math.degrees(math.atan2(matrix[1] / scale_y, matrix[0] / scale_x))
    degrees = math.copysign(math.floor(abs(exact) + 0.5), exact)
    return degrees - 360 * math.floor(degrees / 360 + 0.9 / 360)


def _chroma_steps(format_: av.VideoFormat) -> tuple[int, int]:
    """The width and height in pixels for which there is one value of colour."""
    return 16 // format_.chroma_width(16), 16 // format_.chroma_height(16)


def _elements(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The elements of a Matroska file, or of an element of it: names and contents."""
    at = 0
    while at < len(content):
        name = content[at : (at := at + 9 - content[at].bit_length())]
        length = 9 - content[at].bit_length()
        size = int.from_bytes(content[at : at + length], "big") & (1 << 7 * length) - 1
        at += length
        if size == (1 << 7 * length) - 1:  # not known while the file is being written
            size = len(content) - at
        yield name, content[at : (at := at + size)]


def _unknown_type(cls: type[SideDataType], value: Any) -> SideDataType:
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


# Else PyAV raises an error if a frame has side data that it does not know, such as Exif.
SideDataType._missing_ = classmethod(_unknown_type)  # type: ignore[assignment]

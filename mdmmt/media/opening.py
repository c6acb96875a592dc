"""Opening local files, so that a file can neither make FFmpeg read other files nor use a network.

FFmpeg goes by the name: it takes `x%d.png` for a row of numbered pictures, `12:30.mp4` for a
protocol and `/dev/video0` for a camera. It also follows contents, such as playlists. Here it is
given an open file instead of a name, and no protocol with which it could open another file.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import av
from av.codec.context import Flags as CodecFlags

from ..errors import InputError
from .limits import MAX_STREAMS

# FFmpeg draws .txt files as if they were terminals; the other formats are lists of files.
TEXT_FORMATS = ("tty", "concat", "hls", "dash", "sdp")
NO_PROTOCOL = {"protocol_whitelist": ""}
ONE_STREAM_TOO_MANY = {"max_streams": str(MAX_STREAMS + 1)}  # which tells such a file
# The sizes that programs write before samples of unknown number: in WAV 0, or close below the
# greatest signed or unsigned number of 32 bits, and in CAF -1.
UNKNOWN_LENGTH = re.compile(
    rb"RIFF.*data(?:.[\xf0-\xff]\xff[\x7f\xff]|\0{4})|caff.*data\xff{8}", re.DOTALL
)
# The duration that FFmpeg writes to a pipe, where it cannot go back to the header.
UNKNOWN_REALMEDIA = 3600 * av.time_base
UNKNOWN_TICKS = 2**32 - 1  # of a stream, in IVF
HEADER_BYTES = 1 << 16  # the chunk `data` begins in them
ANIMATED_WEBP = re.compile(rb"RIFF.{4}WEBPVP8X.{4}(.)", re.DOTALL)  # and the flags of the file
ANIMATION_FLAG = 2
PLAIN_SUFFIX = re.compile(r"\.[A-Za-z0-9]+")


@contextmanager
def open_media(
    path: str | os.PathLike[str], size_factor: float = 1
) -> Iterator[av.container.InputContainer]:
    """Open a local file, which cannot make FFmpeg open another. Its tags may be in any encoding.

    Args:
        path: of the file.
        size_factor: the size that FFmpeg is told, as a multiple of the true one.

    Raises:
        InputError: the file is empty, of `TEXT_FORMATS`, or has more than `MAX_STREAMS` streams.
        OSError: there is no such file, or it cannot be read.
        av.FFmpegError: FFmpeg recognises no format.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a named pipe might never answer
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    with ExitStack() as stack:
        file = stack.enter_context(_NamelessFile(path, size_factor))
        if os.fstat(file.fileno()).st_size == 0:
            raise InputError(f"{os.fspath(path)!r} is empty, expected a video")
        try:
            container = av.open(
                file,
                "r",
                container_options=NO_PROTOCOL | ONE_STREAM_TOO_MANY,
                metadata_errors="replace",
            )
        except av.error.MemoryError as error:  # some formats raise it beyond the bound of streams
            raise InputError(
                f"{os.fspath(path)!r} asks for more memory than there is, or has more than "
                f"{MAX_STREAMS} streams"
            ) from error
        stack.enter_context(container)
        if len(container.streams) > MAX_STREAMS:
            raise InputError(
                f"{os.fspath(path)!r} has more than {MAX_STREAMS} streams, expected at most "
                f"{MAX_STREAMS}"
            )
        if container.format.name in TEXT_FORMATS:
            raise InputError(f"{os.fspath(path)!r} is a text, expected a video")
        for video in container.streams.video:
            if video.codec_context is not None:
                # Without this, memory alignment overrules the left edge of a crop rectangle.
                video.codec_context.flags |= CodecFlags.unaligned.value
        yield container


class _NamelessFile(io.FileIO):
    """A file that tells FFmpeg the suffix of its name alone, since some formats go by suffix."""

    def __init__(self, path: str | os.PathLike[str], size_factor: float = 1) -> None:
        super().__init__(path)
        self._end = int(size_factor * os.fstat(self.fileno()).st_size)
        suffix = Path(os.fspath(path)).suffix
        self.name = "file" + (suffix if PLAIN_SUFFIX.fullmatch(suffix) else "")

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek as files do, but from the size that is told."""
        if whence == os.SEEK_END:
            return super().seek(self._end + offset)
        return super().seek(offset, whence)


def stated_duration_s(path: str | os.PathLike[str]) -> float | None:
    """The duration that a file states; None if it states none, and FFmpeg may have estimated it.

    An estimate grows with the size of the file, and a statement does not.

    Raises:
        OSError, av.FFmpegError: see `open_media`.
    """
    for size_factors in ((2, 3), (0.5, 1)):  # some formats heed the size on one of the sides
        durations = set()
        for size_factor in size_factors:
            with open_media(path, size_factor) as container:
                if _is_unknown(container):
                    return None
                durations.add(container.duration)
        duration = durations.pop()
        if duration is not None and not durations:
            return duration / av.time_base
    return None


def _is_unknown(container: av.container.InputContainer) -> bool:
    """Whether the duration of a file stands for one that was not known."""
    if container.format.name == "rm":
        return container.duration == UNKNOWN_REALMEDIA
    return any(stream.duration == UNKNOWN_TICKS for stream in container.streams)


def header_duration_s(path: str | os.PathLike[str]) -> float | None:
    """The duration that the header of a file states, or that FFmpeg estimates from it.

    None if there is neither, or the file cannot be opened.
    """
    try:
        with open_media(path) as container:
            duration = container.duration
    except (av.FFmpegError, OSError, InputError):
        return None
    return None if duration is None else max(0.0, duration / av.time_base)


def is_still(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds one picture and nothing else; False if it cannot be read."""
    try:
        with open_media(path) as container:
            packets = (packet for packet in container.demux() if packet.size)
            return [packet.stream.type for packet in islice(packets, 2)] == ["video"]
    except (av.FFmpegError, OSError, InputError):
        return False


def is_animated_webp(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a WebP of several pictures by its header."""
    with open(path, "rb") as file:
        header = ANIMATED_WEBP.match(file.read(HEADER_BYTES))
    return header is not None and bool(header[1][0] & ANIMATION_FLAG)


def states_no_length(path: str | os.PathLike[str]) -> bool:
    """Whether the header of a sound file was written before the length was known (to a pipe)."""
    with open(path, "rb") as file:
        return UNKNOWN_LENGTH.match(file.read(HEADER_BYTES)) is not None

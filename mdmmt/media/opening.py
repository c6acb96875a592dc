"""Opening local files, so that a file can neither make FFmpeg read other files nor use a network.

FFmpeg goes by names: it takes `x%d.png` for a row of numbered pictures, `12:30.mp4` for a protocol
and `/dev/video0` for a camera. It also goes by contents, such as playlists. Here it is given an
open file in place of a name, and no protocol by which it could open another one.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.codec.context import Flags as CodecFlags

from ..errors import InputError

# FFmpeg draws .txt files as if they were terminals; the other formats are lists of files.
TEXT_FORMATS = ("tty", "concat", "hls", "dash", "sdp")
NO_PROTOCOL = {"protocol_whitelist": ""}
PLAIN_SUFFIX = re.compile(r"\.[A-Za-z0-9]+")


@contextmanager
def open_media(path: str | os.PathLike[str]) -> Iterator[av.container.InputContainer]:
    """Open this local file, and no other one on its behalf. Texts in its tags may be in any code.

    Raises:
        InputError: the file has one of `TEXT_FORMATS`.
        OSError: there is no such file, or it cannot be read.
        av.FFmpegError: FFmpeg recognises no format.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a named pipe might never answer
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    with (
        _NamelessFile(path) as file,
        av.open(file, container_options=NO_PROTOCOL, metadata_errors="replace") as container,
    ):
        if container.format.name in TEXT_FORMATS:
            raise InputError(f"{os.fspath(path)!r} is a text, expected a video")
        for video in container.streams.video:
            if video.codec_context is not None:
                # Without this, memory alignment overrules the left edge of a crop rectangle.
                video.codec_context.flags |= CodecFlags.unaligned.value
        yield container


class _NamelessFile(io.FileIO):
    """A file that tells FFmpeg the suffix of its name alone, since some formats go by suffix."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        suffix = Path(os.fspath(path)).suffix
        self.name = "file" + (suffix if PLAIN_SUFFIX.fullmatch(suffix) else "")

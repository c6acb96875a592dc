"""The tracks of a file that count: those that the ffmpeg program takes by default."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar, overload

import av
from av.stream import Disposition

from .opening import open_media

# The program's scores. A track's own score is its picture's number of pixels, or its number of
# channels. The first of the best tracks is taken.
SCORE_OF_DEFAULT = 5_000_000
SCORE_OF_PACKETS = 100_000_000  # for a track that has data in the part that is read at first

# How much FFmpeg reads to learn about the tracks: bytes of the file, or seconds of a track. The
# seconds depend on the format.
PROBED_BYTES = 5_000_000
PROBED_S = {"mpeg": 7.0, "mpegts": 7.0, "flv": 90.0}
PROBED_S_OF_OTHERS = 5.0

Track = TypeVar("Track", av.VideoStream, av.AudioStream)


@overload
def best_track(
    container: av.container.InputContainer,
    path: str | os.PathLike[str],
    kind: Literal["video"],
) -> av.VideoStream | None: ...


@overload
def best_track(
    container: av.container.InputContainer,
    path: str | os.PathLike[str],
    kind: Literal["audio"],
) -> av.AudioStream | None: ...


def best_track(
    container: av.container.InputContainer,
    path: str | os.PathLike[str],
    kind: Literal["video", "audio"],
) -> av.VideoStream | av.AudioStream | None:
    """The track that the ffmpeg program takes by default.

    The track with the most pixels or channels wins. A track that is marked as the default comes
    before all others, a track without data after them. Cover pictures and tracks that FFmpeg cannot
    decode do not count. Of an animated AVIF the program takes the still picture, and this function
    the film.

    Args:
        container: the open file.
        path: of this file. It is opened a second time if it has several tracks of this kind.
        kind: of track.
    """
    if kind == "video":
        videos = [
            video
            for video in container.streams.video
            if video.codec_context is not None and not video.disposition & Disposition.attached_pic
        ]
        films = [video for video in videos if not _is_still_item(video)]
        videos = films or videos
        return _best(videos, [video.width * video.height for video in videos], path)
    audios = [audio for audio in container.streams.audio if audio.codec_context is not None]
    return _best(audios, [audio.channels for audio in audios], path)


def _is_still_item(video: av.VideoStream) -> bool:
    """Whether this is a picture of an AVIF or HEIF file that belongs to no track, so has no end."""
    return video.duration is None and video.frames == 1


def _best(
    tracks: Sequence[Track], scores: Iterable[int], path: str | os.PathLike[str]
) -> Track | None:
    if len(tracks) <= 1:
        return tracks[0] if tracks else None
    with_data = _indexes_with_data(path, {track.index for track in tracks})
    return max(
        zip(tracks, scores, strict=True),
        key=lambda pair: (
            pair[1]
            + SCORE_OF_DEFAULT * bool(pair[0].disposition & Disposition.default)
            + SCORE_OF_PACKETS * (pair[0].index in with_data)
        ),
    )[0]


def _indexes_with_data(path: str | os.PathLike[str], wanted: set[int]) -> set[int]:
    """The indexes of the tracks that have data in the part of a file that FFmpeg probes."""
    with_data: set[int] = set()
    size = 0
    seconds: dict[int, float] = defaultdict(float)  # a damaged file may hold other tracks, too
    with open_media(path) as container:
        longest_s = PROBED_S.get(container.format.name, PROBED_S_OF_OTHERS)
        try:
            for packet in container.demux():
                if packet.size == 0:  # the end of a track
                    continue
                index = packet.stream_index
                with_data.add(index)
                size += packet.size
                if packet.duration and packet.time_base:
                    seconds[index] += float(packet.duration * packet.time_base)
                if wanted <= with_data or size >= PROBED_BYTES or seconds[index] >= longest_s:
                    break
        except (av.FFmpegError, OSError):
            pass  # of a damaged file, the part before the damage counts
    return with_data

"""A local file is read alone: neither its name nor its content can reach another file or host."""

import contextlib
import ctypes
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from media import ffmpeg, flat, greys, our_frames, write_video, write_with_ffmpeg

from mdmmt.errors import InputError
from mdmmt.media.decode import read_clips
from mdmmt.media.opening import open_media
from mdmmt.media.specs import FrameSpec
from mdmmt.media.stills import has_sound, stills_at

FRAMES = FrameSpec(fps=10, short_side=64, crop=64, clip_frames=1)
OWN, PRIVATE = 60, 200  # greys of a film and of the file beside it
IN_OPEN = 0x20

# Names that FFmpeg takes for something else, and the name of the file that it would then read.
PICTURES = {
    "x%d.png": "x1.png",
    "x%03d.png": "x001.png",
    "x%d%%.png": "x1%.png",
    "x*.png": "x1.png",
    "x?.png": "x1.png",
    "x{1,2}.png": "x1.png",
    "x[1].png": "x1.png",
    "%d.jpg": "0.jpg",
    "%05d.bmp": "00000.bmp",
    "file:x.png": "x.png",
}
FILMS = {
    "12:30.mkv": None,
    "file:x.mkv": "x.mkv",
    "pipe:0.mkv": None,
    "pipe:.mkv": None,
    "fd:.mkv": None,
    "concat:x.mkv|y.mkv": "x.mkv",
    "concatf:x.mkv": "x.mkv",
    "subfile,,start,0,end,0,,:x.mkv": "x.mkv",
    "crypto:x.mkv": "x.mkv",
    "crypto+file:x.mkv": "x.mkv",
    "cache:x.mkv": "x.mkv",
    "async:x.mkv": "x.mkv",
    "data:video,x.mkv": None,
    "tcp:127.0.0.1:80.mkv": None,
    "-": None,
    "-i.mkv": None,
    "x%d.mkv": "x1.mkv",
    "x*.mkv": "x1.mkv",
    "video0": None,
    os.fsdecode(b"\x83\x5c\x83\x6a.mkv"): None,  # Shift-JIS
}


@contextlib.contextmanager
def opened_names(folder: Path) -> Iterator[list[str]]:
    """The names of the files in a folder that anybody opens meanwhile, as the system tells them."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(folder), IN_OPEN) >= 0
    names: list[str] = []
    try:
        yield names
        try:
            events = os.read(watch, 1 << 16)
        except BlockingIOError:
            events = b""
        while events:
            length = struct.unpack_from("iIII", events)[3]
            names.append(os.fsdecode(events[16 : 16 + length].rstrip(b"\0")))
            events = events[16 + length :]
    finally:
        os.close(watch)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server of this machine, which nobody is to call. It hangs up on whoever does."""
    calls: list[object] = []

    def answer() -> None:
        with contextlib.suppress(OSError):  # the server was shut down
            while True:
                connection, caller = server.accept()
                connection.close()
                calls.append(caller)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server
        server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)
    assert not calls


def write_grey(path: Path, grey: int) -> None:
    """Write a film or picture of one grey, through a file whose name is harmless."""
    plain = path.parent / "plain.mkv"
    write_video(plain, flat([grey]))
    if path.suffix in {".png", ".jpg", ".bmp"}:
        still = path.parent / f"still{path.suffix}"
        ffmpeg("-i", plain, "-frames:v", "1", still)
        plain.unlink()
        plain = still
    plain.rename(path)


linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify tells which files are opened")


@linux
@pytest.mark.parametrize("name", [*PICTURES, *FILMS])
def test_open_media_takes_a_name_for_that_file_alone(tmp_path, monkeypatch, name):
    neighbour = (PICTURES | FILMS)[name]
    write_grey(tmp_path / name, OWN)
    if neighbour:
        write_grey(tmp_path / neighbour, PRIVATE)
    monkeypatch.chdir(tmp_path)
    for path in (name, tmp_path / name):
        with opened_names(tmp_path) as opened:
            seen = greys(read_clips(path, {"f": FRAMES}))
            still = np.asarray(stills_at(path, [0.0])[0]).mean()
        assert {abs(grey - OWN) < 4 for grey in (*seen, still)} == {True}
        assert set(opened) == {name}


@linux
def test_open_media_reads_no_planes_from_other_files(tmp_path):
    """FFmpeg takes `x.Y`, `x.U` and `x.V` for the planes of one picture."""
    for suffix in ("Y", "U", "V"):
        (tmp_path / f"x.{suffix}").write_bytes(bytes([PRIVATE]) * 64 * 64)
    with opened_names(tmp_path) as opened, pytest.raises(InputError, match=r"x\.Y"):
        list(read_clips(tmp_path / "x.Y", {"f": FRAMES}))
    assert set(opened) <= {"x.Y"}


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
MASTER = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n"
KEY = HLS.replace("#EXTINF", '#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXTINF')
DASH = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">
<Period><AdaptationSet mimeType="video/mp4"><Representation id="0" bandwidth="1">
<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>"""
LISTS = {
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "hls": HLS,
    "hls of lists": MASTER,
    "hls with a key": KEY,
    "dash": DASH,
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{}\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "vobsub": "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n"
    "timestamp: 00:00:00:000, filepos: 000000000\n",
    "avisynth": 'DirectShowSource("{}")\n',
    "shockwave": '<asx version="3.0"><entry><ref href="{}"/></entry></asx>',
    "smil": '<smil><body><video src="{}"/></body></smil>',
    "playlist": "[playlist]\nFile1={}\nNumberOfEntries=1\nVersion=2\n",
    "plain text": "{}\n",
}
SUFFIXES = (".mp4", ".m3u8", ".mpd", ".txt", ".idx", ".sdp", ".ffconcat", ".jpg", ".ts", "")


@pytest.mark.slow
@linux
@pytest.mark.parametrize("kind", LISTS)
def test_open_media_follows_no_list(tmp_path, listener, kind):
    private = tmp_path / "private.ts"
    write_with_ffmpeg(private, "-f lavfi -i testsrc2=duration=0.2:size=64x64 -c:v mpeg2video")
    private_subtitles = tmp_path / "list.sub"
    private_subtitles.write_bytes(bytes(4096))
    port = listener.getsockname()[1]
    for target in (
        "private.ts",
        str(private),
        f"file://{private}",
        f"http://127.0.0.1:{port}/private.ts",
        f"tcp://127.0.0.1:{port}",
        f"rtsp://127.0.0.1:{port}/private.ts",
        f"crypto+http://127.0.0.1:{port}/private.ts",
    ):
        for suffix in SUFFIXES:
            path = tmp_path / f"list{suffix}"
            path.write_text(LISTS[kind].replace("{}", target))
            with opened_names(tmp_path) as opened:
                with pytest.raises(InputError, match="list"):
                    list(read_clips(path, {"f": FRAMES}))
                with pytest.raises(InputError, match="list"):
                    stills_at(path, [0.0])
                assert not has_sound(path)
            assert set(opened) <= {path.name}


@linux
def test_open_media_follows_no_reference_of_a_film(tmp_path):
    """A QuickTime film may say that its pictures are in another file."""
    write_grey(tmp_path / "private.mov", PRIVATE)
    path = tmp_path / "film.mov"
    write_with_ffmpeg(path, "-f lavfi -i testsrc2=duration=0.2:size=64x64 -c:v mjpeg")
    content = path.read_bytes()
    assert b"url \0\0\0\1" in content  # flag 1: in the same file
    alias = b"alis\0\0\0\0"
    path.write_bytes(content.replace(b"url \0\0\0\1", alias))
    with opened_names(tmp_path) as opened:
        our_frames(path, {"f": FRAMES})
    assert set(opened) == {path.name}


@pytest.mark.parametrize("code", ["shift_jis", "latin-1", "utf-16-le"])
@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4", ".mp3", ".wav"])
def test_open_media_takes_tags_in_any_code(tmp_path, code, suffix):
    """Tags are not used, but PyAV refuses a file whose tags are not in UTF-8."""
    path = tmp_path / f"film{suffix}"
    sound = "-f lavfi -i sine=duration=1"
    media = sound if suffix in {".mp3", ".wav"} else "-f lavfi -i testsrc2=duration=1:size=64x64"
    write_with_ffmpeg(
        path, f"{media} -metadata title=0123456789abcdef0123 -metadata:s comment=ABCDEFGH"
    )
    whole = list(read_clips(path, {"f": FRAMES}))
    tag = {"shift_jis": "ソニーの映像です、能表", "latin-1": "Füße am Äquator öü"}.get(
        code, "映画ÿ映画ÿ"
    )
    tag = tag.encode(code)[:20].ljust(20, b" ")
    content = path.read_bytes()
    assert b"0123456789abcdef0123" in content
    path.write_bytes(content.replace(b"0123456789abcdef0123", tag))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path)).metadata  # noqa: B018
    again = list(read_clips(path, {"f": FRAMES}))
    assert len(again) == len(whole)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(again, whole, strict=True))


def test_open_media_waits_for_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(OSError, match="Not a regular file"), open_media(tmp_path / "pipe.mp4"):
        pass
    assert not has_sound(tmp_path / "pipe.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".wav", ""])
def test_open_media_tells_that_a_file_is_empty(tmp_path, suffix):
    (tmp_path / f"film{suffix}").touch()
    with pytest.raises(InputError, match=f"film{suffix}' is empty, expected a video"):
        list(read_clips(tmp_path / f"film{suffix}", {"f": FRAMES}))
    assert not has_sound(tmp_path / f"film{suffix}")

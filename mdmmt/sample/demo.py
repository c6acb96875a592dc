"""The demo: draw clips, embed them in a Towhee pipeline, search them by text, draw the results.

It runs the sample model on clips that were not in its training.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from towhee import ops, pipe
from tqdm import tqdm

from ..media.opening import open_media
from ..media.stills import contrast
from ..model import Similarity, load
from ..storage.files import check_folder
from ..storage.paths import SAMPLE
from ..storage.text import format_table
from . import NOTHING_FOUND, THRESHOLD
from .captions import PHRASES, caption
from .clips import SEED, choose, draw_library

QUERIES = 4
SHOWN = 5  # clips of each query's ranking

FRAMES_SHOWN = 5  # of each clip: enough to see it move and blink
FRAME_SIZE = (60, 60)
GAP, LINE = 6, 2
LINE_HEIGHT = 17
TEXT_COLOUR, RIGHT_COLOUR, OTHER_COLOUR = (30, 30, 30), (20, 140, 60), (205, 205, 205)


class Demo(NamedTuple):
    """The files and results of a demo."""

    clips: list[Path]
    videos: NDArray[np.float32]  # (clips, D), their embeddings
    results: list[SearchResult]
    picture: Path


class SearchResult(NamedTuple):
    """A query and its ranked clips."""

    query: str
    target: int  # the clip that the query describes
    ranking: list[int]  # the best clips, best first
    similarity: Similarity  # of the query with all clips


def run(out: Path) -> Demo:
    """Draw clips into `out`/clips, search them, and draw the results into `out`/found.png."""
    rng = np.random.default_rng(SEED)
    chosen = choose(rng)
    check_folder(out)
    quiet = not sys.stderr.isatty()
    paths = draw_library(out / "clips", chosen, show_progress=not quiet)

    embed_video = (
        pipe.input("path")
        .map("path", "vec", ops.video_text_embedding.mdmmt(modality="video", weight_path=SAMPLE))
        .output("vec")
    )
    embed_text = (
        pipe.input("text")
        .map("text", "vec", ops.video_text_embedding.mdmmt(modality="text", weight_path=SAMPLE))
        .output("vec")
    )
    progress = tqdm(paths, desc="embed", unit="clip", disable=quiet)
    videos = np.stack([embed_video(path).get()[0] for path in progress])
    queries = [caption(clip, rng) for clip in chosen[:QUERIES]]
    texts = np.stack([embed_text(query).get()[0] for query in queries])
    np.save(out / "video_embeddings.npy", videos)
    np.save(out / "text_embeddings.npy", texts)

    model = load(SAMPLE)
    results = []
    for target, (query, text) in enumerate(zip(queries, texts, strict=True)):
        similarity = model.similarity(text, videos)
        ranking = np.argsort(-similarity.score[0])[:SHOWN].tolist()
        results.append(SearchResult(query, target, ranking, similarity))
    picture = out / "found.png"
    draw_results(results, paths, picture)
    return Demo(paths, videos, results, picture)


def format_result(result: SearchResult, paths: Sequence[Path]) -> str:
    """The ranked table of one query. The experts' shares add up to the score.

    Above it stands a note if no clip scores as much as the clips that a query describes.
    """
    experts = result.similarity.experts
    header = ["", "rank", "score", *experts, "clip"]
    rows = [header]
    for rank, clip in enumerate(result.ranking, start=1):
        shares = result.similarity.by_expert[0, clip]
        numbers = [result.similarity.score[0, clip], *shares]
        right = "*" if clip == result.target else ""
        rows.append([right, str(rank), *(f"{x:.3f}" for x in numbers), paths[clip].name])
    found = result.similarity.score[0].max() >= THRESHOLD
    note = "" if found else f"\n{NOTHING_FOUND}"
    return f'"{result.query}"{note}\n{format_table(rows)}'


def draw_results(results: Sequence[SearchResult], paths: Sequence[Path], picture: Path) -> None:
    """Draw the picture: one row a query, its clips from left to right, FRAMES_SHOWN frames each."""
    width, height = FRAME_SIZE
    column = FRAMES_SHOWN * (width + LINE) + 3 * GAP
    row = 4 * LINE_HEIGHT + height + 5 * GAP
    canvas = Image.new("RGB", (SHOWN * column + GAP, len(results) * row + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=13)
    for i, result in enumerate(results):
        top = i * row + GAP
        pen.text((GAP, top), f"“{result.query}”", TEXT_COLOUR, font)
        for j, clip in enumerate(result.ranking):
            left = GAP + j * column
            colour = RIGHT_COLOUR if clip == result.target else OTHER_COLOUR
            box = (left, top + LINE_HEIGHT + GAP, left + column - GAP, top + row - 2 * GAP)
            pen.rectangle(box, outline=colour, width=3 if clip == result.target else 1)
            for k, frame in enumerate(frames_shown(paths[clip])):
                at = (left + GAP + k * (width + LINE), top + LINE_HEIGHT + 2 * GAP)
                canvas.paste(frame.resize(FRAME_SIZE), at)
            for line, label in enumerate(label_lines(result, j, paths[clip])):
                at = (left + GAP, box[3] - GAP - (3 - line) * LINE_HEIGHT)
                pen.text(at, label, TEXT_COLOUR, font)
    canvas.save(picture)


def label_lines(result: SearchResult, rank: int, path: Path) -> list[str]:
    """What stands below a clip in the picture: its rank and score, its name and its sound."""
    score = result.similarity.score[0, result.ranking[rank]]
    tone = path.stem.rsplit("-", 1)[-1]  # as `run` names its clips
    return [f"{rank + 1}.  {score:.3f}", path.name, f"Sound: {PHRASES['tone'][tone][0]}"]


def frames_shown(path: Path) -> list[Image.Image]:
    """The middle squares of FRAMES_SHOWN frames, in the order of time.

    The clip is cut into parts. They give by turns their frame of the most and of the least
    contrast, so a shape that blinks is there in one frame and away in the next.
    """
    with open_media(path) as container:
        frames = [_middle_square(frame.to_image()) for frame in container.decode(video=0)]
    contrasts = [contrast(frame) for frame in frames]
    parts = np.array_split(np.arange(len(frames)), FRAMES_SHOWN)
    chosen = []
    for i, part in enumerate(parts):
        pick = min if i % 2 else max
        chosen.append(frames[pick(part, key=contrasts.__getitem__)])
    return chosen


def _middle_square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    x, y = ((length - side) // 2 for length in picture.size)
    return picture.crop((x, y, x + side, y + side))

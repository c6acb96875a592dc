"""The demo: draw clips, embed them in a Towhee pipeline, find them by text, show what was found.

It runs on the sample model and on clips that the sample model was not trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..model import Similarity, load
from ..storage.files import check_folder
from ..storage.paths import SAMPLE
from ..storage.text import format_table

if TYPE_CHECKING:
    import PIL.Image

CLIPS = 40
QUERIES = 4
FOUND = 5  # clips shown for each query
SEED = 20210319  # the day of arXiv 2103.10699; training draws from other seeds

FRAMES_SHOWN = 3  # of a clip: enough to see it move
FRAME_SIZE = (76, 76)
GAP, LINE = 6, 2
LINE_HEIGHT = 17
TEXT_COLOUR, RIGHT_COLOUR, OTHER_COLOUR = (30, 30, 30), (20, 140, 60), (205, 205, 205)


class Answer(NamedTuple):
    """A query and the clips found for it, best first."""

    query: str
    wanted: int  # the clip that the query describes
    found: list[int]
    similarity: Similarity  # of this query with all clips


def run(out: Path) -> list[Answer]:
    """Draw the clips into `out`/clips, print the ranked table, write `out`/found.png."""
    from towhee import ops, pipe
    from tqdm import tqdm

    from .captions import caption
    from .clips import COMBINATIONS, draw

    rng = np.random.default_rng(SEED)
    chosen = [COMBINATIONS[i] for i in rng.choice(len(COMBINATIONS), CLIPS, replace=False)]
    check_folder(out)
    folder = out / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:02d}-{'-'.join(clip)}.mp4" for i, clip in enumerate(chosen)]
    quiet = not sys.stderr.isatty()
    for i, path in enumerate(tqdm(paths, desc="draw", unit="clip", disable=quiet)):
        draw(path, chosen[i], seed=(SEED, i))

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
    answers = []
    for wanted, (query, text) in enumerate(zip(queries, texts, strict=True)):
        similarity = model.similarity(text, videos)
        found = np.argsort(-similarity.score[0])[:FOUND].tolist()
        answers.append(Answer(query, wanted, found, similarity))
    for answer in answers:
        print(format_answer(answer, paths), end="\n\n")
    picture = out / "found.png"
    draw_answers(answers, paths, picture)
    first = sum(answer.found[0] == answer.wanted for answer in answers)
    print(
        f"{first} of {len(answers)} queries found their clip first among {len(paths)}. "
        f"Embeddings {videos.shape} {videos.dtype}, clips and a picture are in {out}: see {picture}"
    )
    return answers


def format_answer(answer: Answer, paths: Sequence[Path]) -> str:
    """The ranked table of one query; the experts' shares add up to the score."""
    experts = answer.similarity.experts
    header = ["", "rank", "score", *experts, "clip"]
    rows = [header]
    for rank, clip in enumerate(answer.found, start=1):
        shares = answer.similarity.by_expert[0, clip]
        numbers = [answer.similarity.score[0, clip], *shares]
        right = "*" if clip == answer.wanted else ""
        rows.append([right, str(rank), *(f"{x:.3f}" for x in numbers), paths[clip].name])
    return f'"{answer.query}"\n{format_table(rows)}'


def draw_answers(answers: Sequence[Answer], paths: Sequence[Path], picture: Path) -> None:
    """Write the picture: a row a query, the found clips from left to right, three frames each."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = FRAME_SIZE
    column = FRAMES_SHOWN * (width + LINE) + 3 * GAP
    row = 2 * LINE_HEIGHT + height + 4 * GAP
    canvas = Image.new("RGB", (FOUND * column + GAP, len(answers) * row + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=13)
    for i, answer in enumerate(answers):
        top = i * row + GAP
        pen.text((GAP, top), f"“{answer.query}”", TEXT_COLOUR, font)
        for j, clip in enumerate(answer.found):
            left = GAP + j * column
            colour = RIGHT_COLOUR if clip == answer.wanted else OTHER_COLOUR
            box = (left, top + LINE_HEIGHT + GAP, left + column - GAP, top + row - 2 * GAP)
            pen.rectangle(box, outline=colour, width=3 if clip == answer.wanted else 1)
            for k, frame in enumerate(_frames(paths[clip])):
                at = (left + GAP + k * (width + LINE), top + LINE_HEIGHT + 2 * GAP)
                canvas.paste(frame.resize(FRAME_SIZE), at)
            score = answer.similarity.score[0, clip]
            label = f"{j + 1}.  {score:.3f}"
            pen.text((left + GAP, box[3] - LINE_HEIGHT), label, TEXT_COLOUR, font)
    canvas.save(picture)


def _frames(path: Path) -> list[PIL.Image.Image]:
    """The middle squares of FRAMES_SHOWN frames, in the order of time.

    Of each part of the clip the liveliest, since in a dark moment of a blinking clip there is
    nothing to see.
    """
    from ..media.decode import open_media

    with open_media(path) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    parts = np.array_split(np.arange(len(frames)), FRAMES_SHOWN)
    shown = [frames[max(part, key=lambda i: np.asarray(frames[i]).std())] for part in parts]
    side = min(shown[0].size)
    x, y = ((length - side) // 2 for length in shown[0].size)
    return [frame.crop((x, y, x + side, y + side)) for frame in shown]

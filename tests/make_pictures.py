"""Make README's two pictures: what DataCollection shows, in real runs on the sample model."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from towhee import DataCollection, ops, pipe

import mdmmt
from mdmmt.sample.clips import COMBINATIONS, draw

ROOT = Path(__file__).parent.parent
TEXT = "A red ball moves left and grows with a rising tone."
FONT_SIZE = 15
MARGIN = 12


def shown(name: str, value: object, modality: str) -> str:
    """What `DataCollection(pipeline(value)).show()` prints."""
    operator = ops.video_text_embedding.mdmmt(modality=modality, weight_path="sample", device="cpu")
    pipeline = pipe.input(name).map(name, "vec", operator).output(name, "vec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        DataCollection(pipeline(value)).show()
    return printed.getvalue().rstrip()


def picture(text: str, path: Path) -> None:
    """Draw text in a fixed-width font."""
    font = ImageFont.truetype(findfont("DejaVu Sans Mono"), FONT_SIZE)
    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((MARGIN, MARGIN), text, font)
    canvas = Image.new("RGB", (int(box[2]) + MARGIN, int(box[3]) + MARGIN), "white")
    ImageDraw.Draw(canvas).multiline_text((MARGIN, MARGIN), text, "black", font)
    canvas.save(path, optimize=True)


if __name__ == "__main__":
    picture(shown("text", TEXT, "text"), ROOT / "text_emb_result.png")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        draw(clip, COMBINATIONS[0], seed=(1,))
        features = mdmmt.load("sample").extract(clip)
    picture(shown("video_input_dict", features, "video"), ROOT / "video_emb_result.png")

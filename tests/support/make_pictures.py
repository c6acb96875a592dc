"""Make the pictures of README and the docs in real runs on the sample model.

What DataCollection shows of a text and of a video; and in headless Chromium, the page that a search
writes, and the page of `mdmmt app`.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from browser import BROWSER, NO_NETWORK, emulate, wait_for
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from towhee import DataCollection, ops, pipe

import mdmmt
from mdmmt.app.library import DATABASE, Library, fill_with_drawn_clips
from mdmmt.cli import main
from mdmmt.sample.captions import caption
from mdmmt.sample.clips import COMBINATIONS, draw
from mdmmt.search import Index

ROOT = Path(__file__).parents[2]
TEXT = "A red ball moves left and grows with a rising tone."
SEARCH_SEED, SEARCH_CLIPS = 3, 30
APP_QUERY = "a red triangle"  # one of the examples on the page
# Name -> colour scheme, width and height in pixels.
APP_PICTURES = {"app": ("light", 1280, 1080), "app-phone": ("dark", 390, 1000)}
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


def search_page(folder: Path, path: Path) -> None:
    """Draw clips, index them, search them, and take a picture of the page."""
    (folder / "clips").mkdir()
    rng = np.random.default_rng(SEARCH_SEED)
    chosen = [COMBINATIONS[i] for i in rng.choice(len(COMBINATIONS), SEARCH_CLIPS, replace=False)]
    for i, clip in enumerate(chosen):
        draw(folder / "clips" / f"{i:02}-{'-'.join(clip)}.mp4", clip, seed=(SEARCH_SEED, i))
    options = ["--db", str(folder / "clips.db"), "--weights=sample"]
    page = folder / "found.html"
    assert main(["index", "build", str(folder / "clips"), *options]) == 0
    query = caption(chosen[0], rng)
    assert main(["search", query, *options, "-k=6", "--html", str(page)]) == 0
    with open_browser() as browser:
        browser.set_window_size(1180, 1020)
        browser.get(page.as_uri())
        time.sleep(2)  # until the posters are shown
        browser.save_screenshot(str(path))


def app_pages(videos: Path) -> None:
    """Start the page with a library whose clips are drawn into a folder, and take its pictures."""
    with tempfile.TemporaryDirectory() as folder:
        database, model = str(Path(folder, DATABASE)), mdmmt.load("sample", "cpu")
        Index.open(database, model).close()
        library = Library(database, Index.open(database, model, read_only=True), model)
        fill_with_drawn_clips(library, videos, show_progress=False)
        library.close()
        take_pictures_of_app(database)


def take_pictures_of_app(database: str) -> None:
    """Start the page with a database, and take its pictures."""
    command = [sys.executable, "-m", "mdmmt", "app", "--db", database, "--port", "0"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app,
        open_browser() as browser,
    ):
        try:
            address = app.stdout.readline().removeprefix("the page is ").split()[0]
            for name, (scheme, width, height) in APP_PICTURES.items():
                emulate(browser, scheme, width, height)
                browser.get(address)
                wait_for(browser, "document.querySelector('textarea')")
                browser.find_element("css selector", "textarea").send_keys(APP_QUERY, "\n")
                wait_for(browser, "document.querySelector('a.open')")
                browser.execute_script("document.querySelector('a.open').click()")
                wait_for(browser, "document.querySelector('video')?.ended")
                browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
                time.sleep(1)  # until the controls of the player have settled
                picture = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
                picture.quantize().save(ROOT / "pictures" / f"{name}.png", optimize=True)
        finally:
            app.send_signal(signal.SIGINT)


@contextlib.contextmanager
def open_browser() -> Iterator[object]:
    """Start headless Chromium, which reaches no other machine."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(BROWSER[0])
    for argument in (*BROWSER[1].split(), NO_NETWORK):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as browser:
        yield browser


if __name__ == "__main__":
    videos = Path(tempfile.gettempdir(), "videos")  # whose name is in the pictures
    videos.mkdir()
    search_page(videos, ROOT / "pictures" / "search.png")
    shutil.rmtree(videos)
    videos.mkdir()
    app_pages(videos)
    shutil.rmtree(videos)
    picture(shown("text", TEXT, "text"), ROOT / "text_emb_result.png")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        draw(clip, COMBINATIONS[0], seed=(1,))
        features = mdmmt.load("sample").extract(clip)
    picture(shown("video_input_dict", features, "video"), ROOT / "video_emb_result.png")

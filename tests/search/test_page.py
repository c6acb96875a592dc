"""The page of search results: its text, and how a real browser shows it."""

import functools
import html.parser
import http.server
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from browser import BROWSER
from media import write_video

import mdmmt
from mdmmt.errors import InputError
from mdmmt.model import Similarity
from mdmmt.sample.clips import COMBINATIONS, draw
from mdmmt.search import Hit, write_page

NASTY = [
    "<img src=x onerror=\"document.title='run'\">.mp4",
    "\"><svg onload=document.title='run'>.mp4",
    "'onmouseover='document.title=1' #1 50% a+b?c&amp;d;e=f.mp4",
    "$query ${hits} $$ \\.mp4",
    "{{ query }}{% for %}{# -#}.mp4",
    "javascript:alert(1).mp4",
    "ёлка 犬 \u202e4pm.mp4",
    " leading and trailing .mp4 ",
]


def hit(path, start_s=0.0, end_s=1.0, score=0.5, **metadata) -> Hit:
    return Hit("id", str(path), start_s, end_s, score, metadata)


def similarity(shares: np.ndarray) -> Similarity:
    return Similarity(shares.sum(axis=1)[None], shares[None], ("frame", "motion", "sound"))


# Text


@pytest.mark.parametrize("content", [None, b"", b"no video at all", "sound"])
def test_write_page_puts_a_note_where_a_file_has_no_picture(tmp_path, content):
    path = tmp_path / "a.mkv"
    if content == "sound":
        write_video(path, sound=np.zeros((1, 16000)))
    elif content is not None:
        path.write_bytes(content)
    write_page(tmp_path / "page.html", "query", [hit(path), hit(tmp_path)])
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="none"') == 2 and "<video" not in page
    assert page.count('<audio controls preload="metadata" src="a.mkv#t=') == (content == "sound")


def test_write_page_shows_query_times_facts_and_shares(tmp_path):
    shares = np.array([[0.4, 0.25, 0.1], [0.3, -0.1, 0.0]])
    hits = [hit("/x/a.mp4", 3725.04, 7325, 0.75, year=2021, by="me"), hit("b.mp4", 0.5, 61, 0.2)]
    out = tmp_path / "page.html"
    write_page(out, "a < b & c", hits, similarity(shares))
    page = out.read_text(encoding="utf-8")
    assert page.count("a &lt; b &amp; c") == 2  # title and heading
    assert "2 segments" in page
    assert "1:02:05.0 &ndash; 2:02:05.0" in page and "0:00.5 &ndash; 1:01.0" in page
    assert "year: 2021 · by: me" in page and ">0.750<" in page
    bars = re.findall(r"left:([\d.]+)%;width:([\d.]+)%", page)
    assert bars == [
        *(("20.0", "80.0"), ("20.0", "50.0"), ("20.0", "20.0")),
        *(("20.0", "60.0"), ("0.0", "20.0"), ("20.0", "0.0")),
    ]
    assert page.count('class="minus"') == 1 and page.count("sound</th>") == 2
    assert not re.search(r"(?<!\$)\$\w", page)


@pytest.mark.parametrize("text", [*NASTY, "not Unicode \udcff.mp4"])
def test_write_page_escapes_every_value(tmp_path, text):
    class Texts(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags, self.data, self.titles = set(), [], []

        def handle_starttag(self, tag, attributes):
            self.tags.add(tag)
            self.titles += [value for name, value in attributes if name == "title"]

        def handle_data(self, data):
            self.data.append(data)

    match = similarity(np.full((1, 3), 0.2))._replace(experts=(text, "motion", "sound"))
    write_page(tmp_path / "page.html", text, [hit(text, **{text: text})], match)
    page = Texts()
    page.feed((tmp_path / "page.html").read_text(encoding="utf-8"))
    shown = text.replace("\udcff", "?")
    assert not page.tags & {"svg", "img", "script"}
    assert page.titles == [shown] and f"{shown}: {shown}" in page.data
    assert page.data.count(shown) == 4  # title, heading, name of the file and of the expert


def test_write_page_takes_no_hits(tmp_path):
    write_page(tmp_path / "page.html", "nothing", [])
    write_page(tmp_path / "same.html", "nothing", [], similarity(np.zeros((0, 3))))
    for name in ("page.html", "same.html"):
        assert "0 segments" in (tmp_path / name).read_text()


def test_write_page_refuses_shares_of_other_hits(tmp_path):
    with pytest.raises(InputError, match=r"\(1, 3\) texts and videos, expected \(1, 1\)"):
        write_page(tmp_path / "page.html", "q", [hit("a.mp4")], similarity(np.zeros((3, 3))))
    assert not list(tmp_path.iterdir())


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("chromium and chromedriver are not there (Debian: chromium, chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    name, arguments = BROWSER
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(name)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in arguments.split():
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    with webdriver.Chrome(options, Service(shutil.which("chromedriver"))) as driver:
        yield driver


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips beside and below the page, with harmless names and others."""
    folder = tmp_path_factory.mktemp("clips") / "of <b>mine & more #1"
    folder.mkdir()
    first = folder / "clip.mp4"
    draw(first, COMBINATIONS[7], seed=(1, 2))
    others = [folder / "sub dir" / name for name in NASTY]
    others[0].parent.mkdir()
    for other in others:
        shutil.copy(first, other)
    return [first, *others]


@pytest.fixture(scope="module")
def served(clips):
    """The address under which a web server has the folder of the clips."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=clips[0].parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def wait_for(browser, script):
    deadline = time.monotonic() + 20
    while not browser.execute_script(f"return {script}"):
        assert time.monotonic() < deadline, script
        time.sleep(0.05)


@pytest.mark.browser
@pytest.mark.parametrize("over", ["file", "http"])
def test_write_page_shows_pictures_plays_clips_and_runs_nothing(browser, clips, served, over):
    folder = clips[0].parent
    hits = [hit(path, 0.5, 1.5, title=path.name) for path in clips] + [hit(folder / "gone.mp4")]
    out = folder / "pages" / "found.html"
    out.parent.mkdir(exist_ok=True)
    query = "</title><script>document.title='run'</script>"
    shares = np.full((len(hits), 3), 0.2)
    write_page(out, query, hits, similarity(shares))

    browser.get(out.as_uri() if over == "file" else f"{served}/pages/{out.name}")
    wait_for(browser, "[...document.querySelectorAll('video')].every(v => v.readyState > 0)")
    videos = browser.execute_script(
        "return [...document.querySelectorAll('video')].map(v => [v.videoWidth, v.duration])"
    )
    assert len(videos) == len(clips)
    assert all(width > 0 and 2 <= duration < 5 for width, duration in videos)
    pictures = "[...document.querySelectorAll('.strip img')].map(i => i.naturalWidth)"
    assert len(widths := browser.execute_script(f"return {pictures}")) == 3 * len(clips)
    assert min(widths) > 0
    assert browser.title == query
    names = "return [...document.querySelectorAll('.name')].map(n => n.textContent)"
    assert browser.execute_script(names) == [Path(hit.path).name for hit in hits]
    assert browser.execute_script("return document.scripts.length") == 0
    assert browser.execute_script("return document.querySelectorAll('img').length") == len(widths)
    messages = [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
    assert messages == []


@pytest.mark.browser
def test_write_page_plays_the_segment_and_no_more(browser, clips):
    out = clips[0].parent / "segment.html"
    write_page(out, "q", [hit(clips[0], 0.5, 1.0)])
    browser.get(out.as_uri())
    wait_for(browser, "document.querySelector('video').readyState > 1")
    assert browser.execute_script("return document.querySelector('video').currentTime") == 0.5
    browser.execute_script("v = document.querySelector('video'); v.muted = true; v.play()")
    wait_for(browser, "v.paused && v.currentTime >= 1")
    assert browser.execute_script("return v.currentTime") < 1.3


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_write_page_follows_light_and_dark(browser, clips, tmp_path, scheme):
    write_page(tmp_path / "page.html", "q", [hit(clips[0])], similarity(np.full((1, 3), 0.2)))
    wanted = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wanted]})
    browser.get((tmp_path / "page.html").as_uri())
    colours = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    page, text = (
        np.mean([int(part) for part in re.findall(r"\d+", colour)])
        for colour in browser.execute_script(colours)
    )
    assert (page > 200 and text < 60) if scheme == "light" else (page < 60 and text > 200)


@pytest.mark.browser
@pytest.mark.slow
def test_write_page_shows_a_real_search(browser, sample_clips, tmp_path):
    """As `mdmmt search --html` makes it."""
    pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")
    from mdmmt.search import Index

    model = mdmmt.load("sample")
    with Index.open(tmp_path / "library.db", model) as index:
        for i, clip in enumerate(sample_clips(6, 7)):
            index.add(clip.path, model.encode_segments(clip.path), metadata={"number": i})
        query = model.encode_text("A white star")
        hits = index.search(query, k=4, with_vectors=True)
    match = model.similarity(query, np.stack([hit.vector for hit in hits]))
    assert np.allclose(match.score[0], [hit.score for hit in hits], atol=1e-5)
    write_page(tmp_path / "found.html", "A white star", hits, match)
    browser.get((tmp_path / "found.html").as_uri())
    scores = "return [...document.querySelectorAll('.score')].map(s => s.textContent)"
    assert browser.execute_script(scores) == [f"{hit.score:.3f}" for hit in hits]
    wait_for(browser, "[...document.querySelectorAll('video')].every(v => v.readyState > 0)")

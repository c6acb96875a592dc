"""The page of search results: its text, and how a real browser shows it."""

import functools
import html.parser
import http.server
import importlib.resources
import re
import shutil
import threading
import time
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from browser import AXE, emulate, wait_for
from media import flat, write_video
from PIL import Image

import mdmmt
from mdmmt.errors import InputError
from mdmmt.media.stills import each_still_at
from mdmmt.model import Similarity
from mdmmt.sample.clips import COMBINATIONS, draw
from mdmmt.search import Hit, write_page
from mdmmt.search import page as page_module

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
    assert page.count('class="none"') == 2 and "<img" not in page
    assert page.count("The file is not there.") == (1 if content is not None else 2)
    sound = 'class="open" data-kind="audio" href="a.mkv#t=0.000,1.000"'
    assert page.count(sound) == (content == "sound")
    assert page.count('href="a.mkv') == (content is not None)  # a link to what is there
    assert f"{tmp_path}/</" not in page and page.count(f"{tmp_path}/") == 1


def test_write_page_shows_query_times_facts_and_shares(tmp_path):
    shares = np.array([[0.4, 0.25, 0.1], [0.3, -0.1, 0.0]])
    hits = [hit("/x/a.mp4", 3725.04, 7325, 0.75, year=2021, by="me"), hit("b.mp4", 0.5, 61, 0.2)]
    out = tmp_path / "page.html"
    write_page(out, "a < b & c", hits, similarity(shares))
    page = out.read_text(encoding="utf-8")
    assert page.count("a &lt; b &amp; c") == 2  # title and heading
    assert "2 moments" in page
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
            self.tags, self.data, self.titles, self.scripts = set(), [], [], 0

        def handle_starttag(self, tag, attributes):
            self.tags.add(tag)
            self.scripts += tag == "script"
            self.titles += [value for name, value in attributes if name == "title"]

        def handle_data(self, data):
            self.data.append(data)

    match = similarity(np.full((1, 3), 0.2))._replace(experts=(text, "motion", "sound"))
    write_page(tmp_path / "page.html", text, [hit(text, **{text: text})], match)
    page = Texts()
    page.feed((tmp_path / "page.html").read_text(encoding="utf-8"))
    shown = text.replace("\udcff", "?")
    assert not page.tags & {"svg", "img"} and page.scripts == 1
    assert not page.titles and f"{shown}: {shown}" in page.data
    assert page.data.count(shown) == 4  # title, heading, name of the file and of the expert


def test_write_page_plays_a_moment_from_its_best_window(tmp_path):
    write_video(tmp_path / "a.mkv", sound=np.zeros((1, 16000)))
    moment = hit(tmp_path / "a.mkv", 0.25, 0.75)._replace(best_s=(0.5, 0.75))
    write_page(tmp_path / "page.html", "query", [moment, hit(tmp_path / "a.mkv", 0.25, 0.75)])
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r"#t=([\d.]+,[\d.]+)", page) == ["0.500,0.750", "0.250,0.750"]
    assert page.count(", best at 0:00.5") == page.count("best at") == 1


def test_write_page_takes_no_hits(tmp_path):
    write_page(tmp_path / "page.html", "nothing", [])
    write_page(tmp_path / "same.html", "nothing", [], similarity(np.zeros((0, 3))))
    for name in ("page.html", "same.html"):
        assert "0 moments" in (tmp_path / name).read_text()


def test_write_page_refuses_shares_of_other_hits(tmp_path):
    with pytest.raises(InputError, match=r"\(1, 3\) texts and videos, expected \(1, 1\)"):
        write_page(tmp_path / "page.html", "q", [hit("a.mp4")], similarity(np.zeros((3, 3))))
    assert not list(tmp_path.iterdir())


def test_write_page_ends_a_segment_where_its_file_ends(tmp_path):
    path = write_video(tmp_path / "a.mkv", flat(range(0, 200, 10)), 10)  # 2 seconds
    write_page(tmp_path / "page.html", "q", [hit(path, 1.0, 8.0), hit("gone.mp4", 1.0, 8.0)])
    page = (tmp_path / "page.html").read_text()
    assert "#t=1.000,2.000" in page and page.count("0:01.0 &ndash; 0:02.0") == 1
    assert page.count("0:01.0 &ndash; 0:08.0") == 1  # of the file that is not there


def test_write_page_reads_a_file_once_for_all_of_its_hits(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", flat(range(0, 240, 4)), 10)  # 6 seconds
    asked = []

    def stills(path, times_s):
        asked.append((path, list(times_s)))
        return each_still_at(path, times_s)

    monkeypatch.setattr(page_module, "each_still_at", stills)
    starts_s = [4.0, 0.0, 2.0]
    write_page(tmp_path / "page.html", "q", [hit(path, s, s + 1) for s in starts_s])
    assert asked == [(str(path), [0.5, 2.5, 4.5])]
    posters = re.findall(r"base64,([^\"]+)", (tmp_path / "page.html").read_text())
    greys = [np.asarray(Image.open(BytesIO(b64decode(one)))).mean() for one in posters]
    assert greys == pytest.approx([4 * 45, 4 * 5, 4 * 25], abs=3)


# In a browser


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
    pictures = "[...document.querySelectorAll('.player img')].map(i => i.naturalWidth)"
    wait_for(browser, f"{pictures}.every(width => width > 0)")
    assert len(browser.execute_script(f"return {pictures}")) == len(clips)
    names = "return [...document.querySelectorAll('.name')].map(n => n.textContent)"
    assert browser.execute_script(names) == [Path(hit.path).name for hit in hits]
    assert count(browser, "video") == 0  # before a click
    for number in range(len(clips)):
        browser.execute_script(f"document.querySelectorAll('a.open')[{number}].click()")
    assert count(browser, "video") == len(clips)
    wait_for(browser, "[...document.querySelectorAll('video')].every(v => v.readyState > 0)")
    videos = browser.execute_script(
        "return [...document.querySelectorAll('video')].map(v => [v.videoWidth, v.duration])"
    )
    assert all(width > 0 and 2 <= duration < 5 for width, duration in videos)
    assert browser.title == query
    assert count(browser, "script") == 1  # the page's own
    messages = [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
    assert messages == []


def count(browser, selector):
    return browser.execute_script(f"return document.querySelectorAll('{selector}').length")


@pytest.mark.browser
@pytest.mark.parametrize("by", ["pointer", "keyboard"])
def test_write_page_plays_the_segment_and_no_more(browser, clips, by):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    out = clips[0].parent / "segment.html"
    write_page(out, "q", [hit(clips[0], 0.5, 1.0)])
    browser.get(out.as_uri())
    if by == "pointer":
        browser.find_element(By.TAG_NAME, "img").find_element(By.XPATH, "../..").click()
    else:
        browser.switch_to.active_element.send_keys(Keys.TAB)
        browser.switch_to.active_element.send_keys(Keys.ENTER)
    wait_for(browser, "document.querySelector('video')?.readyState > 1")
    browser.execute_script("v = document.querySelector('video'); v.muted = true; v.play()")
    assert browser.execute_script("return document.activeElement === v")
    assert browser.execute_script("return v.currentTime") >= 0.5
    wait_for(browser, "v.paused && v.currentTime >= 1")
    assert browser.execute_script("return v.currentTime") < 1.3


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_write_page_passes_axe_core(browser, clips, tmp_path, scheme, width):
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    sound = write_video(tmp_path / "sound.mkv", sound=np.zeros((1, 16000)))
    paths = [clips[0], clips[0], sound, tmp_path / "gone.mp4"]
    shares = similarity(np.array([[0.4, 0.2, 0.1], [0.3, -0.1, 0.0]] * 2))
    write_page(tmp_path / "page.html", "a ball", [hit(path, year=2021) for path in paths], shares)
    emulate(browser, scheme, width)
    browser.get((tmp_path / "page.html").as_uri())
    browser.execute_script(axe.read_text(encoding="utf-8"))
    assert browser.execute_async_script(AXE, {}) == []
    browser.execute_script("document.querySelectorAll('a.open').forEach(a => a.click())")
    wait_for(browser, "document.querySelectorAll('video, audio').length == 3")
    assert browser.execute_async_script(AXE, {}) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
@pytest.mark.slow
def test_write_page_of_200_hits_is_small_and_loads_at_once(browser, tmp_path, capsys):
    """Of noise over a ramp, since no pictures are larger than those of noise."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 128, (30, 360, 640, 3), np.uint8)
    frames += np.linspace(0, 127, 640, dtype=np.uint8)[:, None]
    paths = [write_video(tmp_path / f"{n}.mkv", frames, 10) for n in range(4)]
    hits = [hit(paths[n % 4], n % 50 / 20, n % 50 / 20 + 0.4, year=2021) for n in range(200)]
    start_s = time.monotonic()
    write_page(tmp_path / "page.html", "q", hits, similarity(np.full((200, 3), 0.2)), True)
    assert time.monotonic() - start_s < 30
    assert "4/4" in capsys.readouterr().err
    assert (tmp_path / "page.html").stat().st_size < 3_000_000
    browser.get((tmp_path / "page.html").as_uri())
    loaded_ms = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    wait_for(browser, f"{loaded_ms} > 0")
    assert browser.execute_script(f"return {loaded_ms}") < 1000
    assert count(browser, "h2") == count(browser, "li") == 200
    assert count(browser, "a, button, video, audio, [tabindex]") <= 200  # tab stops


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_write_page_follows_light_and_dark(browser, clips, tmp_path, scheme):
    write_page(tmp_path / "page.html", "q", [hit(clips[0])], similarity(np.full((1, 3), 0.2)))
    emulate(browser, scheme)
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
    wait_for(browser, "[...document.querySelectorAll('.player img')].length == 4")

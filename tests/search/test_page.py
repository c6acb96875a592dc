"""The page of what was found: its pictures, its text, and what a real browser makes of it."""

import functools
import http.server
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from browser import BROWSER
from media import BIKES, ffmpeg, flat, footage, write_video

import mdmmt
from mdmmt.errors import InputError
from mdmmt.model import Similarity
from mdmmt.sample.clips import COMBINATIONS, draw
from mdmmt.search.index import Hit
from mdmmt.search.page import pictures_at, write_page

NASTY = [
    "<img src=x onerror=\"document.title='run'\">.mp4",
    "\"><svg onload=document.title='run'>.mp4",
    "'onmouseover='document.title=1' #1 50% a+b?c&amp;d;e=f.mp4",
    "$query ${hits} $$ \\.mp4",
    "javascript:alert(1).mp4",
    "ёлка 犬 \u202e4pm.mp4",
    " leading and trailing .mp4 ",
]


def hit(path, start_s=0.0, end_s=1.0, score=0.5, **metadata) -> Hit:
    return Hit("id", str(path), start_s, end_s, score, metadata)


def similarity(shares: np.ndarray) -> Similarity:
    return Similarity(shares.sum(axis=1)[None], shares[None], ("frame", "motion", "sound"))


def grey(picture) -> int:
    return round(np.asarray(picture).mean())


# Pictures


@pytest.mark.parametrize("late_s", [0.0, 3.0])
def test_pictures_are_those_of_their_seconds(tmp_path, late_s):
    values = list(range(10, 240, 10))
    path = write_video(tmp_path / "a.mkv", flat(values), fps=4, video_start_s=late_s)
    for i in (0, 1, 7, 22):
        for time_s in (i / 4, i / 4 + 0.2):
            (picture,) = pictures_at(path, [time_s])
            assert grey(picture) == values[i]
    assert [grey(one) for one in pictures_at(path, [5.0, 0.0, 100.0])] == [210, 10, 230]


def test_pictures_between_the_key_frames_of_real_footage():
    import av

    with av.open(str(footage(BIKES))) as container:
        frames = {frame.time: frame for frame in container.decode(video=0)}
    times = list(frames)
    for i in (3, 77, 249):
        (picture,) = pictures_at(footage(BIKES), [times[i] + 0.01])
        assert np.array_equal(np.asarray(picture), frames[times[i]].to_ndarray(format="rgb24"))


def test_pictures_are_upright(tmp_path):
    frames = np.zeros((4, 64, 96, 3), dtype=np.uint8)
    frames[:, :, :48] = 255  # bright on the left
    plain = write_video(tmp_path / "plain.mp4", frames)
    bright = {0: "left", 90: "bottom", 180: "right", 270: "top"}
    for degrees, side in bright.items():
        turned = tmp_path / f"{degrees}.mp4"
        ffmpeg("-display_rotation", degrees, "-i", plain, "-c", "copy", turned)
        picture = np.asarray(pictures_at(turned, [0.0])[0]).mean(axis=2)
        height, width = picture.shape
        assert (width > height) == (degrees in (0, 180))
        half = {
            "left": picture[:, : width // 2],
            "right": picture[:, width // 2 :],
            "top": picture[: height // 2],
            "bottom": picture[height // 2 :],
        }
        assert half[side].mean() > 200


@pytest.mark.parametrize("content", [None, b"", b"no video at all", "sound"])
def test_what_has_no_picture_is_named(tmp_path, content):
    path = tmp_path / "a.mkv"
    if content == "sound":
        write_video(path, sound=np.zeros((1, 16000)))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"no picture can be read from .*a\.mkv"):
        pictures_at(path, [0.0])
    write_page(tmp_path / "page.html", "query", [hit(path), hit(tmp_path)])
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="none"') == 2 and "<video" not in page
    assert page.count('<audio controls preload="metadata" src="a.mkv#t=') == (content == "sound")


# Text


def test_what_a_page_says(tmp_path):
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


def test_a_page_of_nothing(tmp_path):
    write_page(tmp_path / "page.html", "nothing", [])
    write_page(tmp_path / "same.html", "nothing", [], similarity(np.zeros((0, 3))))
    for name in ("page.html", "same.html"):
        assert "0 segments" in (tmp_path / name).read_text()


def test_shares_of_other_hits_are_refused(tmp_path):
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


@pytest.mark.parametrize("over", ["file", "http"])
def test_a_browser_shows_pictures_plays_clips_and_runs_nothing(browser, clips, served, over):
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
    assert browser.execute_script(names) == [Path(one.path).name for one in hits]
    assert browser.execute_script("return document.scripts.length") == 0
    assert browser.execute_script("return document.querySelectorAll('img').length") == len(widths)
    said = [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
    assert said == []


def test_a_browser_plays_the_segment_and_no_more(browser, clips):
    out = clips[0].parent / "segment.html"
    write_page(out, "q", [hit(clips[0], 0.5, 1.0)])
    browser.get(out.as_uri())
    wait_for(browser, "document.querySelector('video').readyState > 1")
    assert browser.execute_script("return document.querySelector('video').currentTime") == 0.5
    browser.execute_script("v = document.querySelector('video'); v.muted = true; v.play()")
    wait_for(browser, "v.paused && v.currentTime >= 1")
    assert browser.execute_script("return v.currentTime") < 1.3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_light_and_dark(browser, clips, tmp_path, scheme):
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


def test_a_page_of_a_real_search(browser, tmp_path):
    """As `mdmmt search --html` makes it."""
    pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")
    from mdmmt.search.index import Index

    model = mdmmt.load("sample")
    with Index.open(tmp_path / "library.db", model) as index:
        for i in range(0, 1200, 200):
            clip = tmp_path / f"{'-'.join(COMBINATIONS[i])}.mp4"
            draw(clip, COMBINATIONS[i], seed=(11, i))
            index.add(clip, model.encode_segments(clip), metadata={"number": i})
        query = model.encode_text("A white star")
        hits = index.search(query, k=4, with_vectors=True)
    match = model.similarity(query, np.stack([one.vector for one in hits]))
    assert np.allclose(match.score[0], [one.score for one in hits], atol=1e-5)
    write_page(tmp_path / "found.html", "A white star", hits, match)
    browser.get((tmp_path / "found.html").as_uri())
    scores = "return [...document.querySelectorAll('.score')].map(s => s.textContent)"
    assert browser.execute_script(scores) == [f"{one.score:.3f}" for one in hits]
    wait_for(browser, "[...document.querySelectorAll('video')].every(v => v.readyState > 0)")

"""The page in a browser, and what its server refuses."""

from __future__ import annotations

import http.client
import importlib.resources
import json
import os
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import pytest
from browser import AXE, emulate, wait_for

from mdmmt.search import Index

pytestmark = pytest.mark.slow

SENTENCE = "textarea"
# What axe-core finds in Gradio's own parts; docs/app.md lists it.
OF_GRADIO: set[str] = set()


def ask(address, path, headers=None, method="GET"):
    """The status, the headers and the start of the body of an answer; the path is sent as it is."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read(100_000) if method == "GET" else b""
    connection.close()
    return answer.status, answer.headers, body


def clip_url(library):
    return "/" + library.url_of(library.index.files()[0].path)


def test_a_part_of_a_clip_is_served(address, library):
    file = library.index.files()[0].path
    status, headers, body = ask(address, clip_url(library), {"Range": "bytes=10-19"})
    assert status == 206 and len(body) == 10 and headers["Content-Type"] == "video/mp4"
    with open(file, "rb") as content:
        assert content.read()[10:20] == body
    assert ask(address, clip_url(library), {"Range": f"bytes={10**9}-"})[0] == 416


def test_files_outside_of_the_library_are_refused(address, library, tmp_path):
    inside = library.index.files()[0].path
    link = os.path.join(os.path.dirname(inside), "link.mp4")
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    os.symlink(secret, link)
    try:
        for path in (str(secret), link, inside, "/etc/hostname"):
            for spelled in (path, quote(path, safe=""), quote(quote(path, safe=""), safe="")):
                for route in ("/clips/", "/clips/../", "/gradio_api/file=", "/gradio_api/file/"):
                    url = quote(route + spelled, safe="/%=:?")
                    status, _, body = ask(address, url)
                    assert status in (400, 403, 404), url
                    assert b"secret" not in body.replace(b"secret.mp4", b"")
    finally:
        os.remove(link)


def test_no_other_machine_is_asked_on_behalf_of_a_client(address, monkeypatch):
    asked, look_up = [], socket.getaddrinfo

    def watch(host, *args, **kwargs):
        asked.append(host)
        return look_up("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", watch)
    for url in ("http://example.org/a.mp4", "https://example.org/a.mp4"):
        status, _, body = ask(address, f"/gradio_api/file={url}")
        assert status == 403 and b"not allowed" in body
    upload = {"path": "http://example.org/a.mp4", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AssertionError, match="success"):
        call(address, "read_video", [upload, ""], "foreign")
    assert set(asked) == {"127.0.0.1"}


def test_another_name_of_the_host_is_refused(address):
    assert ask(address, "/", {"Host": "example.org"})[0] == 400
    status, headers, _ = ask(address, "/")
    assert status == 200 and "default-src 'self'" in headers["Content-Security-Policy"]


def test_an_upload_of_a_gigabyte_is_refused(address):
    headers = {"Content-Length": str(2**30), "Content-Type": "multipart/form-data; boundary=b"}
    assert ask(address, "/gradio_api/upload", headers, "POST")[0] == 413


def call(address, name, data, session):
    """Call a function of the page as a browser does, and wait for its answer."""
    config = json.load(urlopen(f"{address}/config"))
    (number,) = [d["id"] for d in config["dependencies"] if d["api_name"] == name]
    body = json.dumps({"data": data, "fn_index": number, "session_hash": session}).encode()
    headers = {"Content-Type": "application/json"}
    urlopen(Request(f"{address}/gradio_api/queue/join", body, headers)).read()
    with urlopen(f"{address}/gradio_api/queue/data?session_hash={session}", timeout=120) as events:
        for line in events:
            event = json.loads(line[len(b"data: ") :]) if line.startswith(b"data: ") else {}
            if event.get("msg") == "process_completed":
                assert event["success"], event
                return event["output"]["data"]
    raise AssertionError("there is no answer")


def test_twenty_users_at_once_get_their_own_answers(address):
    def use(user):
        session = f"user{user}"
        call(address, "read_sentence", ["a red circle"], session)
        filter = f"number == {user % 6}"
        return call(address, "show", [None, 1, 0, False, filter, 1, 1, 1], session)[0]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(use, range(20)))
    for user, answer in enumerate(answers):
        assert f"number: {user % 6}" in answer


def test_loading_the_page_anew_shows_what_others_have_added(address, library):
    (load,) = [
        d
        for d in json.load(urlopen(f"{address}/config"))["dependencies"]
        if d["api_name"] == "refresh"
    ]
    assert [event for _, event in load["targets"]] == ["load"]
    segments = library.index.segments(library.index.files()[0].path)
    with Index.open(library.database) as index:
        index.add("other.mp4", segments)
        call(address, "refresh", [], "again")
        query = ["start_s >= 0 and path == 'other.mp4'", 1, 1, 1]
        call(address, "read_sentence", ["a red circle"], "again")
        shown = call(address, "show", [None, 50, 0, True, *query], "again")[0]
        assert shown.count("<li") == len(segments.vectors)
        index.delete("other.mp4")
    call(address, "refresh", [], "again")
    assert "other.mp4" not in [file.path for file in library.index.files()]


def search(browser, address, text="a red circle"):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(address)
    wait_for(browser, f"document.querySelector('{SENTENCE}')")
    field = browser.find_element(By.CSS_SELECTOR, SENTENCE)
    field.send_keys(text, Keys.ENTER)
    wait_for(browser, "document.querySelector('.note')")


def requests_of(browser):
    """The addresses that the browser has asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


@pytest.mark.browser
def test_a_sentence_finds_clips_that_play_from_their_second(browser, address):
    emulate(browser, "light")
    search(browser, address)
    wait_for(browser, "[...document.querySelectorAll('.cards img')].every(i => i.naturalWidth)")
    assert browser.execute_script("return document.querySelectorAll('.shares').length") == 10
    browser.execute_script("document.querySelector('a.open[href*=\"#t=1.\"]').click()")
    wait_for(browser, "document.querySelector('video')?.readyState > 1")
    browser.execute_script("v = document.querySelector('video'); v.muted = true; v.play()")
    assert 1 <= browser.execute_script("return v.currentTime") < 1.9
    wait_for(browser, "v.paused && v.currentTime >= 2")
    assert browser.execute_script("return v.currentTime") < 2.3
    inner = (address, "data:", "blob:", "chrome:")  # the last of them for the browser's own pages
    foreign = [url for url in requests_of(browser) if not url.startswith(inner)]
    assert foreign == []
    severe = [e for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    assert [e["message"] for e in severe] == []
    assert browser.title == "mdmmt"  # whatever the name of a file says
    names = browser.execute_script(
        "return [...document.querySelectorAll('.cards .name')].map(n => n.textContent)"
    )
    assert any(name.startswith("<img src=x") for name in names) or len(set(names)) < 6


@pytest.mark.browser
def test_names_of_files_are_shown_as_text(browser, address):
    from selenium.webdriver.common.by import By

    search(browser, address)
    browser.find_element(By.CSS_SELECTOR, ".label-wrap").click()
    wait_for(browser, "document.querySelectorAll('input[type=range]').length == 5")
    (filter,) = [
        field
        for field in browser.find_elements(By.CSS_SELECTOR, "textarea, input")
        if field.is_displayed() and field.accessible_name.startswith("Filter")
    ]
    filter.send_keys("number == 0\n")
    names = "[...document.querySelectorAll('.cards .name')].map(n => n.textContent)"
    wait_for(browser, f"{names}.length && {names}.every(n => n.startsWith('<img src=x'))")
    assert browser.title == "mdmmt"


@pytest.mark.browser
def test_the_button_of_a_hit_finds_more_like_it(browser, address):
    search(browser, address)
    ids = "[...document.querySelectorAll('button.like')].map(b => b.dataset.id)"
    wait_for(browser, f"{ids}.length == 10")
    first = browser.execute_script(f"return {ids}[0]")
    browser.execute_script("document.querySelector('button.like').click()")
    wait_for(browser, f"{ids}.length && !{ids}.includes('{first}')")


@pytest.mark.browser
def test_a_video_is_dropped_and_others_are_refused(browser, address, library, tmp_path):
    from selenium.webdriver.common.by import By

    browser.get(address)
    wait_for(browser, "document.querySelectorAll('button[role=tab]').length >= 3")

    def drop(path):
        browser.get(address)
        wait_for(browser, "document.querySelectorAll('button[role=tab]').length >= 3")
        browser.find_element(By.XPATH, "//button[@role='tab'][contains(., 'Video')]").click()
        wait_for(browser, "document.querySelector('input[type=file]')")
        browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(path))

    def find(name):
        wait_for(browser, f"document.body.innerText.includes('{name}')")
        time.sleep(0.5)  # until the upload is the value of the component
        browser.find_element(By.XPATH, "//button[contains(., 'Find similar')]").click()
        wait_for(browser, "document.querySelector('.note')")

    shutil.copy(library.index.files()[-1].path, tmp_path / "mine.mp4")
    drop(tmp_path / "mine.mp4")
    find("mine")
    assert browser.execute_script("return document.querySelectorAll('.cards li').length") == 10
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    drop(tmp_path / "broken.mp4")
    find("broken")
    assert "broken.mp4" in browser.find_element(By.CSS_SELECTOR, ".note").text
    with open(tmp_path / "huge.mp4", "wb") as huge:
        huge.truncate(2**30)
    drop(tmp_path / "huge.mp4")
    wait_for(browser, "/maximum|exceed|size/i.test(document.body.innerText)")


@pytest.mark.browser
def test_the_keyboard_is_enough(browser, address):
    from selenium.webdriver.common.keys import Keys

    def tab_to(script):
        for _ in range(40):
            browser.switch_to.active_element.send_keys(Keys.TAB)
            if browser.execute_script(f"const e = document.activeElement; return {script}"):
                return
        raise AssertionError(f"the focus never came to {script}")

    browser.get(address)
    wait_for(browser, f"document.querySelector('{SENTENCE}')")
    tab_to("e.matches('textarea')")
    browser.switch_to.active_element.send_keys("something red", Keys.ENTER)
    wait_for(browser, "document.querySelector('.cards')")
    tab_to("e.matches('a.open')")
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.execute_script(outline) == "solid"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    wait_for(browser, "document.activeElement.matches('video')")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_passes_axe_core(browser, address, scheme, width):
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    emulate(browser, scheme, width)
    search(browser, address)
    wait_for(browser, "document.querySelector('.cards')")
    browser.execute_script("document.querySelector('.label-wrap').click()")
    browser.execute_script(axe.read_text(encoding="utf-8"))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    ours = browser.execute_async_script(AXE, {"include": [[".cards"], [".note"]]})
    assert [found["id"] for found in ours] == []
    grave = {
        found["id"]
        for found in browser.execute_async_script(AXE, {})
        if found["impact"] in ("serious", "critical")
    }
    assert grave <= OF_GRADIO
    emulate(browser, "light")


@pytest.mark.browser
def test_sliders_answer_the_same_query_anew_and_videos_are_added(
    browser, address, library, tmp_path
):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    emulate(browser, "light")
    search(browser, address, "something red that moves left")
    scores = "[...document.querySelectorAll('.cards .score')].map(s => s.textContent).join()"
    wait_for(browser, f"{scores} !== ''")
    before = browser.execute_script(f"return {scores}")
    browser.find_element(By.CSS_SELECTOR, ".label-wrap").click()
    wait_for(browser, "document.querySelectorAll('input[type=range]').length == 5")
    slider = browser.find_element(By.CSS_SELECTOR, "input[type=range]")
    slider.send_keys(Keys.ARROW_RIGHT)
    slider.send_keys(Keys.TAB)
    wait_for(browser, f"{scores} !== {json.dumps(before)} && {scores} !== ''")

    added = shutil.copy(library.index.files()[-1].path, tmp_path / "added.mp4")
    browser.find_element(By.XPATH, "//button[@role='tab'][contains(., 'Add videos')]").click()
    (field,) = [
        field
        for field in browser.find_elements(By.CSS_SELECTOR, SENTENCE)
        if field.is_displayed() and field.accessible_name.startswith("Folder or video")
    ]
    field.send_keys(str(added), Keys.ENTER)
    wait_for(browser, "document.body.innerText.includes('1 of 1 video is in the library')", 60)
    try:
        assert str(added) in [file.path for file in library.index.files()]
    finally:
        with library.adding() as index:
            index.delete(added)

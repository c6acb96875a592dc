"""What the functions of the page answer."""

from __future__ import annotations

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
import pytest
from media import film

gradio = pytest.importorskip("gradio", reason="the extra `app` is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture
def features(library):
    from mdmmt.app.page import Features

    return Features(library)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "Type a sentence first."),
        (" \n", "Type a sentence first."),
        ("a" * 10_000, "The query has 10000 characters, expected at most 1000."),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_an_odd_query_gets_one_sentence(features, text, sentence):
    query = features.read_sentence(text)
    assert query.vector is None and sentence in query.note
    shown = features.show(query, 5, 0, False, "", 1, 1, 1)
    assert shown.count("<p") == 1 and "cards" not in shown


def test_show_takes_number_filter_and_weights(features):
    query = features.read_sentence("a red circle")
    assert features.show(query, 3, 0, False, "", 1, 1, 1).count("<li") == 3
    one_each = features.show(query, 50, 1, True, "", 1, 1, 1)
    assert one_each.count("<li") == 6 and "best at" not in one_each
    windows = features.show(query, 50, 0, True, "", 1, 1, 1).count("<li")
    assert (
        windows
        == features.library.index.count()
        > features.show(query, 50, 0, False, "", 1, 1, 1).count("<li")
    )
    one = features.show(query, 50, 0, False, "number == 2 and start_s >= 1", 1, 1, 1)
    assert "2.mp4" in one and "3.mp4" not in one
    motion = features.show(query, 1, 0, False, "", 0, 1, 0)
    assert motion.count("-0.000") + motion.count(">0.000<") >= 2  # the shares of the others
    assert "The metadata have number." in features.show(query, 3, 0, False, "year == 2", 1, 1, 1)
    assert "was refused by Milvus" in features.show(query, 3, 0, False, "year ==", 1, 1, 1)


def test_a_video_finds_itself_and_a_broken_one_is_named(features, library, tmp_path):
    path = next(file.path for file in library.index.files() if file.path.endswith("3.mp4"))
    shown = features.show(features.read_video(path, ""), 1, 0, False, "", 1, 1, 1)
    assert "3.mp4" in shown
    broken = tmp_path / "broken<b>.mp4"
    broken.write_bytes(b"no video")
    query = features.read_video(str(broken), "")
    shown = features.show(query, 1, 0, False, "", 1, 1, 1)
    assert "broken&lt;b&gt;.mp4" in shown and str(tmp_path) not in shown
    assert features.read_video(None, "").note == "Choose a video first."


def test_a_video_and_a_sentence_are_one_query(features, library):
    path = next(file.path for file in library.index.files() if file.path.endswith("3.mp4"))
    query = features.read_video(path, " a red circle ")
    text, video = library.model.encode_text("a red circle"), library.model.encode_video(path)
    assert np.allclose(query.vector, library.index.combine(text, video))
    assert "expected at most 1000" in features.read_video(path, "a" * 1001).note


def test_a_hit_finds_more_like_it(features, library):
    hit = library.index.find_moments(library.model.encode_text("a red circle"), 1)[0]
    event = gradio.EventData(None, {"id": hit.id})
    shown = features.show(features.read_hit(event), 50, 0, True, "", 1, 1, 1)
    assert hit.id not in shown and shown.count("<li") > 5
    assert f'data-id="{hit.id}"' in features.show(
        features.read_sentence("a red circle"), 1, 0, False, "", 1, 1, 1
    )
    for odd in ("", f"{hit.path}#t=0", '"] or id in ["', None):
        assert "no window" in features.read_hit(gradio.EventData(None, {"id": odd})).note


def test_what_the_model_leaves_out_of_a_query_is_told(features, library, tmp_path):
    long = "red " * 60
    query = features.read_sentence(long)
    shown = features.show(query, 3, 0, False, "", 1, 1, 1)
    assert '<p class="note" role="status">The sentence &#39;red red' in shown
    assert "embeds the first" in shown and shown.count("<li") == 3
    assert query == features.read_sentence(long)._replace(vector=query.vector)  # each time
    nothing = features.show(query, 3, 0, False, "number == 99", 1, 1, 1)
    assert "embeds the first" in nothing and "Nothing was found." in nothing
    video = features.read_video(str(film(tmp_path / "long.mkv", 40)), long)
    told = features.show(video, 3, 0, False, "", 1, 1, 1)
    assert told.count("embeds the first") == 1 and str(tmp_path) not in told
    assert "long.mkv" in told and "segments=" not in told
    assert not features.read_sentence("red").warnings


def test_a_count_agrees_with_its_noun(features):
    query = features.read_sentence("a red circle")

    def note(k, windows):
        shown = features.show(query, k, 0, windows, "", 1, 1, 1)
        return shown.partition("</p>")[0].rpartition(">")[2]

    assert note(1, False).endswith("1 moment")
    assert note(2, False).endswith("2 moments, best first")
    assert note(1, True).endswith("1 window")
    assert note(2, True).endswith("2 windows, best first")


def test_add_shows_its_progress(make_library, library, tmp_path):
    from mdmmt.app.page import Features
    from mdmmt.search import Index

    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(library.index.files()[0].path, videos / "a.mp4")
    (videos / "b.mp4").write_bytes(b"no video")
    features = Features(make_library(tmp_path / "new.db", library.model))
    steps = list(features.add(str(videos)))
    assert [step.partition(" videos")[0].rpartition(">")[2] for step in steps] == [
        *("0 of 2", "1 of 2", "2 of 2", "1 of 2")
    ]
    assert "b.mp4" in steps[-1] and 'max="2"' in steps[1]
    assert [file.path for file in features.library.index.files()] == [str(videos / "a.mp4")]
    one = list(features.add(str(videos / "a.mp4")))
    assert "1 of 1 video</p>" in one[1] and "1 of 1 video is in the library." in one[2]
    for odd in ("", "videos", str(tmp_path / "gone")):
        (only,) = features.add(odd)
        assert only.count("<p") == 1
    with Index.open(tmp_path / "new.db", library.model):
        (only,) = features.add(str(videos))
        assert only.count("<p") == 1 and "wait until that one has ended" in only
    # As Gradio does, in another thread for each step.
    steps = features.add(str(film(videos / "long.mkv", 40)))
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        pools = itertools.cycle([first, second])
        seen = [copy_context().run(next(pools).submit, next, steps, None).result() for _ in "1234"]
    assert "1 of 1 video is" in seen[-2] and seen[-1] is None

"""What the functions of the page answer."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

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
        == features.index.count()
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


def test_add_shows_its_progress(library, tmp_path):
    from mdmmt.app.library import Library
    from mdmmt.app.page import Features
    from mdmmt.search import Index

    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(library.index.files()[0].path, videos / "a.mp4")
    (videos / "b.mp4").write_bytes(b"no video")
    with Index.open(tmp_path / "new.db", library.model) as index:
        features = Features(Library(index, library.model))
        steps = list(features.add(str(videos)))
        assert [step.partition(" videos")[0].rpartition(">")[2] for step in steps] == [
            *("0 of 2", "1 of 2", "2 of 2", "1 of 2")
        ]
        assert "b.mp4" in steps[-1] and 'max="2"' in steps[1]
        assert [file.path for file in index.files()] == [str(videos / "a.mp4")]
        for odd in ("", "videos", str(tmp_path / "gone")):
            (only,) = features.add(odd)
            assert only.count("<p") == 1

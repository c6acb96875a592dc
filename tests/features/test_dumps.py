"""The authors' dumps: read, written, and refused if damaged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from authors_dumps import assert_same, make_features, write_pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmmt import InputError
from mdmmt.features.dumps import read_dump, read_dumps, video_name, write_dumps
from mdmmt.features.types import ExpertFeatures


def test_read_dump_reads_the_files_of_all_workers_in_order(tmp_path):
    videos = {f"/videos/clip {i}.mp4": make_features(i, 3) for i in (4, 0, 2)}
    more = {"/videos/é.mp4": make_features(3, 3)}
    write_pair(tmp_path / "test_0", videos)
    write_pair(tmp_path / "test_10", more)
    write_pair(tmp_path / "testing", {"other.mp4": make_features(1, 3)})
    dumped = list(read_dump(tmp_path / "test", 3))
    assert [one.path for one in dumped] == [*videos, *more]
    assert [one.first_byte for one in dumped] == [0, 4 * 3 * 4, 4 * 3 * 4, 0]
    assert_same({one.path: one.features for one in dumped}, videos | more)
    assert {one.features.values.dtype for one in dumped} == {np.dtype(np.float32)}
    assert {one.features.times_s.dtype for one in dumped} == {np.dtype(np.float64)}
    assert isinstance(dumped[0].features.values, np.memmap)
    assert not dumped[0].features.values.flags.writeable


def test_read_dumps_gathers_experts_by_the_name_of_the_video(tmp_path):
    seen = {
        "a/x.mp4": make_features(3, 4),
        "a/y.mp4": make_features(2, 4),
        "a/z.mp4": make_features(0, 4),
    }
    heard = {"b/x.wav": make_features(3, 2, 0.96)}
    write_pair(tmp_path / "seen", seen)
    write_pair(tmp_path / "heard", heard)
    prefixes = {"seen": tmp_path / "seen", "heard": str(tmp_path / "heard")}
    videos = read_dumps(prefixes, {"seen": 4, "heard": 2})
    assert videos.keys() == {"x", "y", "z"}
    assert_same(videos["x"], {"seen": seen["a/x.mp4"], "heard": heard["b/x.wav"]})
    assert_same(videos["y"], {"seen": seen["a/y.mp4"]})
    assert videos["z"] == {}


videos_of = st.dictionaries(
    st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"])).filter(video_name),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    max_size=4,
)


@given(videos_of)
@settings(deadline=None, max_examples=50)
def test_read_dump_reads_what_write_dumps_wrote(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("dumps") / "new"
    prefixes = {"seen": folder / "seen", "heard": folder / "test.heard"}
    videos = [
        (
            path,
            {
                "seen": make_features(n, 5),
                "heard": make_features(k, 2, 0.96),
                "other": make_features(1, 1),
            },
        )
        for path, (n, k) in sizes.items()
    ]
    write_dumps(prefixes, videos)
    assert sorted(p.name for p in folder.iterdir()) == [
        *("seen.emb", "seen.idx", "test.heard.emb", "test.heard.idx")
    ]
    for name, dim in (("seen", 5), ("heard", 2)):
        found = {one.path: one.features for one in read_dump(prefixes[name], dim)}
        assert_same(found, {p: e[name] for p, e in videos if len(e[name])})


def test_write_dumps_writes_the_bytes_of_the_authors(tmp_path):
    videos = {"a.mp4": make_features(3, 4, 0.96), "b c.mp4": make_features(2, 4, 0.96)}
    write_pair(tmp_path / "theirs", videos)
    write_dumps({"x": tmp_path / "ours"}, ((path, {"x": one}) for path, one in videos.items()))
    for suffix in (".emb", ".idx"):
        ours, theirs = (tmp_path / f"{who}{suffix}" for who in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert (tmp_path / "ours.idx").read_text().startswith("VIDEO\ta.mp4\n0.00\t0.96\n0.96\t1.92\n")


def test_write_dumps_leaves_existing_files_if_it_fails(tmp_path):
    write_dumps({"x": tmp_path / "x"}, [("a.mp4", {"x": make_features(2, 3)})])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken():
        yield "b.mp4", {"x": make_features(2, 3)}
        raise KeyError("the next video")

    with pytest.raises(KeyError, match="the next video"):
        write_dumps({"x": tmp_path / "x", "y": tmp_path / "y"}, broken())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("video", "one", "message"),
    [
        (
            "b.mp4",
            make_features(2, 4),
            r"b.mp4, expert x: features are \(2, 4\).*\(n, 3\)",
        ),
        ("b.mp4", ExpertFeatures(np.ones((1, 3)), np.array([[2.0, 1.0]])), "times 2 and 1, exp"),
        ("b\n.mp4", make_features(2, 3), "has a line break"),
    ],
)
def test_write_dumps_refuses_features_that_do_not_fit(tmp_path, video, one, message):
    videos = [("a.mp4", {"x": make_features(1, 3)}), (video, {"x": one})]
    with pytest.raises(InputError, match=message):
        write_dumps({"x": tmp_path / "x"}, videos)
    assert not list(tmp_path.iterdir())


def test_write_dumps_refuses_two_videos_of_one_name(tmp_path):
    one = {"CLIP": ExpertFeatures(np.zeros((1, 2)), np.array([[0.0, 1.0]]))}
    with pytest.raises(InputError, match="two videos called 'x'"):
        write_dumps({"CLIP": tmp_path / "CLIP"}, [("a/x.mp4", one), ("b/x.mp4", one)])
    assert not list(tmp_path.iterdir())


def test_write_dumps_keeps_unknown_times(tmp_path):
    one = ExpertFeatures(np.ones((2, 3)), np.full((2, 2), math.nan))
    write_dumps({"x": tmp_path / "x"}, [("a.mp4", {"x": one})])
    assert (tmp_path / "x.idx").read_text() == "VIDEO\ta.mp4\nnan\tnan\nnan\tnan\n"
    assert np.isnan(next(read_dump(tmp_path / "x", 3)).features.times_s).all()


@pytest.mark.parametrize(
    ("idx", "message"),
    [
        ("0.00\t1.00\n", "line 1: '0.00.t1.00', expected VIDEO<TAB>path"),
        ("VIDEO a.mp4\n", "line 1: 'VIDEO a.mp4', expected VIDEO<TAB>path"),
        ("VIDEO\ta\n0.00 1.00\n", r"x.idx, line 2: '0.00 1.00', expected start<TAB>end"),
        ("VIDEO\ta\n0\t1\t2\n", "line 2"),
        ("VIDEO\ta\n0\t1\n2\t1\n", "line 3"),
        ("VIDEO\ta\n0\tinf\n", "line 2"),
        ("VIDEO\ta\0b\n0\t1\n", r"x.idx, line 1: 'a\\x00b' is not the path of a file"),
        ("VIDEO\t/videos/\n0\t1\n", "line 1: '/videos/' is not the path of a file"),
        ("VIDEO\t\n0\t1\n", "line 1: '' is not the path"),
        ("VIDEO\ta\nnan\t1\n", "line 2"),
        ("VIDEO\ta\n0\t1\n\n", "line 3: ''"),
        ("VIDEO\ta\n0\t1\n", r"x.emb has 24 bytes, which would be 6 wide; expected 1 feature 3"),
        ("VIDEO\ta\n" + "0\t1\n" * 5, r"x.emb has 24 bytes; expected 5 features 3 wide"),
        ("", r"x.emb has 24 bytes, which would be 6 wide; expected 0 features"),
    ],
)
def test_read_dump_names_file_and_line_of_an_error(tmp_path, idx, message):
    (tmp_path / "x.emb").write_bytes(bytes(24))
    (tmp_path / "x.idx").write_text(idx)
    with pytest.raises(InputError, match=message):
        list(read_dump(tmp_path / "x", 3))


def test_read_dump_names_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"no dump .*x', expected the files x.emb and x.idx"):
        list(read_dump(tmp_path / "x", 3))
    with pytest.raises(InputError, match="no dump"):
        list(read_dump(tmp_path / "no folder" / "x", 3))
    (tmp_path / "x.idx").write_text("VIDEO\ta\n0\t1\n")
    with pytest.raises(InputError, match=r"x.emb' cannot be read: No such file"):
        list(read_dump(tmp_path / "x", 3))
    with pytest.raises(InputError, match="0 wide, expected 1 or more"):
        list(read_dump(tmp_path / "x", 0))


def test_read_dumps_refuses_two_videos_of_one_name(tmp_path):
    write_pair(
        tmp_path / "x", {"a/clip.mp4": make_features(1, 3), "b/clip.avi": make_features(1, 3)}
    )
    with pytest.raises(InputError, match=r"of 'a/clip\.mp4' and of 'b/clip\.avi'"):
        read_dumps({"x": tmp_path / "x"}, {"x": 3})

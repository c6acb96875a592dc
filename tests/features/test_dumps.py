"""The authors' dumps and caption indexes: read, written, and refused where damaged."""

from __future__ import annotations

import math
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmmt import InputError
from mdmmt.features.dumps import read_caption_indexes, read_dump, read_dumps, write_dumps
from mdmmt.features.segments import select
from mdmmt.features.types import ExpertFeatures

RNG = np.random.default_rng(5)


def features(n, dim, hop_s=1.0):
    starts = hop_s * np.arange(n)
    return ExpertFeatures(
        RNG.standard_normal((n, dim)),
        np.stack([starts, starts + hop_s], axis=1).round(2),
    )


def write_pair(prefix, videos):
    """A dump as the authors' program leaves it; returns where each video begins in both files."""
    emb, idx, places = b"", "", {}
    for path, one in videos.items():
        places[path] = len(emb), len(idx) + len(f"VIDEO\t{path}\n")
        for row in one.values:
            emb += struct.pack(f"<{len(row)}f", *row)
        idx += f"VIDEO\t{path}\n" + "".join(f"{a:.2f}\t{b:.2f}\n" for a, b in one.times_s)
    prefix.with_name(prefix.name + ".emb").write_bytes(emb)
    prefix.with_name(prefix.name + ".idx").write_text(idx, encoding="utf-8")
    return places


def assert_same(extracted, expected):
    assert extracted.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(extracted[name].values, expected[name].values)
        np.testing.assert_array_equal(extracted[name].times_s, expected[name].times_s)


def test_a_dump_of_two_workers_is_read_in_their_order(tmp_path):
    videos = {f"/videos/clip {i}.mp4": features(i, 3) for i in (4, 0, 2)}
    more = {"/videos/é.mp4": features(3, 3)}
    write_pair(tmp_path / "test_0", videos)
    write_pair(tmp_path / "test_10", more)
    write_pair(tmp_path / "testing", {"other.mp4": features(1, 3)})
    dumped = list(read_dump(tmp_path / "test", 3))
    assert [one.video for one in dumped] == [*videos, *more]
    for one in dumped:
        expected = (videos | more)[one.video]
        np.testing.assert_array_equal(one.features, expected.values)
        np.testing.assert_array_equal(one.times, expected.times_s)
        assert one.features.dtype == np.float32
        assert one.times.dtype == np.float64
    assert isinstance(dumped[0].features, np.memmap)
    assert not dumped[0].features.flags.writeable


def test_several_experts_are_put_together_by_the_name_of_the_video(tmp_path):
    seen = {"a/x.mp4": features(3, 4), "a/y.mp4": features(2, 4), "a/z.mp4": features(0, 4)}
    heard = {"b/x.wav": features(3, 2, 0.96)}
    write_pair(tmp_path / "seen", seen)
    write_pair(tmp_path / "heard", heard)
    prefixes = {"seen": tmp_path / "seen", "heard": str(tmp_path / "heard")}
    videos = read_dumps(prefixes, {"seen": 4, "heard": 2})
    assert videos.keys() == {"x", "y", "z"}
    assert_same(videos["x"], {"seen": seen["a/x.mp4"], "heard": heard["b/x.wav"]})
    assert_same(videos["y"], {"seen": seen["a/y.mp4"]})
    assert videos["z"] == {}


videos_of = st.dictionaries(
    st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    max_size=4,
)


@given(videos_of)
@settings(deadline=None, max_examples=50)
def test_what_is_written_is_read(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("dumps") / "new"
    prefixes = {"seen": folder / "seen", "heard": folder / "test.heard"}
    videos = [
        (path, {"seen": features(n, 5), "heard": features(k, 2, 0.96), "other": features(1, 1)})
        for path, (n, k) in sizes.items()
    ]
    write_dumps(prefixes, videos)
    assert sorted(p.name for p in folder.iterdir()) == [
        *("seen.emb", "seen.idx", "test.heard.emb", "test.heard.idx")
    ]
    for name, dim in (("seen", 5), ("heard", 2)):
        found = {
            one.video: ExpertFeatures(one.features, one.times)
            for one in read_dump(prefixes[name], dim)
        }
        assert_same(found, {p: e[name] for p, e in videos if len(e[name])})


def test_a_dump_has_the_bytes_that_the_authors_wrote(tmp_path):
    videos = {"a.mp4": features(3, 4, 0.96), "b c.mp4": features(2, 4, 0.96)}
    write_pair(tmp_path / "theirs", videos)
    write_dumps({"x": tmp_path / "ours"}, ((path, {"x": one}) for path, one in videos.items()))
    for suffix in (".emb", ".idx"):
        ours, theirs = (tmp_path / f"{who}{suffix}" for who in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert (tmp_path / "ours.idx").read_text().startswith("VIDEO\ta.mp4\n0.00\t0.96\n0.96\t1.92\n")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    write_dumps({"x": tmp_path / "x"}, [("a.mp4", {"x": features(2, 3)})])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken():
        yield "b.mp4", {"x": features(2, 3)}
        raise KeyError("the next video")

    with pytest.raises(KeyError, match="the next video"):
        write_dumps({"x": tmp_path / "x", "y": tmp_path / "y"}, broken())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("video", "one", "message"),
    [
        ("b.mp4", features(2, 4), r"b.mp4, expert x: features are \(2, 4\).*expected \(n, 3\)"),
        ("b.mp4", ExpertFeatures(np.ones((1, 3)), np.array([[2.0, 1.0]])), "times 2 and 1, exp"),
        ("b\n.mp4", features(2, 3), "has a line break"),
    ],
)
def test_what_no_dump_can_hold_is_refused(tmp_path, video, one, message):
    videos = [("a.mp4", {"x": features(1, 3)}), (video, {"x": one})]
    with pytest.raises(InputError, match=message):
        write_dumps({"x": tmp_path / "x"}, videos)
    assert not list(tmp_path.iterdir())


def test_two_videos_of_one_name_are_not_written(tmp_path):
    one = {"CLIP": ExpertFeatures(np.zeros((1, 2)), np.array([[0.0, 1.0]]))}
    with pytest.raises(InputError, match="two videos called 'x'"):
        write_dumps({"CLIP": tmp_path / "CLIP"}, [("a/x.mp4", one), ("b/x.mp4", one)])
    assert not list(tmp_path.iterdir())


def test_unknown_times_are_kept(tmp_path):
    one = ExpertFeatures(np.ones((2, 3)), np.full((2, 2), math.nan))
    write_dumps({"x": tmp_path / "x"}, [("a.mp4", {"x": one})])
    assert (tmp_path / "x.idx").read_text() == "VIDEO\ta.mp4\nnan\tnan\nnan\tnan\n"
    assert np.isnan(next(read_dump(tmp_path / "x", 3)).times).all()


@pytest.mark.parametrize(
    ("idx", "message"),
    [
        ("0.00\t1.00\n", "line 1: '0.00.t1.00', expected VIDEO<TAB>path"),
        ("VIDEO a.mp4\n", "line 1: 'VIDEO a.mp4', expected VIDEO<TAB>path"),
        ("VIDEO\ta\n0.00 1.00\n", r"x.idx, line 2: '0.00 1.00', expected start<TAB>end"),
        ("VIDEO\ta\n0\t1\t2\n", "line 2"),
        ("VIDEO\ta\n0\t1\n2\t1\n", "line 3"),
        ("VIDEO\ta\n0\tinf\n", "line 2"),
        ("VIDEO\ta\nnan\t1\n", "line 2"),
        ("VIDEO\ta\n0\t1\n\n", "line 3: ''"),
        ("VIDEO\ta\n0\t1\n", r"x.emb has 24 bytes, which would be 6 wide; expected 1 features 3"),
        ("VIDEO\ta\n" + "0\t1\n" * 5, r"x.emb has 24 bytes; expected 5 features 3 wide"),
        ("", r"x.emb has 24 bytes, which would be 6 wide; expected 0 features"),
    ],
)
def test_a_damaged_dump_is_refused_with_file_and_line(tmp_path, idx, message):
    (tmp_path / "x.emb").write_bytes(bytes(24))
    (tmp_path / "x.idx").write_text(idx)
    with pytest.raises(InputError, match=message):
        list(read_dump(tmp_path / "x", 3))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no dump .*x', expected the files x.emb and x.idx"):
        list(read_dump(tmp_path / "x", 3))
    with pytest.raises(InputError, match="no dump"):
        list(read_dump(tmp_path / "no folder" / "x", 3))
    (tmp_path / "x.idx").write_text("VIDEO\ta\n0\t1\n")
    with pytest.raises(InputError, match=r"x.emb' cannot be read: No such file"):
        list(read_dump(tmp_path / "x", 3))
    with pytest.raises(InputError, match="0 wide, expected 1 or more"):
        list(read_dump(tmp_path / "x", 0))


def test_two_videos_of_one_name_are_refused(tmp_path):
    write_pair(tmp_path / "x", {"a/clip.mp4": features(1, 3), "b/clip.avi": features(1, 3)})
    with pytest.raises(InputError, match=r"of 'a/clip\.mp4' and of 'b/clip\.avi'"):
        read_dumps({"x": tmp_path / "x"}, {"x": 3})


# A caption index of the three experts of one video, of which the third found nothing.

CAPTIONS = [("a dog runs", 0, 4.0), ("it stops", 2.5, 3.5), ("the end", 3.95, 10.0)]


def write_index(folder, video="clip", captions=CAPTIONS, dumps=None, shown=None):
    """The dumps and the index of one video, made with the rule that `test_segments` holds."""
    dumps = dumps or {"seen": features(4, 3), "heard": features(5, 2, 0.96)}
    places = {}
    for name, one in dumps.items():
        before = {"before.mp4": features(2, one.values.shape[1])}
        places[name] = write_pair(folder / name, before | {f"/v/{video}.mp4": one})[
            f"/v/{video}.mp4"
        ]
    shown = shown or folder
    lines = ["seen\theard\tabsent", "3\t2\t7"]
    lines += ["\t".join(f"{shown}/{name}{s}" for name in dumps for s in (".emb", ".idx")) + "\t\t"]
    whole = [(*places[name], len(dumps[name])) for name in dumps] + [(-1, -1, 0)]
    lines += ["\t".join(str(n) for triple in whole for n in triple)]
    for text, start_s, end_s in captions:
        triples = []
        for name, one in dumps.items():
            numbers = ExpertFeatures(np.arange(len(one))[:, None], one.times_s)
            run = select({name: numbers}, start_s, end_s)[name].values[:, 0].astype(int)
            byte = places[name][0] + run[0] * one.values.shape[1] * 4
            triples += [byte, places[name][1], len(run)]
        lines += [f"{text}\t{start_s}\t{end_s}\t" + "\t".join(map(str, [*triples, -1, -1, 0]))]
    path = folder / f"{video}.capts"
    path.write_text("\n".join(lines) + "\n")
    return path, dumps


def test_a_caption_index_points_to_what_segments_select(tmp_path):
    path, dumps = write_index(tmp_path)
    (index,) = read_caption_indexes([path])
    assert index.video == "clip"
    assert_same(index.extracted, dumps)
    assert [(c.text, c.start_s, c.end_s) for c, _ in index.captions] == CAPTIONS
    for caption, selected in index.captions:
        assert caption.video == "clip"
        assert_same(selected, select(dumps, caption.start_s, caption.end_s))
    assert index.captions[1].caption.where == f"{path}, line 6"


def test_dumps_that_were_moved_are_found(tmp_path):
    path, dumps = write_index(tmp_path, shown="/ssd/dumps")
    with pytest.raises(InputError, match=r"'/ssd/dumps/seen.idx' cannot be read"):
        list(read_caption_indexes([path]))
    (index,) = read_caption_indexes([str(path)], moved=("/ssd/dumps", str(tmp_path)))
    assert_same(index.extracted, dumps)


def test_the_last_experts_of_a_caption_may_be_missing(tmp_path):
    path, _ = write_index(tmp_path)
    text = re.sub(r"(it stops(\t[\d.]+){5}).*", r"\1", path.read_text())
    path.write_text(text)
    (index,) = read_caption_indexes([path])
    assert index.captions[1].selected.keys() == {"seen"}
    assert index.captions[2].selected.keys() == {"seen", "heard"}


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (2, "3", "three", "line 2: .*expected 3 whole numbers"),
        (2, "\t7", "", "line 2: .*expected 3 whole numbers"),
        (2, "3", "0", "0 wide"),
        (2, "3", "9" * 30, "wide"),
        (3, "\t\t", "", "line 3: 4 paths, expected"),
        (
            4,
            "24",
            "23",
            "line 4: 4 features of seen from byte 23 .*where there are 0 of 'no video'",
        ),
        (4, "24", "0", "line 4: .*where there are 2 of 'before.mp4'"),
        (4, "24", "-24", "line 4"),
        (4, "\t4\t", "\t400\t", "line 4: 400 features of seen"),
        (4, "24", "1e3", "line 4: .*expected 9 whole numbers"),
        (5, "\t", " ", "line 5: .*expected 6 whole numbers"),
        (5, "4.0", "nan", "line 5: .*expected a caption"),
        (5, "4.0", "0", "line 5: .*expected a caption"),
        (5, "24", "25", "line 5: 4 features of seen from byte 25, which are not among the 4"),
        (5, "24", "36", "line 5"),
        (5, "24", "0", "line 5"),
        (5, "\t4\t", "\t5\t", "line 5"),
        (5, "\t4\t", "\t-1\t", "line 5"),
        (5, "-1\t-1\t0", "0\t0\t1", "line 5: features of absent, of which line 4 says"),
        (5, "-1\t-1\t0", "0\t0", "line 5: .*expected 6 whole numbers"),
        (5, "-1\t-1\t0", "-1\t-1\t0\t1", "line 5: .*expected 9 whole numbers"),
    ],
)
def test_a_damaged_index_is_refused_with_file_and_line(tmp_path, line, old, new, message):
    path, _ = write_index(tmp_path)
    lines = path.read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        list(read_caption_indexes([path]))


def test_an_index_of_another_video_is_refused(tmp_path):
    path, _ = write_index(tmp_path)
    other = path.rename(tmp_path / "other.capts")
    with pytest.raises(InputError, match=r"line 4: .*there are 4 of '/v/clip.mp4'"):
        list(read_caption_indexes([other]))
    other.write_text("seen\n3\n")
    with pytest.raises(InputError, match=r"other.capts has 2 lines, expected 4"):
        list(read_caption_indexes([other]))

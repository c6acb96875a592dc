"""The authors' caption indexes: read with the dumps they point into, and refused if damaged."""

from __future__ import annotations

import re

import numpy as np
import pytest
from authors_dumps import assert_same, make_features, write_pair

from mdmmt import InputError
from mdmmt.datasets import read_caption_indexes
from mdmmt.features import select
from mdmmt.features.types import ExpertFeatures

CAPTIONS = [("a dog runs", 0, 4.0), ("it stops", 2.5, 3.5), ("the end", 3.95, 10.0)]


def write_index(folder, video="clip", captions=CAPTIONS, dumps=None, stated_folder=None):
    """Write the dumps and the index of one video; the third of its experts has no features.

    `select`, which has tests of its own, says which features belong to a caption.
    """
    dumps = dumps or {"seen": make_features(4, 3), "heard": make_features(5, 2, 0.96)}
    places = {}
    for name, one in dumps.items():
        before = {"before.mp4": make_features(2, one.values.shape[1])}
        places[name] = write_pair(folder / name, before | {f"/v/{video}.mp4": one})[
            f"/v/{video}.mp4"
        ]
    stated_folder = stated_folder or folder
    lines = ["seen\theard\tabsent", "3\t2\t7"]
    lines += [
        "\t".join(f"{stated_folder}/{name}{s}" for name in dumps for s in (".emb", ".idx")) + "\t\t"
    ]
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


def test_read_caption_indexes_finds_the_features_that_select_returns(tmp_path):
    path, dumps = write_index(tmp_path)
    (index,) = read_caption_indexes([path])
    assert index.video == "clip"
    assert_same(index.features, dumps)
    assert [(c.text, c.start_s, c.end_s) for c, _ in index.captions] == CAPTIONS
    for caption, features in index.captions:
        assert caption.video == "clip"
        assert_same(features, select(dumps, caption.start_s, caption.end_s))
    assert index.captions[1].caption.where == f"{path}, line 6"


def test_read_caption_indexes_finds_dumps_that_were_moved(tmp_path):
    path, dumps = write_index(tmp_path, stated_folder="/ssd/dumps")
    with pytest.raises(InputError, match=r"'/ssd/dumps/seen.idx' cannot be read"):
        list(read_caption_indexes([path]))
    (index,) = read_caption_indexes([str(path)], moved=("/ssd/dumps", str(tmp_path)))
    assert_same(index.features, dumps)


def test_read_caption_indexes_accepts_captions_without_the_last_experts(tmp_path):
    path, _ = write_index(tmp_path)
    text = re.sub(r"(it stops(\t[\d.]+){5}).*", r"\1", path.read_text())
    path.write_text(text)
    (index,) = read_caption_indexes([path])
    assert index.captions[1].features.keys() == {"seen"}
    assert index.captions[2].features.keys() == {"seen", "heard"}


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
        (5, "24", "25", "line 5: 4 features of seen from byte 25, expected some of the 4"),
        (5, "24", "36", "line 5"),
        (5, "24", "0", "line 5"),
        (5, "\t4\t", "\t5\t", "line 5"),
        (5, "\t4\t", "\t-1\t", "line 5"),
        (
            5,
            "-1\t-1\t0",
            "0\t0\t1",
            "line 5: features of absent, which has none",
        ),
        (5, "-1\t-1\t0", "0\t0", "line 5: .*expected 6 whole numbers"),
        (5, "-1\t-1\t0", "-1\t-1\t0\t1", "line 5: .*expected 9 whole numbers"),
    ],
)
def test_read_caption_indexes_names_file_and_line_of_an_error(tmp_path, line, old, new, message):
    path, _ = write_index(tmp_path)
    lines = path.read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        list(read_caption_indexes([path]))


def test_read_caption_indexes_refuses_the_index_of_another_video(tmp_path):
    path, _ = write_index(tmp_path)
    other = path.rename(tmp_path / "other.capts")
    with pytest.raises(InputError, match=r"line 4: .*there are 4 of '/v/clip.mp4'"):
        list(read_caption_indexes([other]))
    other.write_text("seen\n3\n")
    with pytest.raises(InputError, match=r"other.capts has 2 lines, expected 4"):
        list(read_caption_indexes([other]))

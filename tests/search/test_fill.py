"""An index filled with what `mdmmt batch` has written."""

from __future__ import annotations

import numpy as np
import pytest

import mdmmt
from mdmmt.batch.parts import Parts, Row
from mdmmt.batch.sources import item_id
from mdmmt.errors import InputError
from mdmmt.search import Index
from mdmmt.search.fill import fill_index
from mdmmt.weights.identity import Identity, identity_of

IDENTITY = Identity("a", "ab" * 32, 3)
SETTINGS = {
    "kind": "path",
    "model": IDENTITY._asdict(),
    "experts": ["CLIP"],
    "window_s": 2.0,
    "stride_s": 2.0,
}


def rows_of(path, version="1", windows=2):
    about = Row("", path, None, None, None, "cd", {"CLIP": version}, "file")
    return [
        about._replace(
            id=f"{item_id(path)}-{i}",
            vector=np.float32([len(path), i, 0]),
            span_s=(2.0 * i, 2.0 * i + 2),
        )
        for i in range(windows)
    ]


@pytest.fixture
def parts(tmp_path):
    return Parts(str(tmp_path / "out"))


def write(parts, *rows, settings=SETTINGS):
    parts.write(parts.begin(settings), rows, settings["kind"], IDENTITY.sha256, 3)


def test_each_file_comes_with_its_windows_once(parts, tmp_path):
    write(parts, *rows_of("/a.mkv"), Row("b-0", "/b.mkv", error="no"), *rows_of("/cc.mkv", "1", 3))
    with Index.open(tmp_path / "a.db", IDENTITY) as index:
        assert fill_index(index, parts) == 5
        assert [(file.path, file.segments) for file in index.files()] == [
            ("/a.mkv", 2),
            ("/cc.mkv", 3),
        ]
        vectors, spans_s = index.segments("/cc.mkv")
        assert vectors.tolist() == [[7, 0, 0], [7, 1, 0], [7, 2, 0]]
        assert spans_s.tolist() == [[0, 2], [2, 4], [4, 6]]
        assert fill_index(index, parts) == 0
        index.delete("/a.mkv", keep_out=True)
        assert fill_index(index, parts) == 0


def test_versions_of_an_expert_do_not_mix(parts, tmp_path):
    write(parts, *rows_of("/a.mkv", "1"), *rows_of("/b.mkv", "2"))
    with (
        Index.open(tmp_path / "a.db", IDENTITY) as index,
        pytest.raises(InputError, match=r"^/b.mkv: its features must not be mixed"),
    ):
        fill_index(index, parts)


def test_another_model_and_texts_are_refused(parts, tmp_path):
    write(parts, *rows_of("/a.mkv"))
    sample = mdmmt.load("sample", "cpu")
    with (
        Index.open(tmp_path / "a.db", identity_of(sample.path, sample.config)) as index,
        pytest.raises(InputError, match="holds vectors of the model a, and the index those of"),
    ):
        fill_index(index, parts)
    texts = Parts(str(tmp_path / "texts"))
    write(texts, Row("a-0", "a", np.float32([1, 2, 3])), settings={**SETTINGS, "kind": "text"})
    with (
        Index.open(tmp_path / "b.db", IDENTITY) as index,
        pytest.raises(InputError, match="holds texts"),
    ):
        fill_index(index, texts)

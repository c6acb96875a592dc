"""Building an index from files: what is added, replaced and skipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from media import flat, write_video

import mdmmt
from mdmmt.cli import main
from mdmmt.errors import InputError
from mdmmt.features.files import read_features, write_features
from mdmmt.features.types import ExpertFeatures
from mdmmt.search import Index, index_files, read_metadata


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


@pytest.fixture(scope="module")
def clips(sample_clips) -> Path:
    return sample_clips(6, 7)[0].path.parent


def test_index_files_adds_only_new_windows(clips, tmp_path, model, monkeypatch):
    film = write_video(tmp_path / "film.mkv", flat(range(0, 200, 10)), 10)
    encoded = []
    real = model.encode_segments
    monkeypatch.setattr(
        model, "encode_segments", lambda path, **how: encoded.append(path) or real(path, **how)
    )
    paths = [str(clips / "0.mp4"), str(film), str(tmp_path / "none.mp4")]
    with Index.open(tmp_path / "a.db", model) as index:

        def run(*how, **more) -> list[str]:
            encoded.clear()
            outcomes = list(index_files(index, model, paths, *how, **more))
            assert [bool(outcome.error) for outcome in outcomes] == [False, False, True]
            return list(encoded)

        assert run() == paths[:2]
        assert run() == []
        assert list(index_files(index, model, paths))[2].error.startswith("there is no file")
        write_video(film, flat([9, 8, 7] * 20), 10)  # another film of the same name
        assert run() == [str(film)]
        assert index.count() == 2
        assert run(2.0) == paths[:2]  # other windows take the place of the old ones
        assert index.count() == 5
        assert run(2.0, metadata={str(film): {"year": 2021}}) == []  # no expert is run for that
        hits = index.search(real(film).vectors[0], 9, "year == 2021")
        assert {hit.path for hit in hits} == {str(film)} and len(hits) == 3
        # A file keeps its metadata unless it is given others.
        assert run(2.0) == [] and index.metadata(film) == {"year": 2021}
        write_video(film, flat([1, 2, 3] * 20), 10)
        assert run(2.0, metadata={paths[0]: {"year": 3}}) == [str(film)]
        assert [index.metadata(path) for path in paths] == [{"year": 3}, {"year": 2021}, {}]
        assert run(2.0, metadata={str(film): {}}) == [] and index.metadata(film) == {}
        hits = index.search(real(film).vectors[0], 9, with_vectors=True)
        mine = sorted((hit for hit in hits if hit.path == str(film)), key=lambda hit: hit.start_s)
        expected = real(film, window_s=2.0)
        np.testing.assert_allclose([hit.vector for hit in mine], expected.vectors, atol=1e-6)


def test_index_files_tells_feature_files_of_equal_names_apart(clips, tmp_path, model):
    for folder, clip in (("a", "1.mp4"), ("b", "2.mp4")):
        (tmp_path / "videos" / folder).mkdir(parents=True)
        shutil.copy(clips / clip, tmp_path / "videos" / folder / "x.mp4")
    out = tmp_path / "features"
    assert main(["extract", str(tmp_path / "videos"), f"--out={out}", "--experts=frame"]) == 0
    files = [str(out / folder / "x.mp4.safetensors") for folder in ("a", "b")]
    with Index.open(tmp_path / "a.db", model) as index:
        assert [outcome.result for outcome in index_files(index, model, files)] == [1, 1]
        assert index.count() == 2
        assert all(outcome.result == 0 for outcome in index_files(index, model, files))
        hits = index.search(model.encode_text("a red ball"), 9)
        assert {hit.path for hit in hits} == set(files)
        command = ["extract", str(tmp_path / "videos"), f"--out={out}"]
        assert main([*command, "--experts=frame,motion,sound"]) == 0
        assert all(outcome.result > 0 for outcome in index_files(index, model, files))


def test_index_files_reads_features_in_the_place_of_the_video(clips, tmp_path, model, monkeypatch):
    assert main(["extract", str(clips), f"--out={tmp_path}", "--experts=frame,motion,sound"]) == 0
    encoded = []
    real = model.encode_segments
    monkeypatch.setattr(
        model, "encode_segments", lambda path, **how: encoded.append(path) or real(path, **how)
    )
    path = str(clips / "3.mp4")
    with Index.open(tmp_path / "a.db", model) as index:
        (outcome,) = index_files(index, model, [path], features=tmp_path)
        assert outcome.result == 1 and encoded == [tmp_path / "3.mp4.safetensors"]
        (hit,) = index.search(real(path).vectors[0], 1)
        assert hit.path == path and hit.score == pytest.approx(3, abs=1e-4)
        file = tmp_path / "3.mp4.safetensors"  # to which an expert of another model is added
        features = read_features(file)
        clip = ExpertFeatures(np.ones((1, 512), np.float32), np.array([[0.0, 1.0]]))
        write_features(file, features.with_experts({"CLIP": clip}, {"CLIP": "1"}))
        (outcome,) = index_files(index, model, [path], features=tmp_path)
        assert outcome.result == 0
        assert [outcome.result for outcome in index_files(index, model, [path])] == [0]
        write_features(file, features.with_experts({}, {"frame": "2"}))
        (outcome,) = index_files(index, model, [path], features=tmp_path)
        assert outcome.result > 0 and encoded.pop() == file
        file.write_bytes(b"cut short")
        (outcome,) = index_files(index, model, [path], features=tmp_path)
        assert outcome.result == 0
        other = tmp_path / "3.mp4"  # of the name, and of another content
        write_video(other, flat([1, 2, 3]))
        (outcome,) = index_files(index, model, [str(other)], features=tmp_path)
        assert outcome.result == 1 and encoded[1:] == [str(other)]


@pytest.mark.parametrize(
    "line",
    [
        *(b"no json", b"[]", b'{"year": 3}', b'{"path": ["a"]}', b'{"path": "a.mp4"}', b"\xff"),
        *(b'{"path": "b.mp4", "id": 2}', b'{"path": "b.mp4", "x": 1e999}'),
        b'{"path": "b.mp4", "x": 9223372036854775808}',
        b'{"path": "b.mp4", "x": ' + b"7" * 4000 + b"}",
        b'{"path": "b.mp4", "x": ' + b"7" * 5000 + b"}",
        b'{"path": "b.mp4", "x": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"path": "b.mp4", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"path": "b.mp4", "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    ],
)
def test_read_metadata_names_the_line(line, tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'{"path": "a.mp4"}\n' + line + b"\n")
    with pytest.raises(InputError, match=r"m\.jsonl, line 2") as caught:
        read_metadata(tmp_path / "m.jsonl")
    assert len(str(caught.value)) < 500

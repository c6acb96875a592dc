"""Building an index from files: what is added, replaced and skipped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media import flat, write_video

import mdmmt
from mdmmt.batch.extract import extract_file
from mdmmt.cli import main
from mdmmt.errors import InputError
from mdmmt.features.files import read_features, write_features
from mdmmt.features.types import ExpertFeatures
from mdmmt.media.specs import MEDIA_VERSION
from mdmmt.search import Index, index_file, index_files, read_metadata


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


@pytest.fixture(scope="module")
def clips(sample_clips) -> Path:
    return sample_clips(6, 7)[0].path.parent


@pytest.mark.slow
def test_index_files_adds_only_new_windows(clips, tmp_path, model, monkeypatch, databases):
    film = write_video(tmp_path / "film.mkv", flat(range(0, 200, 10)), 10)
    encoded = []
    real = model.encode_segments
    monkeypatch.setattr(
        model, "encode_segments", lambda path, **how: encoded.append(path) or real(path, **how)
    )
    paths = [str(clips / "0.mp4"), str(film), str(tmp_path / "none.mp4")]
    with Index.open(databases("a"), model) as index:

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


def test_index_files_takes_a_folder(videos, databases, model):
    with Index.open(databases("a"), model) as index:
        outcomes = list(index_files(index, model, str(videos)))
        wanted = [videos / "a.mkv", videos / "deep" / "a.mkv", videos / "silent.mkv"]
        assert [outcome.name for outcome in outcomes] == [str(path) for path in wanted]
        assert [outcome.result for outcome in outcomes] == [1, 1, 1]
        assert [one.result for one in index_files(index, model, [videos, wanted[0]])] == [0] * 4


def test_index_files_leaves_out_what_is_kept_out(clips, databases, model):
    paths = [str(clips / f"{number}.mp4") for number in range(2)]
    with Index.open(databases("a"), model) as index:
        for path in paths:
            index.add(path, model.encode_segments(paths[0]))
        index.delete(*paths, keep_out=True)
        index.delete(paths[1])  # it is not there, so nothing changes
        assert list(index_files(index, model, paths)) == []
        (outcome,) = index_files(index, model, paths[:1], restore=True)
        assert outcome.result == 1
        (outcome,) = index_files(index, model, paths)
        assert (outcome.name, outcome.result) == (paths[0], 0)


def test_index_files_tells_feature_files_of_equal_names_apart(clips, tmp_path, model, databases):
    for folder, clip in (("a", "1.mp4"), ("b", "2.mp4")):
        (tmp_path / "videos" / folder).mkdir(parents=True)
        shutil.copy(clips / clip, tmp_path / "videos" / folder / "x.mp4")
    out = tmp_path / "features"
    assert main(["extract", str(tmp_path / "videos"), f"--out={out}", "--experts=frame"]) == 0
    files = [str(out / folder / "x.mp4.safetensors") for folder in ("a", "b")]
    with Index.open(databases("a"), model) as index:
        assert [outcome.result for outcome in index_files(index, model, files)] == [1, 1]
        assert index.count() == 2
        assert all(outcome.result == 0 for outcome in index_files(index, model, files))
        hits = index.search(model.encode_text("a red ball"), 9)
        assert {hit.path for hit in hits} == set(files)
        command = ["extract", str(tmp_path / "videos"), f"--out={out}"]
        assert main([*command, "--experts=frame,motion,sound"]) == 0
        assert all(outcome.result > 0 for outcome in index_files(index, model, files))


def test_index_files_reads_features_in_the_place_of_the_video(
    clips, tmp_path, model, monkeypatch, databases
):
    assert main(["extract", str(clips), f"--out={tmp_path}", "--experts=frame,motion,sound"]) == 0
    encoded = []
    real = model.encode_segments
    monkeypatch.setattr(
        model, "encode_segments", lambda path, **how: encoded.append(path) or real(path, **how)
    )
    path = str(clips / "3.mp4")
    with Index.open(databases("a"), model) as index:
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
        other = tmp_path / "3.mp4"  # of the name, and of another content
        write_video(other, flat([1, 2, 3]))
        (outcome,) = index_files(index, model, [str(other)], features=tmp_path)
        assert outcome.result == 1 and encoded.pop() == str(other)
        assert index.delete(other) == 1
        write_features(file, features.with_experts({}, {"frame": "2"}))
        (outcome,) = index_files(index, model, [path], features=tmp_path)
        assert outcome.result > 0 and encoded.pop() == file
        file.write_bytes(b"cut short")
        (outcome,) = index_files(index, model, [path], features=tmp_path)
        assert outcome.result == 0


def change_features(file: Path, versions: dict[str, str], clock: str | None = None) -> None:
    """Give a feature file other versions of experts and another clock, as if it were made so."""
    content = read_features(file)
    versions = {**content.versions, **versions}
    write_features(file, replace(content, versions=versions, clock=clock or content.clock))


def outcomes_of(index, model, *paths, **more) -> list[int | str | None]:
    """The number of windows that were added of each file, or the error."""
    run = index_files(index, model, [str(path) for path in paths], **more)
    return [outcome.error or outcome.result for outcome in run]


@pytest.fixture
def features(clips, tmp_path) -> Path:
    """A folder of the features of three clips, which the test may change."""
    folder = tmp_path / "features"
    videos = [str(clips / f"{i}.mp4") for i in range(3)]
    assert main(["extract", *videos, f"--out={folder}", "--experts=frame,motion,sound"]) == 0
    return folder


OTHERS = {
    "a version": ({"motion": "0, media 1"}, None, "the expert motion has the version", "again if"),
    "weights": ({"sound": '1, weights 0_%\\"é'}, None, "the expert sound has the ver", "again if"),
    "a wildcard": ({"frame": "1, media %"}, None, "the expert frame has the version", "again if"),
    "another": ({"frame": f"1_ media {MEDIA_VERSION}"}, None, "the expert frame has", "again if"),
    "a clock": ({}, "track", "their times go by the clock 'track', and by 'file'", "--clock file"),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize(
    "kind",
    [
        "video",
        pytest.param("feature file", marks=pytest.mark.slow),
        pytest.param("video with features", marks=pytest.mark.slow),
    ],
)
def test_index_files_refuses_a_mixture(other, kind, clips, features, databases, model, monkeypatch):
    """Whether the first file is decoded or not, the second one must be of the same experts."""
    versions, clock, *words = OTHERS[other]
    first, second = (clips / f"{i}.mp4" for i in range(2))
    if kind == "feature file":
        first = features / "0.mp4.safetensors"
    more = {"features": features} if kind == "video with features" else {}
    new = features / "1.mp4.safetensors"
    change_features(new, versions, clock)
    with Index.open(databases("a"), model) as index:
        assert outcomes_of(index, model, first, **more) == [1]
        (error,) = outcomes_of(index, model, second, features=features)
        for word in (*words, repr(str(first)), "another database"):
            assert word in error
        assert index.count() == 1
        (same,) = outcomes_of(index, model, new)
        assert same == error
        with pytest.raises(InputError, match="must not be mixed"):
            index_file(index, model, str(second), feature_files=[new])
        # The features of the index's own version are added.
        assert outcomes_of(index, model, second, clips / "2.mp4", features=None) == [1, 1]
    with Index.open(databases("b"), model) as index:
        assert outcomes_of(index, model, new) == [1]
        (error,) = outcomes_of(index, model, first)
        assert "must not be mixed" in error and (not clock or "--clock track" in error)


def test_index_files_takes_features_of_one_other_version(features, databases, model):
    """What counts is that all are the same; a file alone may be replaced by one of any version."""
    files = sorted(features.glob("*.safetensors"))
    for file in files:
        change_features(file, {"frame": "0"}, "track")
    with Index.open(databases("a"), model) as index:
        assert outcomes_of(index, model, *files) == [1, 1, 1]
        assert outcomes_of(index, model, *files) == [0, 0, 0]
        change_features(files[0], {"frame": "1"})
        assert "must not be mixed" in outcomes_of(index, model, files[0])[0]
        for file in files[1:]:
            index.delete(file)
        change_features(files[1], {"frame": "1"})
        assert outcomes_of(index, model, *files[:2]) == [1, 1]
        assert "must not be mixed" in outcomes_of(index, model, files[2])[0]


def test_index_files_compares_the_experts_that_both_have(features, databases, model):
    only_frame = mdmmt.load("sample", "cpu", experts=["frame"])
    files = sorted(features.glob("*.safetensors"))
    change_features(files[0], {"motion": "0"})
    change_features(files[1], {"motion": "2"})
    with Index.open(databases("a"), model) as index:
        assert outcomes_of(index, only_frame, *files[:2]) == [1, 1]
        assert outcomes_of(index, model, files[2]) == [1]
        assert "the expert motion" in outcomes_of(index, model, files[0])[0]


def test_index_files_tells_what_is_not_known_of_an_older_index(
    clips, features, databases, model, monkeypatch, recwarn
):
    """It had no clock, and the versions of the experts only where features were read."""
    path, files = str(clips / "0.mp4"), sorted(features.glob("*.safetensors"))
    with Index.open(databases("a"), model) as index:
        assert outcomes_of(index, model, path, files[1]) == [1, 1]
        for name, known in ((path, False), (str(files[1]), True)):
            source = json.loads(index.source(name))
            del source["clock"]
            if not known:
                source["versions"] = None
            index.add(name, index.segments(name), json.dumps(source))
        index.add("b", index.segments(path), "of another program")
    with Index.open(databases("a"), model) as index:
        assert outcomes_of(index, model, path) == [0] and not recwarn
        with pytest.warns(UserWarning, match="holds files such as .*0.mp4', which an older ver"):
            assert outcomes_of(index, model, files[2]) == [1]
        change_features(files[0], {"frame": "0"})
        with pytest.warns(UserWarning, match="another database to be sure"):
            (error,) = outcomes_of(index, model, files[0])
        assert "the expert frame has the version '0'" in error
        # With its features, a file of the older index is added again; then all is known.
        with pytest.warns(UserWarning, match="holds files such as"):
            assert outcomes_of(index, model, files[1]) == [1]
        index.delete(path)
        recwarn.clear()
        assert outcomes_of(index, model, path) == [1] and not recwarn


def test_index_files_does_not_agree_on_a_file_that_fails(features, databases, model, monkeypatch):
    """It stays of the old version, so a file of the new one is still refused."""
    files = sorted(features.glob("*.safetensors"))
    with Index.open(databases("a"), model) as index:
        assert outcomes_of(index, model, files[0]) == [1]
        for file in files:
            change_features(file, {"frame": "0"})
        real = model.encode_segments

        def encode(path, **how):
            if path == files[0]:
                raise InputError("it is damaged")
            return real(path, **how)

        monkeypatch.setattr(model, "encode_segments", encode)
        first, second = outcomes_of(index, model, *files[:2])
        assert first == "it is damaged" and "must not be mixed" in second


def test_index_files_names_any_path_of_a_mixture(features, tmp_path, model, databases):
    name = 'a "b"\\\n_%é\' or path like "%'
    folder = tmp_path / name.replace("/", "")
    folder.mkdir()
    files = [
        shutil.copy(file, folder / file.name) for file in sorted(features.glob("*.safetensors"))
    ]
    with Index.open(databases("a"), model) as index:
        assert outcomes_of(index, model, files[0]) == [1]
        for file in files:
            change_features(file, {"frame": "0"})
        assert outcomes_of(index, model, files[0], files[1]) == [1, 1]


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


@pytest.mark.slow
def test_index_files_gives_the_same_for_any_number_of_jobs(clips, tmp_path, model):
    paths = [str(clips / f"{i}.mp4") for i in range(5)]
    paths[3:3] = [str(tmp_path / "none.mp4"), paths[0]]  # one that is missing, one that comes twice
    results = []
    for jobs in (1, 2, 3):
        with Index.open(tmp_path / f"{jobs}.db", model) as index:
            outcomes = list(index_files(index, model, paths, 2.0, jobs=jobs))
            vectors = [index.segments(path).vectors for path in paths[:3]]
            assert all(one.result == 0 for one in index_files(index, model, paths[:3], 2.0))
        results.append((outcomes, np.concatenate(vectors).tobytes()))
    assert [one.result for one in results[0][0]][3:5] == [None, 0]
    assert results[0] == results[1] == results[2]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_index_files_refuses_a_mixture_that_is_read_at_the_same_time(
    clips, tmp_path, model, jobs, databases
):
    files = []
    for i, clock in enumerate(("file", "track")):
        files.append(tmp_path / f"{i}.mp4.safetensors")
        extract_file(clips / f"{i}.mp4", files[i], model.reader._load_experts(), clock)
    with Index.open(databases("a"), model) as index:
        first, second = index_files(index, model, map(str, files), jobs=jobs)
        assert first.error is None and "must not be mixed" in second.error

"""Feature files, and the folder of them that `mdmmt extract` writes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from media import flat, write_video
from safetensors.numpy import load_file, save_file

import mdmmt
from mdmmt import experts
from mdmmt.batch.extract import Outcome, extract_files, find_videos, plan
from mdmmt.cli import main
from mdmmt.errors import InputError, WeightsError
from mdmmt.features import files as feature_files
from mdmmt.features.extraction import extract
from mdmmt.features.files import (
    FeatureFile,
    FeatureFolder,
    SourceVideo,
    read_features,
    write_features,
)
from mdmmt.features.types import ExpertFeatures
from mdmmt.storage.files import sha256_of

CLIPS = 80  # of the run that is killed
LIGHT = ",".join(experts.LIGHT_EXPERTS)


@pytest.fixture(scope="module")
def running():
    return experts.load(experts.LIGHT_EXPERTS)


@pytest.fixture
def videos(tmp_path) -> Path:
    """A folder of three films, one of them silent and one deeper down."""
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    tone = 0.3 * np.sin(np.arange(32000) / 5)[None]
    write_video(folder / "a.mkv", flat(range(0, 200, 10)), 10, tone)
    write_video(folder / "deep" / "a.mkv", flat(range(200, 0, -10)), 10, tone / 2)
    write_video(folder / "silent.mkv", flat(range(0, 200, 10)), 10)
    (folder / "notes.txt").write_text("no video")
    return folder


def content(name="a.mkv", n=3):
    rng = np.random.default_rng(0)
    spans = np.stack([np.arange(n), np.arange(n) + 1.0], axis=1)
    features = {"frame": ExpertFeatures(rng.normal(size=(n, 102)), spans)}
    return FeatureFile(features, SourceVideo(name, 5, "ab" * 32), {"frame": "1", "sound": "1"})


def same(a, b) -> bool:
    return list(a) == list(b) and all(
        np.array_equal(x, y) and x.dtype == y.dtype
        for name in a
        for x, y in zip(astuple(a[name]), astuple(b[name]), strict=True)
    )


def test_what_is_written_is_read(tmp_path):
    write_features(tmp_path / "a.safetensors", content())
    read = read_features(tmp_path / "a.safetensors")
    assert same(read.features, content().features)
    assert (read.source, read.versions) == (content().source, content().versions)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_others_may_read_it(tmp_path):
    """Its names are documented, so that a trainer needs only safetensors."""
    write_features(tmp_path / "a.safetensors", content())
    tensors = load_file(tmp_path / "a.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "features.frame": (3, 102),
        "times.frame": (3, 2),
    }
    (tmp_path / "plain").touch()
    modes = {(tmp_path / name).stat().st_mode for name in ("plain", "a.safetensors")}
    assert len(modes) == 1  # readable for whom any new file is


@pytest.mark.parametrize(
    ("tensors", "header", "words"),
    [
        ({"x": np.zeros(2)}, None, "format None"),
        ({}, {"format": feature_files.FORMAT}, "damaged header"),
        ({}, {"format": feature_files.FORMAT, "experts": "[", "source": "{}"}, "damaged header"),
        ({}, {"experts": '{"../evil": "1"}'}, "damaged header"),
        ({}, {"experts": "[5]"}, "damaged header"),
        ({}, {"source": '{"name": 5, "size_bytes": 1, "sha256": "0"}'}, "damaged header"),
        ({"features.frame": np.zeros((2, 3)), "times.frame": np.zeros((2, 2))}, "good", "fit"),
        ({"features.frame": np.zeros((2, 3))}, "good", "frame do not fit"),
        ({"features.frame": np.zeros((2, 3)), "times.frame": np.zeros((3, 2))}, "good", "fit"),
        ({"features.frame": np.zeros((0, 3)), "times.frame": np.zeros((0, 2))}, "good", "fit"),
        ({"features.other": np.zeros((2, 3))}, "good", "features.other.* none of its"),
    ],
)
def test_what_is_no_feature_file_is_refused(tensors, header, words, tmp_path):
    file = tmp_path / "a.safetensors"
    source = {"name": "a", "size_bytes": 1, "sha256": "0"}
    good = {
        "format": feature_files.FORMAT,
        "source": json.dumps(source),
        "experts": json.dumps({"frame": "1"}),
    }
    if header == "good":
        header = good
    elif header is not None and "format" not in header:
        header = good | header
    save_file(tensors, file, header)
    with pytest.raises(InputError, match=words) as caught:
        read_features(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_feature_folder_knows_videos_by_their_names(tmp_path):
    for i, name in enumerate(["a.mp4", "films/1_Film_00.01.02.003.avi", "x/b.mp4", "y/b.mp4"]):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        write_features(path, content(name, n=i + 1))
    folder = FeatureFolder(tmp_path)
    assert {key: len(folder[key]["frame"]) for key in folder if key not in ("b", "b.mp4")} == {
        **dict.fromkeys(("a.mp4", "a"), 1),
        **dict.fromkeys(("1_Film_00.01.02.003.avi", "1_Film_00.01.02.003"), 2),
        **dict.fromkeys(("films/1_Film_00.01.02.003.avi", "films/1_Film_00.01.02.003"), 2),
        **dict.fromkeys(("x/b.mp4", "x/b"), 3),
        **dict.fromkeys(("y/b.mp4", "y/b"), 4),
    }
    assert "y/b" in folder and "b" in folder and "c" not in folder
    with pytest.raises(InputError, match=r"the video 'b' could be any of .*x/b.mp4.*y/b.mp4"):
        folder["b"]
    with pytest.raises(InputError, match="there is no feature file"):
        FeatureFolder(tmp_path / "nowhere")


@pytest.mark.parametrize("data", [b"", b"garbage" * 50])
def test_garbage_is_refused(data, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.safetensors"):
        read_features(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="no file"):
        read_features(tmp_path / "b.safetensors")


def test_extract_writes_a_file_for_each_video(videos, tmp_path, capsys):
    out = tmp_path / "features"
    assert main(["extract", str(videos), "--out", str(out), "--experts", LIGHT]) == 0
    assert "3 of 3 videos" in capsys.readouterr().out
    written = sorted(
        path.relative_to(out).as_posix() for path in out.rglob("[!.]*") if path.is_file()
    )
    assert written == ["a.mkv.safetensors", "deep/a.mkv.safetensors", "silent.mkv.safetensors"]
    for name in written:
        video = videos / name.removesuffix(".safetensors")
        read = read_features(out / name)
        assert same(read.features, extract(video, experts.LIGHT_EXPERTS))
        assert read.source == SourceVideo(video.name, video.stat().st_size, sha256_of(video))
        assert set(read.versions) == set(experts.LIGHT_EXPERTS)
    assert "sound" not in read_features(out / "silent.mkv.safetensors").features


def test_linked_folders_are_looked_into_and_what_cannot_be_is_told(tmp_path, videos, monkeypatch):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "videos").symlink_to(videos)
    (videos / "deep" / "round").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    names = sorted(str(name) for _, name in find_videos([tmp_path / "linked"]))
    assert names == ["gone.mp4", "videos/a.mkv", "videos/deep/a.mkv", "videos/silent.mkv"]
    real = os.scandir

    def scandir(place):
        if os.fspath(place).endswith("deep"):
            raise PermissionError(13, "Permission denied", os.fspath(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)  # root may read all folders
    with pytest.warns(UserWarning, match="deep': Permission denied; the files in it are left out"):
        assert len(find_videos([videos])) == 2


def test_what_nobody_foresaw_in_a_file_stops_no_other(videos, tmp_path, running, monkeypatch):
    real = extract

    def broken(video, some):
        if video.name == "silent.mkv":
            raise AttributeError("no width")
        return real(video, some)

    monkeypatch.setattr("mdmmt.batch.extract.extract", broken)
    outcomes = extract_files(plan(find_videos([videos]), tmp_path / "out"), running)
    assert [one.error for one in outcomes] == [None, None, "AttributeError: no width"]


def test_what_is_done_is_kept_and_what_changed_is_done_anew(videos, tmp_path, running, monkeypatch):
    planned = plan(find_videos([videos]), tmp_path / "out")
    ran = []
    real = extract
    monkeypatch.setattr(
        "mdmmt.batch.extract.extract", lambda v, r: ran.append(v.name) or real(v, r)
    )

    def run(some=running) -> list[str]:
        ran.clear()
        outcomes = list(extract_files(planned, some))
        assert not any(outcome.error for outcome in outcomes)
        assert [outcome.result for outcome in outcomes].count(True) == len(ran)
        return sorted(ran)

    assert len(run()) == 3
    assert run() == []
    write_video(videos / "silent.mkv", flat([1, 2, 3]))  # another film of the same name
    assert run() == ["silent.mkv"]
    (tmp_path / "out" / "a.mkv.safetensors").write_bytes(b"broken")
    assert run() == ["a.mkv"]
    os.utime(videos / "a.mkv")
    assert run() == []
    assert run({"frame": running["frame"]}) == []
    monkeypatch.setattr(type(running["frame"]), "version", "2")
    assert len(run({"frame": running["frame"]})) == 3
    assert run() == []


def test_experts_added_meanwhile_are_kept(videos, tmp_path, running):
    planned = plan([(videos / "a.mkv", Path("a.mkv"))], tmp_path)

    class Slow(type(running["motion"])):
        def features(self, clips):
            list(extract_files(planned, {"frame": running["frame"]}))
            return super().features(clips)

    assert [one.error for one in extract_files(planned, {"motion": Slow()})] == [None]
    assert set(read_features(tmp_path / "a.mkv.safetensors").versions) == {"frame", "motion"}


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O")])
def test_a_file_that_cannot_be_read_is_not_replaced(videos, tmp_path, running, error, monkeypatch):
    planned = plan([(videos / "a.mkv", Path("a.mkv"))], tmp_path)
    list(extract_files(planned, {"frame": running["frame"]}))
    real = Path.open

    def refuse(path, *args, **kwargs):
        if path.suffix == ".safetensors":
            raise error
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        (outcome,) = extract_files(planned, {"motion": running["motion"]})
    assert f"a.mkv.safetensors' cannot be read: {error.strerror}" in outcome.error
    assert set(read_features(tmp_path / "a.mkv.safetensors").versions) == {"frame"}


def test_more_experts_are_added_to_a_file_and_fewer_lose_none(
    videos, tmp_path, running, monkeypatch
):
    planned = plan([(videos / "a.mkv", Path("a.mkv"))], tmp_path)

    def run(*names: str) -> feature_files.FeatureFile:
        list(extract_files(planned, {name: running[name] for name in names}))
        return read_features(tmp_path / "a.mkv.safetensors")

    at_once = run("frame", "motion", "sound")
    (tmp_path / "a.mkv.safetensors").unlink()
    assert set(run("frame").versions) == {"frame"}
    assert set(run("motion", "sound").versions) == {"frame", "motion", "sound"}
    again = run("sound")
    assert same(again.features, at_once.features) and again.versions == at_once.versions
    (videos / "a.mkv").rename(videos / "b.mkv")
    planned = dict.fromkeys(planned, videos / "b.mkv")
    versions = {**at_once.versions, "CLIP": "1"}
    features = {**at_once.features, "CLIP": ExpertFeatures(np.ones((1, 512)), np.array([[0.0, 1]]))}
    file = tmp_path / "a.mkv.safetensors"
    write_features(file, FeatureFile(features, at_once.source, versions))
    with monkeypatch.context() as patch:
        patch.setattr(type(running["frame"]), "version", "2")
        again = run("frame")
    assert again.source.name == "b.mkv" and set(again.versions) == set(versions)
    # Of experts of other models, this one takes nothing.
    model = mdmmt.load("sample", "cpu")
    expected = model.encode_video(videos / "b.mkv")
    np.testing.assert_array_equal(model.encode_video(file), expected)
    assert len(model.encode_segments(file).vectors) == 1
    write_features(file, FeatureFile({"CLIP": features["CLIP"]}, at_once.source, {"CLIP": "1"}))
    for call in (model.encode_video, model.encode_segments, model.extract):
        with pytest.raises(
            InputError, match=r"a\.mkv\.safetensors' has no features of the experts"
        ):
            call(file)
    # Another film: what was found before is not of it.
    write_video(videos / "b.mkv", flat([9, 9]))
    assert set(run("motion").versions) == {"motion"}


def test_two_videos_of_one_name_are_refused_before_any_work(videos, tmp_path, capsys):
    files = [str(videos / "a.mkv"), str(videos / "deep" / "a.mkv")]
    assert main(["extract", *files, "--out", str(tmp_path / "out"), "--experts=frame"]) == 1
    error = capsys.readouterr().err
    assert all(file in error for file in files) and not (tmp_path / "out").exists()
    assert main(["extract", files[0], files[0], f"--out={tmp_path}", "--experts=frame"]) == 0


def test_a_folder_without_videos_and_unknown_experts_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["extract", str(tmp_path / "empty"), f"--out={tmp_path}", "--experts=frame"]) == 1
    assert "no video in the folder" in capsys.readouterr().err
    assert main(["extract", "a.mp4", f"--out={tmp_path}", "--experts=speech"]) == 1
    assert "'speech' cannot be run" in capsys.readouterr().err


def test_missing_weights_of_an_expert_end_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MDMMT_EXPERTS", str(tmp_path))
    assert main(["extract", "a.mp4", "--out", str(tmp_path / "out")]) == 1
    assert "irCSN_152" in capsys.readouterr().err


def test_a_fifth_of_the_files_is_broken(tmp_path, capsys):
    """Twenty percent: nothing else is lost, each is named with its reason, and the status is 1."""
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    broken = {
        2: b"",
        7: b"A text that calls itself a video.\n" * 9,
        11: np.random.default_rng(0).bytes(5000),
        16: None,  # a link to nowhere
    }
    for i in range(20):
        path = folder / f"{i:02}.mkv"
        if i not in broken:
            write_video(path, flat([i, 2 * i]))
        elif broken[i] is None:
            continue
        else:
            path.write_bytes(broken[i])
    paths = [str(folder / f"{i:02}.mkv") for i in range(20)]
    assert main(["extract", *paths, "--out", str(out), "--experts=frame"]) == 1
    printed = capsys.readouterr()
    assert "16 of 20 videos" in printed.out
    assert [line for line in printed.err.splitlines() if line.startswith("mdmmt: ")] == (
        printed.err.splitlines()
    )
    assert all(paths[i] in printed.err for i in broken) and printed.err.count("\n") == len(broken)
    assert len(list(out.glob("[!.]*"))) == 16


@pytest.mark.slow
def test_a_run_killed_at_any_moment_leaves_only_whole_files(tmp_path):
    """SIGKILL at 20 random moments; then a last run finishes what is missing, and only that."""
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for i in range(CLIPS):
        write_video(folder / f"{i:02}.mkv", flat([i, 2 * i, 3 * i]))
    arguments = ["extract", str(folder), f"--out={out}", "--experts=frame"]
    rng = random.Random(0)
    # Each run is a fork of one interpreter, since its imports take longer than the work.
    forker = (
        "import os, sys, mdmmt, mdmmt.media.decode, mdmmt.batch.extract\n"
        "from mdmmt.cli import main\n"
        "for line in sys.stdin:\n"
        "    pid = os.fork()\n"
        "    if not pid: os._exit(main(sys.argv[1:]))\n"
        "    print(pid, flush=True)\n"
        "    os.waitpid(pid, 0)\n"
        "    print('ended', flush=True)\n"
    )
    counts = []
    with subprocess.Popen(
        [sys.executable, "-c", forker, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        for turn in range(20):
            before = written(out)
            process.stdin.write("\n")
            process.stdin.flush()
            pid = int(_number(process))
            while turn % 2 and written(out) == before < CLIPS:  # every other time it gets that far
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.03))
            with contextlib.suppress(ProcessLookupError):  # it is done
                os.kill(pid, signal.SIGKILL)
            while process.stdout.readline() != "ended\n":
                pass
            for file in out.glob("*.safetensors"):
                assert set(read_features(file).features) == {"frame"}
            counts.append(written(out))
        process.stdin.close()
    assert counts == sorted(counts) and len(set(counts)) > 5
    assert main(arguments) == 0
    assert written(out) == CLIPS


def written(out: Path) -> int:
    return len(list(out.glob("*.safetensors")))


def _number(process) -> str:
    while not (line := process.stdout.readline().strip()).isdigit():
        assert line or process.poll() is None
    return line


def test_features_embed_as_their_video_does(videos, tmp_path):
    out = tmp_path / "out"
    main(["extract", str(videos), "--out", str(out), "--experts", LIGHT])
    model = mdmmt.load("sample", "cpu")
    for name in ("a.mkv", "deep/a.mkv", "silent.mkv"):
        np.testing.assert_array_equal(
            model.encode_video(out / f"{name}.safetensors"), model.encode_video(videos / name)
        )
    result = tmp_path / "vectors.npy"
    paths = [str(out / "a.mkv.safetensors"), str(tmp_path / "none.mkv"), str(videos / "silent.mkv")]
    assert main(["embed", *paths, "--weights=sample", f"--out={result}"]) == 1
    rows = np.load(result)
    assert np.isnan(rows[1]).all()
    expected = model.encode_video([videos / "a.mkv", videos / "silent.mkv"])
    np.testing.assert_allclose(rows[[0, 2]], expected, atol=1e-6)


def test_extract_files_says_whether_it_wrote_a_file(videos, tmp_path, running):
    planned = plan([(videos / "a.mkv", Path("a.mkv"))], tmp_path)
    name = str(videos / "a.mkv")
    assert list(extract_files(planned, {"frame": running["frame"]})) == [Outcome(name, True)]
    assert (tmp_path / "a.mkv.safetensors").is_file()
    assert list(extract_files(planned, {"frame": running["frame"]})) == [Outcome(name, False)]


def test_dumps_on_the_command_line(videos, tmp_path, capsys):
    """Feature files to dumps and back; times have two decimals there."""
    out, dumps, back = (tmp_path / name for name in ("out", "dumps", "back"))
    names = ("a.mkv", "silent.mkv")
    main(["extract", *(str(videos / n) for n in names), f"--out={out}", "--experts", LIGHT])
    files = [out / f"{name}.safetensors" for name in names]
    assert main(["dumps", "write", *map(str, files), f"--out={dumps}"]) == 0
    written = sorted(path.name for path in dumps.iterdir())
    assert written == sorted(
        f"{e}.{kind}" for e in experts.LIGHT_EXPERTS for kind in ("emb", "idx")
    )
    given = [f"{name}={dumps / name}" for name in experts.LIGHT_EXPERTS]
    first = experts.LIGHT_EXPERTS[0]
    assert main(["dumps", "read", *given, f"--out={back}"]) == 0
    for file, name in zip(files, ("a", "silent"), strict=True):
        before, after = read_features(file), read_features(back / f"{name}.safetensors")
        assert same(before.features, after.features)
        assert after.source == SourceVideo(name, None, None)
    assert main(["dumps", "read", given[0], f"--out={back}"]) == 0  # which loses no other expert
    assert set(read_features(back / "a.safetensors").versions) == set(experts.LIGHT_EXPERTS)
    # Nor does a dump of other videos, named beside one of this video.
    assert main(["dumps", "write", str(files[1]), f"--out={tmp_path / 'part'}"]) == 0
    part = f"{first}={tmp_path / 'part' / first}"
    assert main(["dumps", "read", part, given[1], f"--out={back}"]) == 0
    assert set(read_features(back / "a.safetensors").features) == set(experts.LIGHT_EXPERTS)
    assert main(["dumps", "read", "CLIP", f"--out={back}"]) == 1
    assert "expected EXPERT=PREFIX" in capsys.readouterr().err


def test_numbers_that_numpy_lacks_are_refused(tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch

    write_features(tmp_path / "a.safetensors", content())
    header = {"format": feature_files.FORMAT, "experts": '{"frame": "1"}'}
    header["source"] = '{"name": "a", "size_bytes": 1, "sha256": "0"}'
    tensors = {"features.frame": torch.zeros(2, 3, dtype=torch.bfloat16)}
    save_torch(tensors, tmp_path / "a.safetensors", header)
    with pytest.raises(InputError, match=r"a\.safetensors"):
        read_features(tmp_path / "a.safetensors")


def test_a_run_says_at_once_what_would_lose_it(videos, tmp_path, capsys, monkeypatch):
    film, missing = str(videos / "a.mkv"), tmp_path / "no folder" / "a.npy"
    assert main(["embed", film, "--weights=sample", f"--out={missing}"]) == 1
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "a.npy").mkdir()
    assert main(["embed", film, "--weights=sample", f"--out={tmp_path / 'a.npy'}"]) == 1
    assert "is a folder, expected the name of a file" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda *_: False)  # what it is to root says nothing
    assert main(["embed", film, "--weights=sample", f"--out={tmp_path / 'b.npy'}"]) == 1
    assert "'b.npy' may not be written into the folder" in capsys.readouterr().err
    monkeypatch.undo()
    texts = ["embed", "--text=a ball", "--weights=sample", f"--out={tmp_path / 'a.jsonl'}"]
    assert main([*texts, "--segments=windows"]) == 1
    assert "not for --text" in capsys.readouterr().err


def test_missing_weights_of_one_file_lose_no_other(videos, tmp_path, capsys, monkeypatch):
    """Feature files embed without the experts that a video beside them would need."""
    main(["extract", str(videos / "a.mkv"), f"--out={tmp_path}", "--experts", LIGHT])

    def gone(*_args, **_how):
        raise WeightsError("the weights of an expert are not there")

    monkeypatch.setattr("mdmmt.features.reader.load_experts", gone)
    paths = [str(tmp_path / "a.mkv.safetensors"), str(videos / "silent.mkv")]
    out = tmp_path / "a.npy"
    assert main(["embed", *paths, "--weights=sample", f"--out={out}"]) == 1
    assert "silent.mkv: the weights of an expert" in capsys.readouterr().err
    rows = np.load(out)
    assert np.isfinite(rows[0]).all() and np.isnan(rows[1]).all()


@pytest.mark.slow
def test_update_features_keeps_what_another_process_adds_meanwhile(tmp_path):
    """Two processes read the same file before either writes; a barrier holds them there."""
    program = """
import sys, time
from pathlib import Path
import numpy as np
from mdmmt.features import files
from mdmmt.features import ExpertFeatures, SourceVideo

folder, name = Path(sys.argv[1]), sys.argv[2]
read = files.read_existing

def slow_read(*args):
    content = read(*args)
    time.sleep(0.5)  # without the lock the other process reads in this time, too
    return content

files.read_existing = slow_read
(folder / f"ready-{name}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.01)
features = {name: ExpertFeatures(np.ones((1, 2)), np.array([[0.0, 1.0]]))}
files.update_features(folder / "a.safetensors", SourceVideo("a", 1, "0"), features, {name: "1"})
"""
    names = ("frame", "motion")
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in names
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    assert set(read_features(tmp_path / "a.safetensors").features) == set(names)

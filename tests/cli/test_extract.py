"""`mdmmt extract`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from feature_files import same
from media import BIG_BUCK_BUNNY, ffmpeg, flat, footage, write_video

import mdmmt
from mdmmt import experts
from mdmmt.batch.extract import extract_files, plan
from mdmmt.cli import main
from mdmmt.errors import InputError
from mdmmt.features import files as feature_files
from mdmmt.features.extraction import extract
from mdmmt.features.files import (
    FeatureFile,
    SourceVideo,
    read_features,
    write_features,
)
from mdmmt.features.types import ExpertFeatures
from mdmmt.storage.files import sha256_of

LIGHT = ",".join(experts.LIGHT_EXPERTS)


def written(out: Path) -> int:
    return len(list(out.glob("*.safetensors")))


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


def test_extract_adds_experts_to_a_file_and_loses_none(videos, tmp_path, running, monkeypatch):
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


def test_extract_refuses_two_videos_of_one_name(videos, tmp_path, capsys):
    files = [str(videos / "a.mkv"), str(videos / "deep" / "a.mkv")]
    assert main(["extract", *files, "--out", str(tmp_path / "out"), "--experts=frame"]) == 1
    error = capsys.readouterr().err
    assert all(file in error for file in files) and not (tmp_path / "out").exists()
    assert main(["extract", files[0], files[0], f"--out={tmp_path}", "--experts=frame"]) == 0


def test_extract_refuses_a_folder_without_videos_and_unknown_experts(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["extract", str(tmp_path / "empty"), f"--out={tmp_path}", "--experts=frame"]) == 1
    assert "no file in the folder" in capsys.readouterr().err
    (tmp_path / "empty" / "notes.txt").touch()
    assert main(["extract", str(tmp_path / "empty"), f"--out={tmp_path}", "--experts=frame"]) == 1
    assert "no video in the folder" in capsys.readouterr().err
    (tmp_path / "a.mp4").touch()
    command = ["extract", str(tmp_path / "a.mp4"), f"--out={tmp_path}"]
    assert main([*command, "--experts=speech"]) == 1
    assert "'speech' cannot be run" in capsys.readouterr().err


def test_extract_says_in_one_line_that_a_file_is_a_still_picture(tmp_path, capsys):
    still = write_video(tmp_path / "still.mkv", flat([90]))
    assert main(["extract", str(still), "--out", str(tmp_path / "out"), "--experts=frame"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mdmmt: {str(still)!r} is a still picture")


def test_extract_ends_if_weights_of_an_expert_are_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MDMMT_EXPERTS", str(tmp_path))
    video = tmp_path / "a.mp4"
    video.touch()
    assert main(["extract", str(video), "--out", str(tmp_path / "out")]) == 1
    assert "irCSN_152" in capsys.readouterr().err


def test_extract_runs_the_experts_of_the_usual_model(videos, tmp_path, monkeypatch, capsys):
    command = ["extract", str(videos / "a.mkv"), f"--out={tmp_path}"]
    monkeypatch.setenv("MDMMT_WEIGHTS", "sample")
    assert main([*command, "--experts=frame"]) == 0
    file = tmp_path / "a.mkv.safetensors"
    assert set(read_features(file).versions) == {"frame"}
    assert main(command) == 0
    assert set(read_features(file).versions) == set(experts.LIGHT_EXPERTS)
    monkeypatch.setenv("MDMMT_WEIGHTS", str(tmp_path / "none"))
    assert main(command) == 1
    assert "MDMMT_WEIGHTS is" in capsys.readouterr().err


def test_extract_names_the_fifth_of_the_files_that_is_broken(tmp_path, capsys):
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
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT")
@pytest.mark.parametrize("jobs", [1, 3])
def test_extract_ends_at_once_after_ctrl_c_and_keeps_what_is_done(tmp_path, jobs):
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for i in range(8):
        # The last ones take minutes, and nothing of them is done when the run is interrupted.
        times = "0" if i < 2 else "60"
        loop = ["-stream_loop", times, "-i", footage(BIG_BUCK_BUNNY), "-an", "-c", "copy"]
        ffmpeg(*loop, folder / f"{i}.mkv")
    command = [sys.executable, "-m", "mdmmt", "extract", str(folder), f"--out={out}"]
    command += ["--experts", LIGHT, f"--jobs={jobs}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            end_s = time.monotonic() + 60
            while written(out) < 2:
                assert process.poll() is None and time.monotonic() < end_s
                time.sleep(0.01)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            begun_s = time.monotonic()
            _, error = process.communicate(timeout=20)
            took_s = time.monotonic() - begun_s
        finally:
            process.kill()
    assert (process.returncode, error) == (130, b"mdmmt: interrupted\n")
    assert took_s < 5  # it is below 1 on a machine that has nothing else to do
    assert written(out) == 2 and not list(out.glob("*part*"))
    for file in out.glob("*.safetensors"):
        assert set(read_features(file).features) == {"frame", "motion"}

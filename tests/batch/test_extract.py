"""Many videos to a folder of feature files."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from media import film, flat, write_video
from safetensors import safe_open
from safetensors.numpy import save_file

from mdmmt import experts
from mdmmt.batch.extract import Outcome, extract_file, extract_files, plan
from mdmmt.cli import main
from mdmmt.errors import InputError
from mdmmt.features import files
from mdmmt.features.extraction import extract
from mdmmt.features.files import read_features
from mdmmt.features.listing import find_videos

CLIPS = 80  # of the run that is killed


def written(out: Path) -> int:
    return len(list(out.glob("*.safetensors")))


def _number(process) -> str:
    while not (line := process.stdout.readline().strip()).isdigit():
        assert line or process.poll() is None
    return line


def test_extract_files_goes_on_after_an_unforeseen_error(videos, tmp_path, running, monkeypatch):
    real = extract

    def broken(video, some, **how):
        if video.name == "silent.mkv":
            raise AttributeError("no width")
        return real(video, some, **how)

    monkeypatch.setattr("mdmmt.batch.extract.extract", broken)
    outcomes = extract_files(plan(find_videos([videos]), tmp_path / "out"), running)
    assert [one.error for one in outcomes] == [None, None, "AttributeError: no width"]


def test_extract_files_skips_finished_videos_and_redoes_changed_ones(
    videos, tmp_path, running, monkeypatch
):
    planned = plan(find_videos([videos]), tmp_path / "out")
    ran = []
    real = extract
    monkeypatch.setattr(
        "mdmmt.batch.extract.extract", lambda v, r, **how: ran.append(v.name) or real(v, r, **how)
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


def test_extract_files_keeps_experts_that_are_added_meanwhile(videos, tmp_path, running):
    planned = plan([(videos / "a.mkv", Path("a.mkv"))], tmp_path)

    class Slow(type(running["motion"])):
        def features(self, clips):
            list(extract_files(planned, {"frame": running["frame"]}))
            return super().features(clips)

    assert [one.error for one in extract_files(planned, {"motion": Slow()})] == [None]
    assert set(read_features(tmp_path / "a.mkv.safetensors").versions) == {"frame", "motion"}


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O")])
def test_extract_files_replaces_no_file_that_it_cannot_read(
    videos, tmp_path, running, error, monkeypatch
):
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


@pytest.mark.slow
def test_extract_killed_at_any_moment_leaves_only_whole_files(tmp_path):
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


def test_extract_files_says_whether_it_wrote_a_file(videos, tmp_path, running):
    planned = plan([(videos / "a.mkv", Path("a.mkv"))], tmp_path)
    name = str(videos / "a.mkv")
    assert list(extract_files(planned, {"frame": running["frame"]})) == [Outcome(name, True)]
    assert (tmp_path / "a.mkv.safetensors").is_file()
    assert list(extract_files(planned, {"frame": running["frame"]})) == [Outcome(name, False)]


def test_extract_file_says_why_it_does_a_file_again(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="mdmmt")
    video = write_video(tmp_path / "a.mkv", flat(list(range(20))))
    file = tmp_path / "a.mkv.safetensors"
    running = experts.load(["frame", "motion"])

    def run(clock="file"):
        caplog.clear()
        return extract_file(video, file, running, clock), caplog.text

    assert run() == (True, "") and run() == (False, "")
    assert read_features(file).clock == "file"
    done, why = run("track")
    assert done and "frame are made again: their times go by the clock 'file'" in why
    assert read_features(file).clock == "track" and run("track") == (False, "")
    with pytest.raises(InputError, match="features of motion go by the clock 'track'"):
        extract_file(video, file, {"frame": running["frame"]}, "file")
    assert read_features(file).clock == "track"
    done, why = run()
    assert done and "'file' is wanted" in why
    for change in (
        lambda: monkeypatch.setattr(type(running["frame"]), "version", "2"),
        lambda: monkeypatch.setattr(files, "MEDIA_VERSION", "next"),
    ):
        change()
        done, why = run()
        assert done and "frame are made again: they are of version" in why
        assert run() == (False, "")
    assert "motion are made again" in why and "media next" in why
    file.write_bytes(file.read_bytes()[:99])
    done, why = run()
    assert done and "is made again: it is damaged" in why
    write_video(video, flat([7] * 20))
    done, why = run()
    assert done and "is made again: it is of another video" in why


def test_extract_file_takes_files_without_a_clock_for_those_of_the_authors_clock(tmp_path):
    video = write_video(tmp_path / "a.mkv", flat(list(range(20))))
    file, running = tmp_path / "a.mkv.safetensors", experts.load(["frame"])
    extract_file(video, file, running, "track")
    with safe_open(file, framework="numpy") as old:
        header = {key: text for key, text in old.metadata().items() if key != "clock"}
        save_file({name: old.get_tensor(name) for name in old.keys()}, file, header)  # noqa: SIM118
    assert read_features(file).clock == "track"
    assert not extract_file(video, file, running, "track")
    assert extract_file(video, file, running)


@pytest.mark.slow
def test_extract_files_writes_the_same_bits_for_any_number_of_jobs(videos, tmp_path, running):
    (videos / "broken.mp4").write_bytes(b"this is no video" * 100)
    for seconds in (3, 9, 27):
        film(videos / f"{seconds}.mkv", seconds)
    results = {}
    for jobs in (1, 2, 3):
        out = tmp_path / str(jobs)
        outcomes = list(extract_files(plan(find_videos([videos]), out), running, jobs=jobs))
        assert [one.error is None for one in outcomes].count(False) == 1
        contents = {}
        for file in out.rglob("*.safetensors"):
            content = read_features(file)
            arrays = [
                (one.values.tobytes(), one.times_s.tobytes()) for one in content.features.values()
            ]
            contents[file.relative_to(out)] = (content.versions, list(content.features), arrays)
        assert len(contents) == 6
        results[jobs] = outcomes, contents
    assert results[1] == results[2] == results[3]


def test_extract_files_runs_the_experts_one_at_a_time_in_the_calling_thread(
    videos, tmp_path, running
):
    threads = []

    class Watched(type(running["frame"])):
        def features(self, clips):
            threads.append(threading.current_thread())
            return super().features(clips)

    planned = plan(find_videos([videos]), tmp_path / "out")
    assert not any(one.error for one in extract_files(planned, {"frame": Watched()}, jobs=3))
    assert set(threads) == {threading.current_thread()} and len(threads) >= 3

"""The estimate of a run, beside a real one."""

from __future__ import annotations

import re
import shutil
import time

import pytest
from media import film

from mdmmt.batch import estimate
from mdmmt.batch.estimate import estimate_extraction, seconds_of
from mdmmt.batch.extract import extract_files, plan
from mdmmt.cli import main
from mdmmt.errors import InputError
from mdmmt.features.listing import find_videos


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for seconds in (20, 40):
        film(folder / f"{seconds}.mkv", seconds)
    for i in range(4):
        shutil.copy(folder / "40.mkv", folder / f"more{i}.mkv")
    return folder


@pytest.mark.slow
def test_an_estimate_is_close_to_a_real_run(films, tmp_path, running):
    planned = plan(find_videos([films]), tmp_path / "out")
    told = estimate_extraction(planned, running, jobs=2)
    assert not (tmp_path / "out").exists()
    begun_s = time.perf_counter()
    assert not any(outcome.error for outcome in extract_files(planned, running, jobs=2))
    took_s = time.perf_counter() - begun_s
    size = sum(file.stat().st_size for file in planned)
    assert (told.videos, told.unreadable) == (6, 0) and told.seconds == pytest.approx(220, abs=1)
    assert told.size_bytes == pytest.approx(size, rel=0.05)
    assert took_s / 4 < told.time_s < took_s * 4  # on a machine that is busy with other things
    assert estimate_extraction(planned, running) is None
    next(iter(planned)).unlink()
    assert estimate_extraction(planned, running).videos == 1


def test_seconds_of_more_videos_than_are_opened_follow_from_their_sizes(films, monkeypatch):
    paths = [str(path) for path, _ in find_videos([films])]
    exact = seconds_of(paths)
    assert sum(exact.values()) == pytest.approx(220, abs=1)
    monkeypatch.setattr(estimate, "MAX_HEADERS", 3)
    guessed = seconds_of(paths)
    assert sum(guessed.values()) == pytest.approx(220, rel=0.1) and set(guessed) == set(exact)
    assert set(seconds_of(paths, 5.0).values()) == {5.0}
    assert seconds_of(["none.mp4", "a.mkv.safetensors"]) == {} == seconds_of([])


def test_an_estimate_needs_a_video_that_can_be_read(tmp_path, running):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    planned = plan(find_videos([tmp_path]), tmp_path / "out")
    with pytest.raises(InputError, match="tells a duration"):
        estimate_extraction(planned, running)


@pytest.mark.slow
def test_dry_run_prints_the_estimate_and_writes_nothing(films, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["extract", str(films), f"--out={out}", "--experts=frame"]
    assert main([*command, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"features of 6 of 6 videos are missing: 2\d\d seconds of video", printed)
    assert re.search(r"estimate: \d+ seconds?, [\d.]+ kB on the disk", printed)
    assert not list(out.glob("**/*.safetensors"))
    assert main(command) == 0 and main([*command, "--dry-run"]) == 0
    assert "6 of 6 videos have their features" in capsys.readouterr().out

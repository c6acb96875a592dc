"""Damaged media files give clips or an `InputError`, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import fuzz_media
import pytest

SECONDS = 30
FINDINGS = [  # container and seed of mutations that once broke a promise
    (".mp4", 153),  # a tag that is not UTF-8
    (".webm", 249),
    (".mp4", 317),
    (".webm", 372),
    (".mp4", 419),
    (".flv", 157),  # a packet of a track that the header does not announce
]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    names = {container for container, _ in FINDINGS}
    return {container: fuzz_media.original(folder, container) for container in names}


@pytest.mark.parametrize(("container", "seed"), FINDINGS)
def test_extract_keeps_its_promises_for_former_findings(container, seed, originals, tmp_path):
    path = tmp_path / f"mutated{container}"
    path.write_bytes(fuzz_media.mutate(originals[container], seed))
    assert fuzz_media.read(path) is None


@pytest.mark.slow
def test_extract_survives_mutated_files(tmp_path):
    """In a process of its own, with bounded memory: a crash of a decoder must not end the tests."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "fuzz_media", f"--seconds={SECONDS}", f"--log={log}"]
    done = subprocess.run(
        command,
        cwd=Path(fuzz_media.__file__).parent,
        capture_output=True,
        text=True,
        timeout=SECONDS + 10 * fuzz_media.MAX_SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr[-2000:]} at {log.read_text()}"
    assert json.loads(done.stdout.splitlines()[-1])["findings"] == 0

"""`mdmmt batch` on a Ray cluster: faults and memory, in some minutes. `make test-ray` runs them."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from parquet_parts import rows_in
from ray_cluster import RayCluster, wait_for

SAMPLE = "--weights=sample"
FILMS = 40


@pytest.fixture
def cluster(tmp_path):
    pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'mdmmt[ray]'")
    (tmp_path / "hook").mkdir()
    cluster = RayCluster(tmp_path / "hook")
    yield cluster
    cluster.close()


@pytest.fixture
def films(videos):
    """Films that take some time each, and a tenth that cannot be read."""
    for i in range(FILMS):
        if i % 10:
            shutil.copy(videos / "silent.mkv", videos / f"slow {i}.mkv")
        else:
            (videos / f"broken {i}.mkv").write_text("no film")
    return videos


def check_all_there(out: Path, films: Path) -> None:
    paths = {str(file) for file in films.rglob("*.mkv")}
    rows = rows_in(out)
    assert len(rows) == len(paths)
    assert {row["path"] for row in rows} == paths
    broken = {row["path"] for row in rows if row["error"] is not None}
    assert broken == {path for path in paths if "broken" in path}


def has_parts(out: Path, count: int):
    return lambda: len(list(out.glob("*.parquet"))) >= count


def test_a_node_is_removed_and_one_is_added(cluster, films, tmp_path):
    out = tmp_path / "out"
    process = cluster.start(films, "--out", out, SAMPLE)
    wait_for(has_parts(out, 1))
    cluster.ask("remove node")
    wait_for(has_parts(out, 3))
    cluster.ask("add node")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1, err  # as some films are broken
    assert "has died" not in err
    check_all_there(out, films)


def test_the_head_is_killed_and_the_next_run_goes_on(cluster, films, tmp_path):
    out = tmp_path / "out"
    process = cluster.start(films, "--out", out, SAMPLE)
    wait_for(has_parts(out, 2))
    cluster.ask("remove head")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "the same command goes on from there" in err.splitlines()[-1]
    assert "Traceback" not in err
    before = {file: file.stat().st_mtime_ns for file in out.glob("*.parquet")}
    done = cluster.run(films, "--out", out, SAMPLE, cluster=False)
    assert "items were done before" in done.stdout
    check_all_there(out, films)
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_memory_does_not_grow_with_the_items(cluster, tmp_path):
    """With a hundred times the items, no worker takes more than its batches, and none spills."""
    peaks = []
    for count in (200, 20_000):
        source = tmp_path / f"{count}.txt"
        source.write_text("\n".join(f"a red circle moves left, take {i}" for i in range(count)))
        process = cluster.start("--texts", source, "--out", tmp_path / f"out {count}", SAMPLE)
        peaks.append(0.0)
        while process.poll() is None:
            peaks[-1] = max([peaks[-1], *map(own_bytes, cluster.workers())])
            time.sleep(0.2)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert f"{count} texts of {count} of {count} items embedded" in out
        assert len(rows_in(tmp_path / f"out {count}")) == count
    print(" and ".join(f"{peak / 1e6:.0f} MB" for peak in peaks))
    assert peaks[1] < peaks[0] + 200e6
    logs = [log.read_text(errors="replace") for log in Path(cluster.session).rglob("raylet*.out")]
    assert logs and not any("Spilled" in log for log in logs)


def own_bytes(pid: int) -> float:
    """The bytes of a process that it shares with no other."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

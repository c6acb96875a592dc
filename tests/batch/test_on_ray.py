"""`mdmmt batch` on a Ray cluster of three nodes; tests/clusters has the tests that take longer."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest
from parquet_parts import rows_in
from ray_cluster import RayCluster, wait_for

import mdmmt
from mdmmt.batch.embed import embed_texts, embed_windows
from mdmmt.batch.on_ray import Actors, _count_actors, check_address
from mdmmt.cli import main
from mdmmt.errors import InputError
from mdmmt.search import Index

SAMPLE = "--weights=sample"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'mdmmt[ray]'")
    cluster = RayCluster(tmp_path_factory.mktemp("hook"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def sample():
    return mdmmt.load("sample", "cpu")


def ray_test(function):
    return pytest.mark.ray(pytest.mark.slow(function))


@ray_test
def test_a_cluster_gives_the_rows_of_one_process(cluster, sample, videos, tmp_path):
    for i in range(9):  # of which each gets its row
        shutil.copy(videos / "a.mkv", videos / f"copy {i}.mkv")
    (videos / "broken.mp4").write_text("no film")
    shutil.copy(videos / "a.mkv", videos / "poison.mkv")  # kills the process that opens it
    out, features, db = tmp_path / "out", tmp_path / "features", tmp_path / "a.db"
    options = [videos, "--out", out, SAMPLE, "--features", features, "--window=1", "--stride=0.5"]
    done = cluster.run(*options, "--gpus-per-actor=0.5", "--memory-per-actor=0.1", "--db", db)
    assert done.returncode == 1, done.stderr
    assert "of 12 of 14 items embedded, written to" in done.stdout
    assert f"{videos / 'poison.mkv'}: the process that worked on it has died" in done.stderr
    assert f"{str(videos / 'broken.mp4')!r} is not a video that can be read" in done.stderr

    names = [str(file) for file in sorted(videos.rglob("*.m*")) if "poison" not in file.name]
    expected = list(embed_windows(sample, names, 1.0, 0.5))
    rows = rows_in(out)
    assert len(rows) == len({row["id"] for row in rows}) == len(expected) + 1
    by_place = {(row["path"], row["start_s"]): row for row in rows}
    for one in expected:
        row = by_place[one.name, one.span_s[0] if one.span_s else None]
        assert (row["error"] is None) == (one.error is None)
        if one.vector is not None:
            assert row["end_s"] == one.span_s[1]
            np.testing.assert_array_equal(np.float32(row["vector"]), one.vector)
            assert row["features"] == f"{features}{row['path'][len(str(videos)) :]}.safetensors"
            assert row["versions"] and row["model"]

    again = cluster.run(*options)
    assert (again.returncode, again.stderr) == (0, done.stderr.splitlines()[0] + "\n")
    assert "0 items embedded" in again.stdout
    assert "14 items were done before, 2 of them failed" in again.stdout
    assert rows_in(out) == rows
    # The index has all that `mdmmt index build` would add, and takes it for its own.
    with Index.open(db, sample) as index:
        assert index.count() == sum(one.vector is not None for one in expected)
        segments = index.segments(names[0])
    expected_segments = sample.encode_segments(names[0], window_s=1.0, stride_s=0.5)
    np.testing.assert_array_equal(segments.vectors, expected_segments.vectors)
    build = [names[0], "--db", str(db), SAMPLE, "--window=1", "--stride=0.5"]
    assert main(["index", "build", *build]) == 0


@ray_test
def test_a_cluster_embeds_texts_as_one_process_does(cluster, sample, tmp_path):
    texts = [
        f"a {size} circle moves {way} {i}"
        for i, (size, way) in enumerate([("large", "left"), ("small", "right")] * 100)
    ]
    source, exact, rough = tmp_path / "texts.txt", tmp_path / "exact", tmp_path / "rough"
    source.write_text("\n".join([*texts, texts[0]]))
    for out, precision in ((exact, "exact"), (rough, "int8")):
        options = ["--texts", source, "--out", out, SAMPLE, f"--precision={precision}"]
        done = cluster.run(*options)
        assert (done.returncode, done.stdout.split(";")[0]) == (
            0,
            f"200 texts of 200 of 200 items embedded, written to {out}",
        ), done.stderr
    expected = np.stack([row.vector for row in embed_texts(sample, texts)])
    stored = {row["text"]: row["vector"] for row in rows_in(exact)}
    vectors = np.float32([stored[text] for text in texts])
    assert np.abs(vectors - expected).max() <= 1e-6
    stored = {row["text"]: row["vector"] for row in rows_in(rough)}
    rounded = np.float32([stored[text] for text in texts])
    norms = np.linalg.norm(rounded, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((rounded * expected).sum(axis=1) / norms).min() >= 0.999


@ray_test
def test_a_killed_worker_and_a_stop_lose_nothing(cluster, videos, tmp_path):
    for i in range(40):
        shutil.copy(videos / "silent.mkv", videos / f"slow {i}.mkv")
    out = tmp_path / "out"
    process = cluster.start(videos, "--out", out, SAMPLE, "--gpus-per-actor=0.25")
    wait_for(lambda: list(out.glob("*.parquet")))
    assert cluster.free()["GPU"] == 2 - 2 * 0.25
    os.kill(cluster.workers()[0], signal.SIGKILL)
    count = len(list(out.glob("*.parquet")))
    wait_for(lambda: len(list(out.glob("*.parquet"))) > count + 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err.splitlines()[-1]) == (130, "mdmmt: interrupted")
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("*.parquet")}
    assert len(rows_in(out)) < 43
    done = cluster.run(videos, "--out", out, SAMPLE)
    assert done.returncode == 0, done.stderr
    rows = rows_in(out)
    assert len(rows) == len({row["path"] for row in rows}) == 43
    for name, time_ns in before.items():
        assert (out / name).stat().st_mtime_ns == time_ns


@ray_test
def test_a_cluster_reads_from_s3_and_writes_to_it(cluster, bucket, sample, videos, tmp_path):
    options, client = bucket
    names = ["a.mkv", "deep/a b%20.mkv", "silent.mkv"]
    for name in names:
        client.upload_file(str(videos / "a.mkv"), "films", f"new/{name}")
    client.put_object(Bucket="films", Key="new/broken.mkv", Body=b"no film")
    client.put_object(Bucket="films", Key="new/notes.txt", Body=b"no video")
    features, db = tmp_path / "features", tmp_path / "a.db"
    command = [f"s3://films/new{options}", "--out", f"s3://films/vectors{options}", SAMPLE]
    command += ["--window=1", "--features", features, "--db", db]
    done = cluster.run(*command)
    assert done.returncode == 1, done.stderr
    assert "6 windows of 3 of 4 items embedded, written to s3://films/vectors?" in done.stdout
    assert "s3://films/new/broken.mkv: " in done.stderr

    copy = tmp_path / "copy"
    copy.mkdir()
    keys = [one["Key"] for one in client.list_objects(Bucket="films")["Contents"]]
    for key in keys:
        if key.startswith("vectors/part-"):
            client.download_file("films", key, str(copy / key.rpartition("/")[2]))
    rows = rows_in(copy)
    paths = [f"s3://films/new/{name}" for name in names]
    expected = sample.encode_segments(videos / "a.mkv", window_s=1.0).vectors
    assert len(rows) == 1 + len(expected) * len(paths)
    assert [row["path"] for row in rows if row["error"]] == ["s3://films/new/broken.mkv"]
    for path in paths:
        vectors = [row["vector"] for row in rows if row["path"] == path]
        np.testing.assert_array_equal(np.float32(vectors), expected)
    assert {str(file.relative_to(features)) for file in features.rglob("*.mkv.*")} == {
        f"{name}.safetensors" for name in names
    }
    with Index.open(db, sample) as index:
        assert [(file.path, file.segments) for file in index.files()] == [
            (path, len(expected)) for path in paths
        ]
    again = cluster.run(*command)
    assert again.returncode == 0, again.stderr
    assert "4 items were done before, 1 of them failed; 0 windows added" in again.stdout


@ray_test
def test_it_starts_ray_on_this_machine(cluster, videos, tmp_path):
    table, out = tmp_path / "films.jsonl", tmp_path / "out"
    table.write_text(f'{{"film": "{videos / "a.mkv"}"}}\n{{"film": "{videos / "none.mkv"}"}}\n')
    command = [table, "--column=film", "--out", out, SAMPLE, "--actors=1"]
    done = cluster.run(*command, cluster=False)
    assert done.returncode == 1, done.stderr
    assert "there is no file" in done.stderr
    assert "1 window of 1 of 2 items" in done.stdout
    assert not cluster.workers()


@pytest.mark.parametrize(
    ("actors", "count"),
    [
        (Actors(), 6),
        (Actors(cpus=1.5), 3),
        (Actors(gpus=0.5), 2),
        (Actors(gpus=0.25), 2),  # as there are two CPUs beside the GPU
        (Actors(memory_bytes=4), 5),
        (Actors(number=9), 9),
    ],
)
def test_as_many_actors_as_there_is_room_for(actors, count):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "memory": 12}},
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0, "memory": 8}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    assert _count_actors(nodes, actors) == count


def test_an_actor_without_room_is_refused():
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}]
    with pytest.raises(
        InputError, match=r"asks for 1 CPUs, 2 GPUs, and the most .* 4 CPUs, 0 GPUs"
    ):
        _count_actors(nodes, Actors(gpus=2.0))


@pytest.mark.parametrize("address", ["head", "head:", "ray://127.0.0.1:10001", ":6379"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="expected HOST:PORT"):
        check_address(address)


def test_an_address_that_answers_nothing_is_refused():
    with pytest.raises(InputError, match=r"nothing answers at 127\.0\.0\.1:9 "):
        check_address("127.0.0.1:9")

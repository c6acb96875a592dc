"""Folders, and S3 as moto's server speaks it over HTTP."""

from __future__ import annotations

import numpy as np
import pytest

import mdmmt
from mdmmt.batch.parts import Parts
from mdmmt.batch.sources import find_items
from mdmmt.batch.worker import Work, Worker
from mdmmt.errors import InputError
from mdmmt.storage.object_store import Address, Store, local_copy
from mdmmt.weights.identity import identity_of

NAMES = ["a b/50% über?.mkv", "deep/er/b.mkv", "c.txt"]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request, tmp_path):
    if request.param == "folder":
        return Store(str(tmp_path / "new" / "folder"))
    options, _ = request.getfixturevalue("bucket")
    return Store(f"s3://films/new/folder/{options}")


def test_what_is_written_is_listed_and_read(store):
    assert not store.exists()
    for name in [*NAMES, ".hidden/a.mkv", "deep/.hidden"]:
        store.write(name, name.encode())
    store.write("c.txt", b"a second time")
    assert store.exists()
    assert store.list() == sorted(NAMES)
    assert store.read(NAMES[0]) == NAMES[0].encode()
    assert store.read("c.txt") == b"a second time"
    assert store.read("none.txt") is None
    with (
        pytest.raises(InputError, match=r"none.txt' cannot be read: .*expected that it exists"),
        store.open("none.txt"),
    ):
        pass


def test_a_copy_of_a_local_file_is_the_file(tmp_path):
    with local_copy(str(tmp_path / "a.mkv")) as file:
        assert file == tmp_path / "a.mkv"


def test_the_parts_of_an_address():
    assert Address.parse("s3://films/new/50% ?.mkv") == ("s3", "films", "new/50% ?.mkv")
    assert str(Address.parse("gs://films")) == "gs://films/"
    assert Address.parse("/films/s3://a") is None


@pytest.mark.slow
def test_a_copy_is_of_the_key_as_the_store_has_it(bucket):
    options, client = bucket
    names = ["#1/e.mkv", "%41/c%20d.mkv", "a b/+é.mkv", "a/b.mkv", "q?.mkv", "wh?t/a.mkv"]
    for name in [*names, "a//b.mkv"]:
        client.put_object(Bucket="films", Key=f"new/{name}", Body=name.encode())
    items = find_items(f"s3://films/new{options}")
    assert {*names} <= {name.removeprefix("s3://films/new/") for name in items.names}
    for name in names:
        with local_copy(f"s3://films/new/{name}", items.options) as file:
            assert file.read_text() == name
    with (
        pytest.raises(InputError, match=r"'s3://films/new/a//b.mkv' cannot be read: Empty path"),
        local_copy("s3://films/new/a//b.mkv", items.options),
    ):
        pass


@pytest.mark.slow
def test_a_run_from_a_bucket_into_a_bucket(bucket, videos, tmp_path):
    options, client = bucket
    for name in ("a.mkv", "deep/a b%20.mkv"):
        client.upload_file(str(videos / "a.mkv"), "films", f"new/{name}")
    client.put_object(Bucket="films", Key="new/notes.txt", Body=b"no video")
    items = find_items(f"s3://films/new{options}")
    names = ["s3://films/new/a.mkv", "s3://films/new/deep/a b%20.mkv"]
    assert (items.names, items.root) == (names, "s3://films/new")
    client.put_object(Bucket="films", Key="list.txt", Body="\n".join(names).encode())
    assert find_items(f"s3://films/list.txt{options}").names == names

    sample = mdmmt.load("sample", "cpu")
    identity = identity_of(sample.path, sample.config)
    out = f"s3://films/vectors{options}"
    mark = Parts(out).begin({"kind": "path", "model": identity._asdict()})
    load = {"weight_path": "sample", "device": "cpu"}
    work = Work("path", load, identity, out, items.root, items.options, 1.0)
    work = work._replace(features=str(tmp_path / "kept"))
    missing = "s3://films/new/none.mkv"
    done = Worker(work, mark)([*names, missing])
    assert done.fatal is None
    assert [name for name, _ in done.failures] == [missing]
    expected = sample.encode_segments(videos / "a.mkv", window_s=1.0).vectors
    (table,) = Parts(out).tables()
    rows = [row for row in table.to_pylist() if row["path"] == names[1]]
    np.testing.assert_array_equal(np.float32([row["vector"] for row in rows]), expected)
    assert (tmp_path / "kept" / "deep" / "a b%20.mkv.safetensors").is_file()
    with pytest.raises(InputError, match="kind is path, and text is asked for"):
        Parts(out).begin({"kind": "text", "model": identity._asdict()})


@pytest.mark.slow
def test_a_bucket_without_rights_is_refused(bucket, s3_server):
    options, client = bucket
    client.put_object(Bucket="films", Key="new/a.mkv", Body=b"")
    with pytest.raises(InputError, match=r"'s3://none' cannot be listed: .*bucket does not exist"):
        find_items(f"s3://none{options}")
    s3_server.refuse_all(True)
    for act in (
        lambda: find_items(f"s3://films/new{options}"),
        lambda: Parts(f"s3://films/out{options}").begin({"kind": "path"}),
        lambda: Store(f"s3://films{options}").write("a", b""),
    ):
        with pytest.raises(
            InputError, match=r"cannot be .*(Access Key|ACCESS_DENIED).*keys give the right"
        ) as told:
            act()
        assert "\n" not in str(told.value) and "Request ID" not in str(told.value)


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(InputError, match=r"'s3://films' cannot be listed: .*connect"):
        find_items("s3://films?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:9")
    with pytest.raises(InputError, match="options of pyarrow after a question mark"):
        find_items("s3://films?no_such_option=1")

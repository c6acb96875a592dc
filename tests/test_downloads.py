"""`mdmmt download` against loopback servers in place of all publishers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from servers import Drive, Files, keep_silent
from tiny import TINY
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import mdmmt
from mdmmt import downloads, experts
from mdmmt.cli import main
from mdmmt.config import DOWNLOADS
from mdmmt.experts import expert_classes, pretrained
from mdmmt.experts.ircsn import PublishedIrCSN
from mdmmt.experts.vggish import VGGish
from mdmmt.storage import google_drive, http
from mdmmt.weights import layout, locate, released

VOCABULARY = "vocab.txt"
PORT = "ircsn_from_scratch_r152_ig65m_20200807-771c4135.pth"
ORIGINAL = "irCSN_152_ig65m_from_scratch_f125286141.pth"
CONFIG, CLIP = "config.json", "pytorch_model.bin"
VGGISH = "vggish-10086976.pth"
PLACES = {
    "tokenizer": "bert-base-cased/vocab.txt",
    "model": "mdmmt_3mod",
    "VIDEO": f"experts/{PORT}",
    "CLIP": f"experts/CLIP/{CLIP}",
    "tf_vggish": f"experts/{VGGISH}",
}
PRETRAINED = ("VIDEO", "CLIP", "tf_vggish")
TEXTS = ["Hello world", "a man is playing"]


def as_file(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def hollow(network: type[torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Weights of the right shapes that take next to no room: every value the same."""
    with torch.device("meta"):
        state = network().state_dict()
    return {name: torch.ones((), dtype=t.dtype).expand(t.shape) for name, t in state.items()}


def mmaction2_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as mmaction2 names them, without the counters that Caffe2's files lack."""
    parts = {"0": "conv", "1": "bn"}
    ported = {}
    for name, tensor in state.items():
        *place, layer, part, kind = name.split(".")
        layer = {"stem": "conv1", "conv2": "conv2.0"}.get(layer, layer)
        if kind != "num_batches_tracked":
            ported[".".join([*place, layer, parts[part], kind])] = tensor
    return ported


@pytest.fixture(scope="module")
def contents(tiny_vocabulary) -> dict[str, bytes]:
    """What the publishers have; CLIP is tiny, and the other networks have one value alone."""
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 2, "patch_size": 32, "projection_dim": 512}
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**tower)).state_dict()
    config = {"model_type": "clip", "projection_dim": 512, "vision_config": tower}
    video = hollow(PublishedIrCSN)
    head = {"fc.weight": torch.zeros(5, 2048), "fc.bias": torch.zeros(5)}
    return {
        VOCABULARY: (tiny_vocabulary / VOCABULARY).read_bytes(),
        PORT: as_file({"meta": {"epoch": 1}, "state_dict": mmaction2_names(video)}),
        ORIGINAL: as_file(video | head),
        CONFIG: json.dumps(config).encode(),
        CLIP: as_file(clip | {"logit_scale": torch.ones(())}),
        VGGISH: as_file(hollow(VGGish) | {"pproc.mean": torch.rand(100_000)}),  # of later layers
    }


@pytest.fixture
def server(contents, monkeypatch):
    """All publishers but that of the model, who state the hashes of what they have."""
    server = Files(dict(contents))

    def here(file: downloads.RemoteFile) -> downloads.RemoteFile:
        sha256 = hashlib.sha256(contents[file.name]).hexdigest()[: len(file.sha256)]
        url = f"{server.url}/{file.name}"
        return replace(file, url=url, size=len(contents[file.name]), sha256=sha256)

    needs = {
        name: replace(need, sources=tuple(tuple(map(here, files)) for files in need.sources))
        for name, need in downloads.needs().items()
    }
    monkeypatch.setattr(downloads, "needs", lambda: needs)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(http, "BLOCK_SIZE", 1024)
    yield server
    server.close()


@pytest.fixture
def drive(tiny, monkeypatch):
    """Google Drive with a tiny model."""
    server = Drive(as_file(tiny.released_layout))
    monkeypatch.setattr(google_drive, "DRIVE_URL", f"{server.url}/uc")
    monkeypatch.setattr(layout, "RELEASED", TINY)
    monkeypatch.setattr(downloads, "MODEL_SIZE", len(server.content))
    yield server
    server.close()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The cache of a user who is online and has no weights."""
    home = tmp_path / "home"
    monkeypatch.setenv("MDMMT_HOME", str(home))
    monkeypatch.delenv(pretrained.EXPERTS_VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for module in (locate, released, downloads):
        monkeypatch.setattr(module, "WEIGHTS_FOLDER", tmp_path / "weights")
    monkeypatch.setattr(pretrained, "EXPERTS_FOLDER", tmp_path / "weights" / "experts")
    return home


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Status, stdout, and what stderr says of failures."""
    status = main(["download", *arguments])
    captured = capsys.readouterr()
    said = captured.err.splitlines()
    return status, captured.out, "\n".join(line for line in said if "ing " not in line[:30])


def files(folder: Path) -> set[str]:
    """The files in a folder; locks do not count."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)) for path in found}


@pytest.mark.slow
def test_download_fetches_all_that_the_model_needs(
    server, drive, home, capsys, contents, tiny_model, tiny_video
):
    status, out, failures = run(capsys)
    assert (status, failures) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        [name, str(home / place)] for name, place in PLACES.items()
    ]
    for name, place in PLACES.items():
        if name != "model":
            assert (home / place).read_bytes() == contents[Path(place).name]
    asked = len(server.requests), len(drive.requests)
    assert run(capsys)[0] == 0  # everything is there
    assert asked == (len(server.requests), len(drive.requests))
    assert not (home.parent / "weights").exists()

    # Nothing else is needed now, and no option.
    found = {name: expert_classes([name])[name].find(None) for name in PRETRAINED}
    assert found == {name: home / PLACES[name] for name in PRETRAINED}
    assert list(experts.load(["CLIP"])) == ["CLIP"]
    model = mdmmt.load(None, "cpu")
    assert np.array_equal(model.encode_text(TEXTS), tiny_model.encode_text(TEXTS))
    assert np.array_equal(model.encode_video(tiny_video()), tiny_model.encode_video(tiny_video()))


def test_download_writes_the_hashes_down_as_sha256sum_does(server, home, capsys):
    run(capsys, "--only", "VIDEO", "--only", "CLIP")
    for name in (PORT, f"CLIP/{CONFIG}", f"CLIP/{CLIP}"):
        file = home / "experts" / name
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        assert (file.parent / f"{file.name}.sha256").read_text() == f"{sha256}  {file.name}\n"


def test_download_of_one_thing(server, home, capsys):
    status, out, _ = run(capsys, "--only", "tf_vggish")
    assert status == 0 and out.split() == ["tf_vggish", str(home / PLACES["tf_vggish"])]
    assert server.transfers == [(VGGISH, 0)]
    assert files(home) == {f"experts/{VGGISH}", f"experts/{VGGISH}.sha256"}


def test_download_refuses_a_name_that_it_does_not_know(capsys):
    with pytest.raises(SystemExit):
        main(["download", "--only", "vggish"])
    assert "tf_vggish" in capsys.readouterr().err


def test_list_shows_sizes_sources_and_hashes_and_fetches_nothing(server, home, capsys):
    run(capsys, "--only", "CLIP")
    server.requests.clear()
    status, out, _ = run(capsys, "--list")
    assert status == 0 and not server.requests
    header, *rows = out.splitlines()
    assert header.split()[:2] == ["name", "state"]
    lines = [row.split() for row in rows]
    states = {(line[0], line[1]) for line in lines}
    assert states == {
        *((name, "missing") for name in ("tokenizer", "model", "VIDEO", "tf_vggish")),
        *(("VIDEO", "or"), ("CLIP", "there")),
    }
    for name in (VOCABULARY, PORT, ORIGINAL, CONFIG, CLIP, VGGISH):
        assert f"{server.url}/{name} " in out
    assert {line[5] for line in lines if line[0] == "model"} == {"none"}
    assert released.FILE_PAGE in out
    _, out, _ = run(capsys, "--list", "--only", "CLIP")
    assert len(out.splitlines()) == 3


def test_needs_are_on_https_and_have_the_hashes_in_their_names():
    needs = downloads.needs()
    assert list(needs) == [name for name in DOWNLOADS if name != "model"]
    every = [f for need in needs.values() for source in need.sources for f in source]
    assert all(file.url.startswith("https://") for file in every)
    stated = {file.name: file.sha256 for file in every}
    assert list(stated) == [VOCABULARY, PORT, ORIGINAL, CONFIG, CLIP, VGGISH]
    assert PORT.endswith(f"-{stated[PORT]}.pth") and f"vggish-{stated[VGGISH]}.pth" == VGGISH
    assert [len(stated[name]) for name in (VOCABULARY, CONFIG, CLIP)] == [64, 64, 64]
    assert stated[ORIGINAL] == ""
    for name in PRETRAINED:  # the experts look for these names
        for source in needs[name].sources:
            assert source[-1].name in expert_classes([name])[name].files


def test_download_resumes_a_cut_file(server, home, capsys, contents):
    server.end = 20_000
    status, _, failure = run(capsys, "--only", "tf_vggish")
    assert status == 1 and failure.count("\n") == 0
    for part in (VGGISH, "Connection broken", "mdmmt download --only tf_vggish", str(home)):
        assert part in failure
    assert downloads.find("tf_vggish") is None
    (part,) = (home / "experts").glob("vggish-*.pth")
    received = part.stat().st_size
    server.end = None
    server.requests.clear()
    assert run(capsys, "--only", "tf_vggish")[0] == 0
    assert server.transfers == [(VGGISH, 0), (VGGISH, received)]
    assert (home / PLACES["tf_vggish"]).read_bytes() == contents[VGGISH]


@pytest.mark.parametrize("change", ["no ranges", "another file"])
def test_download_starts_again_where_it_cannot_resume(server, home, capsys, contents, change):
    if change == "another file":
        server.files[VGGISH] = contents[VGGISH][::-1]
    else:
        server.ranges = False
    server.end = 20_000
    assert run(capsys, "--only", "tf_vggish")[0] == 1
    server.end, server.files[VGGISH] = None, contents[VGGISH]
    assert run(capsys, "--only", "tf_vggish")[0] == 0
    assert (home / PLACES["tf_vggish"]).read_bytes() == contents[VGGISH]
    assert len(files(home)) == 2


def test_download_deletes_a_file_with_another_hash(server, home, capsys, contents):
    server.files[VGGISH] = wrong = contents[VGGISH][:-1] + b"?"
    status, out, failure = run(capsys, "--only", "tf_vggish")
    assert (status, out) == (1, "") and failure.count("\n") == 0
    stated = hashlib.sha256(contents[VGGISH]).hexdigest()[:8]
    for part in (hashlib.sha256(wrong).hexdigest(), f"states {stated}", "was deleted", "by hand"):
        assert part in failure
    assert not files(home)
    server.files[VGGISH] = contents[VGGISH]
    assert run(capsys, "--only", "tf_vggish")[0] == 0


@pytest.mark.parametrize("name", ["tokenizer", "VIDEO", "CLIP", "tf_vggish"])
def test_download_deletes_what_the_network_does_not_take(server, home, capsys, monkeypatch, name):
    """Its hash is the stated one, and it is still not what it should be."""
    wrong = as_file({"some.weight": torch.ones(2)})
    need = downloads.needs()[name]
    states = tuple(
        replace(f, sha256=hashlib.sha256(wrong).hexdigest()[:8]) for f in [need.sources[0][-1]]
    )
    for file in states:
        server.files[file.name] = wrong
    source = (*need.sources[0][:-1], *states)
    monkeypatch.setitem(downloads.needs(), name, replace(need, sources=(source,)))
    status, _, failure = run(capsys, "--only", name)
    assert status == 1 and "another file came, and was deleted" in failure
    assert not {file for file in files(home) if "sha256" not in file and CONFIG not in file}


def test_download_takes_the_original_where_the_port_is_gone(server, home, capsys, contents):
    del server.files[PORT]
    status, out, _ = run(capsys, "--only", "VIDEO")
    assert status == 0 and out.split() == ["VIDEO", str(home / "experts" / ORIGINAL)]
    assert expert_classes(["VIDEO"])["VIDEO"].find(None) == home / "experts" / ORIGINAL
    server.requests.clear()
    assert run(capsys, "--only", "VIDEO")[0] == 0 and not server.requests
    (home / "experts" / ORIGINAL).unlink()
    del server.files[ORIGINAL]
    status, _, failure = run(capsys, "--only", "VIDEO")
    assert status == 1
    for part in (PORT, ORIGINAL, "404 Not Found"):
        assert part in failure


def test_download_goes_on_with_the_others(server, home, capsys):
    del server.files[VGGISH]
    status, out, failure = run(capsys, "--only", "tf_vggish", "--only", "tokenizer")
    assert status == 1 and out.split()[0] == "tokenizer" and "tf_vggish" in failure


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["file", "record"])
def test_download_replaces_a_damaged_file(server, home, capsys, contents, damaged):
    run(capsys, "--only", "VIDEO")
    if damaged == "file":
        (home / PLACES["VIDEO"]).write_bytes(contents[PORT][:-1])
    else:
        (home / f"{PLACES['VIDEO']}.sha256").write_bytes(b"\xff\xfe")
    server.requests.clear()
    assert run(capsys, "--only", "VIDEO")[0] == 0
    assert server.transfers == [(PORT, 0)]
    assert (home / PLACES["VIDEO"]).read_bytes() == contents[PORT]


def test_download_keeps_a_file_that_was_put_there_by_hand(server, home, capsys, contents):
    (home / "experts").mkdir(parents=True)
    (home / PLACES["tf_vggish"]).write_bytes(contents[VGGISH])
    assert run(capsys, "--only", "tf_vggish")[0] == 0
    assert not server.requests


def test_download_looks_for_room_before_it_begins(server, drive, home, capsys, monkeypatch):
    free = 1000
    usage = shutil.disk_usage(home.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    status, out, failure = run(capsys)
    assert (status, out) == (1, "") and failure.count("\n") == 0
    for part in (str(home), "1 kB are free", "MDMMT_HOME", "--only"):
        assert part in failure
    assert not server.requests and not drive.requests
    free = len(server.files[VOCABULARY])
    assert run(capsys, "--only", "tokenizer")[0] == 0


def test_download_reports_a_disk_that_is_full_in_the_middle(server, home, capsys, contents):
    """A part file that links to /dev/full, which refuses every byte as a full disk does."""
    server.end = 20_000
    run(capsys, "--only", "tf_vggish")
    server.end = None
    (part,) = (home / "experts").glob("vggish-*.pth")
    part.unlink()
    part.symlink_to("/dev/full")
    status, _, failure = run(capsys, "--only", "tf_vggish")
    assert status == 1 and failure.count("\n") == 0
    for words in (str(part), "No space left on device", "free some space", "MDMMT_HOME"):
        assert words in failure
    part.unlink()
    assert run(capsys, "--only", "tf_vggish")[0] == 0


def test_download_of_the_model_needs_twice_its_room(drive, home, capsys, monkeypatch):
    usage = shutil.disk_usage(home.parent)
    twice = 2 * len(drive.content)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=twice - 1))
    assert run(capsys, "--only", "model")[0] == 1 and not drive.requests
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=twice))
    assert run(capsys, "--only", "model")[0] == 0


@pytest.mark.slow
def test_download_reports_servers_that_are_down(home, capsys, monkeypatch):
    """The name server keeps silent: all of it is known within five seconds."""
    monkeypatch.setattr(http, "REACH_S", 0.6)
    monkeypatch.setattr("socket.getaddrinfo", keep_silent)
    start = time.monotonic()
    status, out, failures = run(capsys)
    assert time.monotonic() - start < 2.5  # one after the other would take 3.6 seconds
    assert (status, out) == (1, "") and len(failures.splitlines()) == len(DOWNLOADS)
    for host in ("drive.google.com", "download.openmmlab.com", "github.com"):
        assert f"{host} cannot be reached: no connection within 0.6 seconds" in failures


def test_download_fetches_nothing_offline(server, home, capsys, monkeypatch):
    run(capsys, "--only", "tokenizer")
    server.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    status, _, failure = run(capsys)
    assert status == 1 and "HF_HUB_OFFLINE is set" in failure and failure.count("\n") == 0
    assert run(capsys, "--only", "tokenizer")[0] == 0
    assert not server.requests


def test_download_names_a_folder_that_cannot_be_written(
    server, capsys, monkeypatch, tmp_path, home
):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("MDMMT_HOME", str(tmp_path / "file" / "home"))
    status, _, failure = run(capsys, "--only", "tokenizer")
    assert status == 1 and "file' is not a folder" in failure
    assert not server.requests


CHILD = """
import json, os, sys
from mdmmt import downloads
from mdmmt.storage import http
http.BLOCK_SIZE = 1024
file = downloads.RemoteFile(*json.loads(os.environ["TEST_FILE"]))
need = downloads.Need("tf_vggish", "experts", ((file,),))
downloads.needs = lambda: {"tf_vggish": need}
from mdmmt.cli import main
sys.exit(main(["download", "--only", "tf_vggish"]))
"""


@pytest.mark.slow
def test_download_in_several_processes(server, contents, tmp_path):
    """One is killed in the middle; of two at once, one goes on there and the other waits."""
    file = downloads.needs()["tf_vggish"].sources[0][0]
    home = tmp_path / "home"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "PYTHONPATH": str(Path(mdmmt.__file__).parent.parent),
        "HF_HOME": str(tmp_path / "hf"),
        "MDMMT_HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "TEST_FILE": json.dumps([file.url, file.size, file.sha256]),
    }

    def start(name: str) -> subprocess.Popen:
        with open(tmp_path / name, "w") as said:
            return subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stderr=said)

    def said(name: str) -> str:
        return (tmp_path / name).read_text()

    def wait_until(condition, *processes: subprocess.Popen) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline and all(p.poll() is None for p in processes), [
                path.read_text() for path in tmp_path.iterdir() if path.is_file()
            ]
            time.sleep(0.02)

    def parts() -> list[int]:
        return [path.stat().st_size for path in home.glob("experts/vggish-*.pth")]

    server.gate.clear()
    killed = start("killed")
    wait_until(lambda: parts() and parts()[0] > 8192, killed)
    killed.kill()
    killed.wait()
    (kept,) = parts()
    server.requests.clear()
    both = [start("one"), start("two")]
    wait_until(lambda: sum("waiting for another" in said(n) for n in ("one", "two")) == 1, *both)
    server.gate.set()
    assert [process.wait(timeout=90) for process in both] == [0, 0]
    assert server.transfers == [(VGGISH, 0), (VGGISH, kept)]
    assert (home / "experts" / VGGISH).read_bytes() == contents[VGGISH]

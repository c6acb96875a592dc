"""The identity of a model: what it depends on, and that the weights are hashed once."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY

from mdmmt.config import ModelConfig
from mdmmt.errors import WeightsError
from mdmmt.storage import facts
from mdmmt.storage.paths import SAMPLE_FOLDER
from mdmmt.weights import identity
from mdmmt.weights.identity import Identity, identity_of
from mdmmt.weights.layout import MODEL_FILE, read_config

LONG_AGO_NS = 1_600_000_000_000_000_000


pytestmark = pytest.mark.usefixtures("facts_cache")


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """The paths of all weights that are read to be hashed."""
    paths: list[Path] = []
    read_tower = identity.read_tower
    monkeypatch.setattr(
        identity,
        "read_tower",
        lambda path, prefixes: paths.append(path) or read_tower(path, prefixes),
    )
    return paths


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A model folder that the test may change."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def of_folder(folder: Path) -> Identity:
    return identity_of(folder, read_config(folder))


def test_identity_of_follows_the_weights(tmp_path):
    sample = of_folder(SAMPLE_FOLDER)
    assert (sample.name, sample.dim) == ("sample", 384)
    # Databases hold this value, so it must stay as it is for as long as the sample model does.
    assert sample.sha256 == "b592840d27859041d737dec835ad18c3c3f6346509ca3f5bf286dd478b3f58df"
    copy = shutil.copytree(SAMPLE_FOLDER, tmp_path / "copy")
    assert of_folder(copy) == sample._replace(name="copy")
    state = load_file(copy / MODEL_FILE)
    state[min(state)].view(-1)[0] += 1e-3
    save_file(state, copy / MODEL_FILE)
    assert of_folder(copy).sha256 != sample.sha256


def test_identity_of_reads_the_weights_once(folder, reads, facts_cache):
    first = of_folder(folder)
    assert len(reads) == 1
    assert of_folder(folder) == first and len(reads) == 1
    (entry,) = facts_cache.iterdir()  # and no temporary file
    assert json.loads(entry.read_text())["fact"] == first.sha256


def test_identity_of_hashes_a_changed_file_again(folder, reads, facts_cache):
    file = folder / MODEL_FILE
    first = of_folder(folder)
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[-4] ^= 1  # of the last tensor's last number
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copying program may do
    assert file.stat().st_size == times.st_size
    second = of_folder(folder)
    assert second.sha256 != first.sha256 and len(reads) == 2
    os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert of_folder(folder) == second and len(reads) == 3
    assert of_folder(folder) == second and len(reads) == 3
    assert len(list(facts_cache.iterdir())) == 1


def test_identity_of_tells_orders_of_experts_apart(folder, reads):
    config = read_config(folder)
    turned = replace(config.video, experts=config.video.experts[::-1])
    other = identity_of(folder, ModelConfig(turned, config.text))
    assert other.sha256 != identity_of(folder, config).sha256 and len(reads) == 2
    assert identity_of(folder, ModelConfig(turned, config.text)) == other and len(reads) == 2


def test_identity_of_keeps_no_hash_of_a_file_just_written(folder, reads, facts_cache, monkeypatch):
    monkeypatch.setattr(facts, "MIN_AGE_S", 3600.0)
    assert of_folder(folder) == of_folder(folder)
    assert len(reads) == 2 and not facts_cache.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"3",
        b"{}",
        b'{"fact": 3}',
        b"[" * 100_000,
        "other",
        "short",
        "no hex",
    ],
)
def test_identity_of_ignores_a_damaged_cache(folder, reads, facts_cache, content):
    first = of_folder(folder)
    (entry,) = facts_cache.iterdir()
    kept = json.loads(entry.read_text())
    changes = {
        "other": {"size": kept["size"] + 1},
        "short": {"fact": "abc"},
        "no hex": {"fact": "z" * 64},
    }
    if isinstance(content, str):
        content = json.dumps(kept | changes[content]).encode()
    entry.write_bytes(content)
    assert of_folder(folder) == first and len(reads) == 2
    assert of_folder(folder) == first and len(reads) == 2  # it was mended


def test_identity_of_needs_no_cache(folder, reads, facts_cache):
    first = of_folder(folder)
    shutil.rmtree(facts_cache)
    facts_cache.write_text("a file where the folder should be")
    assert of_folder(folder) == of_folder(folder) == first and len(reads) == 3


def test_identity_of_takes_one_tower_and_refuses_none(tiny, tmp_path):
    text = {name: tensor.contiguous() for name, tensor in tiny.ours_text.state_dict().items()}
    save_file(text, tmp_path / "text.safetensors")
    assert identity_of(tmp_path / "text.safetensors", TINY).dim > 0
    save_file({"vid_bert.x": torch.zeros(0), "more": torch.zeros(1)}, tmp_path / "a.safetensors")
    for name in ("a.safetensors", "missing.safetensors"):
        with pytest.raises(WeightsError):
            identity_of(tmp_path / name, TINY)


def test_identity_of_refuses_a_tensor_that_the_file_does_not_hold(tiny, tmp_path):
    """A file of a few kilobytes would otherwise ask for 4 TB."""
    few = {"txt_bert.x": torch.ones(3), "vid_bert.y": torch.ones(1).expand(10**6, 10**6)}
    torch.save(few, tmp_path / "a.pth")
    with pytest.raises(
        WeightsError, match=r"vid_bert\.y has 1,000,000,000,000 numbers, of which the file holds 1,"
    ):
        identity_of(tmp_path / "a.pth", TINY)
    rows = torch.ones(4, 5).as_strided((3, 5), (4, 1))  # overlapping rows, which fit all the same
    torch.save({"vid_bert.x": torch.ones(5, 3).T, "vid_bert.y": rows}, tmp_path / "b.pth")
    assert identity_of(tmp_path / "b.pth", TINY).dim > 0

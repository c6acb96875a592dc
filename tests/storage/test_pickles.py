"""Torch files with more than tensors: the tensors come, and nothing is imported or run."""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from mdmmt import WeightsError
from mdmmt.storage.checkpoint import CheckpointLayout, load_pickle, read_tensors

EXTRAS = {
    "scalar": np.float64(3.5),
    "array": np.arange(3),
    "namespace": argparse.Namespace(lr=1e-3, path=pathlib.Path("/x")),
    "path": pathlib.PurePosixPath("/a/b"),
    "simple": types.SimpleNamespace(a=1),
    "deque": collections.deque([1]),
    "counter": collections.Counter("aab"),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "class": argparse.ArgumentParser,
    "complex": complex(1, 2),
    "set": {pathlib.PurePosixPath("/a")},
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("extra", EXTRAS)
def test_read_tensors_skips_extras(extra, protocol, is_zip, tmp_path):
    base = torch.randn(6, 4)
    state = collections.OrderedDict(
        a=torch.randn(2, 3),
        b=torch.nn.Parameter(torch.randn(3)),
        c=base[1::2].T,
        d=base,
        e=torch.randn(2).half(),
        f=torch.tensor(7),
    )
    path = tmp_path / "a.pth"
    torch.save(
        {"config": EXTRAS[extra], "state_dict": state},
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=is_zip,
    )
    loaded = read_tensors(path, CheckpointLayout())
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.slow
def test_load_pickle_says_what_it_skipped_and_imports_nothing(tmp_path):
    (tmp_path / "stranger.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nclass A: pass\n"
    )
    code = "import torch, stranger; torch.save({'config': stranger.A(), 'state_dict': {}}, 'a.pth')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    (tmp_path / "ran").unlink()
    sys.path.insert(0, str(tmp_path))
    try:
        assert load_pickle(tmp_path / "a.pth")[1] == ["config (stranger.A)"]
    finally:
        sys.path.remove(str(tmp_path))
    assert "stranger" not in sys.modules and not (tmp_path / "ran").exists()


# Each one makes the folder `ran` when Python's own unpickler loads it.
GADGETS = {
    "global reduce": b"cos\nmkdir\n(Vran\ntR.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x03ran\x85R.",
    "inst": b"(Vran\nios\nmkdir\n.",
    "obj": b"(cos\nmkdir\nVran\no.",
    "eval": b"cbuiltins\neval\n(V__import__('os').mkdir('ran')\ntR.",
    "exec": b"cbuiltins\nexec\n(V__import__('os').mkdir('ran')\ntR.",
    "dotted": b"\x80\x04\x8c\x08argparse\x8c\x09_os.mkdir\x93\x8c\x03ran\x85R.",
    "torch's": b"ctorch.serialization\nos.mkdir\n(Vran\ntR.",
    "getattr": b"cbuiltins\ngetattr\n(cposix\nmkdir\nV__call__\ntR(Vran\ntR.",
    "map": b"cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nmkdir\n(lVran\natRtR.",
    "partial": b"cfunctools\npartial\n(cos\nmkdir\nVran\ntR(tR.",
    "subprocess": b"csubprocess\ngetoutput\n(Vmkdir ran\ntR.",
    "newobj": b"\x80\x02csubprocess\nPopen\n(]Vmkdir\naVran\natR.",
}


@pytest.mark.parametrize("place", ["bare", "beside tensors"])
@pytest.mark.parametrize("gadget", GADGETS)
def test_load_pickle_runs_no_gadget(gadget, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = GADGETS[gadget]
    path = tmp_path / "evil.pth"
    if place == "bare":
        path.write_bytes(content)
    else:
        header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        body = b"}(Vstate_dict\n}Vx\n" + content.lstrip(b"\x80\x02\x04")[:-1] + b"u."
        path.write_bytes(
            b"".join(pickle.dumps(x, protocol=2) for x in header) + body + b"\x80\x02]."
        )
    try:
        load_pickle(path)
    except WeightsError as error:
        assert "evil.pth" in str(error)
    assert not os.path.exists("ran")
    if place == "bare" and gadget not in ("torch's", "dotted"):  # the gadget is real
        try:
            result = pickle.loads(content)
            if hasattr(result, "wait"):
                result.wait()
        except TypeError:  # an unfinished one
            pass
        assert os.path.exists("ran")


def test_load_pickle_changes_no_function(tmp_path):
    """An operation that sets attributes reaches nothing of torch or of this package."""
    path = tmp_path / "evil.pth"
    path.write_bytes(b"ctorch._utils\n_rebuild_tensor_v2\n(N}V__doc__\nVevil\nstb.")
    before = torch._utils._rebuild_tensor_v2.__doc__
    with pytest.raises(WeightsError):
        load_pickle(path)
    assert torch._utils._rebuild_tensor_v2.__doc__ == before

"""The device on which a model runs; tests/test_model.py has the names that are refused."""

from __future__ import annotations

import pytest
import torch

from mdmmt import InputError
from mdmmt.device import resolve_device


def test_resolve_device_refuses_a_cuda_device_beyond_the_last(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match="sees 2 CUDA devices"):
        resolve_device("cuda:2")


def test_resolve_device_takes_apples_gpu_by_its_name_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps") == torch.device("mps")
    assert resolve_device(torch.device("mps", 0)).type == "mps"
    assert resolve_device(None).type == "cpu"
    with pytest.raises(InputError, match="device is 'mps:1', which torch does not see here"):
        resolve_device("mps:1")


@pytest.mark.parametrize("there", [True, False])
def test_resolve_device_takes_cuda_if_there_is_one(there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert resolve_device(None).type == ("cuda" if there else "cpu")
    assert resolve_device("cpu").type == resolve_device(torch.device("cpu")).type == "cpu"

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


@pytest.mark.parametrize("there", [True, False])
def test_resolve_device_takes_cuda_if_there_is_one(there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert resolve_device(None).type == ("cuda" if there else "cpu")
    assert resolve_device("cpu").type == resolve_device(torch.device("cpu")).type == "cpu"

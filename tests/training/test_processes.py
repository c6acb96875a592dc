"""Processes that share a batch give what one process gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file

from mdmmt.errors import InputError
from mdmmt.training.processes import Processes
from mdmmt.training.progress import read_log

RUN = """
import json, sys
import torch
from mdmmt.training.config import from_mapping
from mdmmt.training.loop import train
torch.set_num_threads(1)
print(train(from_mapping(json.loads(sys.argv[1]), "the test")).is_main)
"""


def run(config, count: int) -> list[str]:
    """Run several processes; what each says of whether it is the main one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for index in range(count):
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(count),
            "RANK": str(index),
            "LOCAL_RANK": str(index),
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", RUN, json.dumps(asdict(config))],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = []
    for process in started:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        said.append(output.strip())
    return said


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"loss": "info-nce", "chunk_size": 2, "clip": 1.0}])
def test_two_processes_give_the_losses_of_one(make_config, tmp_path, changes):
    config = make_config(dropout=0.0, epochs=3, margin=0.2, device="cpu", **changes)
    (dataset,) = config.datasets
    config = replace(config, datasets=(replace(dataset, val=dataset.data),))
    for count in (1, 2):
        mains = run(replace(config, out=str(tmp_path / str(count))), count)
        assert mains == ["True", *["False"] * (count - 1)]
    one, two = (
        [line["loss"] for line in read_log(tmp_path / str(count)) if "loss" in line]
        for count in (1, 2)
    )
    assert len(one) == 12
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) <= 1e-4
    assert max(one) - min(one) > 0.01  # the losses move
    first, second = (load_file(tmp_path / str(count) / "model.safetensors") for count in (1, 2))
    for name, value in first.items():
        # A batch norm takes off the first, and a softmax the second: their gradients are rounding.
        if name.endswith((".cg.fc.bias", ".key.bias")):
            continue
        torch.testing.assert_close(value, second[name], atol=1e-3, rtol=1e-3, msg=name)


def test_one_process_is_the_whole_run():
    processes = Processes("cpu")
    assert (processes.count, processes.index, processes.is_main) == (1, 0, True)
    x = torch.rand(3, 2)
    assert processes.gather(x) is x
    assert processes.share("value") == "value"
    parameter = torch.nn.Parameter(x)
    parameter.grad = x.clone()
    processes.add_gradients([parameter], [parameter])
    assert torch.equal(parameter.grad, x)


def test_a_batch_that_cannot_be_shared_is_told():
    processes = Processes("cpu")
    processes.count = 3
    with pytest.raises(InputError, match="batch_size is 32, expected a multiple of the 3"):
        processes.check_batch(32)
    with pytest.raises(InputError, match="a batch has 7 texts, expected a multiple of the 3"):
        processes.own(7)
    processes.index = 1
    assert processes.own(6) == slice(2, 4)

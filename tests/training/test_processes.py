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

GRADIENTS = """
import json, sys
import torch
from safetensors.torch import save_file
import mdmmt
from mdmmt.training import BatchTexts, loop
from mdmmt.training.config import from_mapping
from mdmmt.training.data import SegmentReader, read_training_data
from mdmmt.training.processes import Processes
torch.set_num_threads(1)

def texts(samples, rng):
    captions = [sample.caption.text for sample in samples]
    return BatchTexts([*captions, *reversed(captions[:4]), "no video", "none"], None)

def loss(text, video, told):
    return (text @ video.T - torch.eye(len(text), len(video))).square().mean()

config = from_mapping(json.loads(sys.argv[1]), "the test")
model = mdmmt.load(config.init, "cpu")
processes = Processes("cpu")
towers = loop.make_towers(config, model)
optimiser = loop.make_optimiser(config, towers)
own = {"loss": loss, "texts": texts} if sys.argv[2] == "own" else {}
trainer = loop.Trainer(config, towers, optimiser, model, processes, 4, **own)
experts = model.config.video.experts
data = read_training_data(config.datasets, experts)
samples = data.draw_epoch(0, 0, 32, [expert.name for expert in experts], 0.0)
reader = SegmentReader(experts)
batch = next(reader.batches(samples, config.batch_size, 0, processes.index, processes.count))
value, scores = trainer.backward(batch, 0)
named = {name: one.grad for name, one in towers.named_parameters() if one.grad is not None}
file = f"{config.out}-{processes.count}-{processes.index}.safetensors"
save_file({"loss": torch.tensor(value), "scores": scores.contiguous(), **named}, file)
"""


def run(config, count: int, script: str = RUN, *arguments: str) -> list[str]:
    """Run a script in several processes; what each says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = json.dumps(asdict(config))
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
                [sys.executable, "-W", "ignore", "-c", script, settings, *arguments],
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
        tolerance = 1e-3
        if name.endswith(".cg.batch_norm.running_mean"):  # it follows the first
            bias = name.replace("batch_norm.running_mean", "fc.bias")
            tolerance += float((first[bias] - second[bias]).abs().max())
        torch.testing.assert_close(value, second[name], atol=tolerance, rtol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [("captions", {}), ("captions", {"loss": "info-nce", "chunk_size": 3}), ("own", {})],
)
def test_two_processes_have_the_gradients_of_one(make_config, tmp_path, kind, changes):
    """Adam hides a factor of the gradients from the losses of a run, so they are compared here."""
    config = make_config(dropout=0.0, margin=0.5, device="cpu", **changes)
    for count in (1, 2):
        run(config, count, GRADIENTS, kind)
    one, first, second = (
        load_file(f"{config.out}-{at}.safetensors") for at in ("1-0", "2-0", "2-1")
    )
    assert one.keys() == first.keys() and len(one) > 100
    for name, value in one.items():
        scale = value.abs().max().clamp(min=1e-2)  # a batch norm makes some of them zero
        for other in (first, second):
            assert (value - other[name]).abs().max() <= 1e-4 * scale, name


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

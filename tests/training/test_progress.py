"""The log of a run, and its plot."""

from __future__ import annotations

import pytest
from PIL import Image

from mdmmt.training.checkpoints import RunState
from mdmmt.training.progress import Log, plot, read_log


def test_a_log_goes_on_after_the_steps_that_are_done(tmp_path):
    log = Log(tmp_path, 0)
    lines = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    for line in lines:
        log.write(line)
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')  # a killed process
    assert read_log(tmp_path) == lines
    log = Log(tmp_path, 2)
    log.write({"step": 3, "loss": 0.5})
    assert read_log(tmp_path) == [*lines[:2], {"step": 3, "loss": 0.5}]


def test_tensorboard_shows_the_numbers_of_steps_and_epochs(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Log(tmp_path, 0, tensorboard=True)
    for step in (1, 2, 3):
        log.write({"step": step, "epoch": 1, "loss": 1 / step})
    log.writer.close()
    log = Log(tmp_path, 2, tensorboard=True)  # a run that goes on after its second step
    log.write({"step": 3, "epoch": 1, "loss": 0.5})
    log.write({"step": 3, "epoch": 1, "validation": {"val.csv": {"t2v": {"R@1": 12.5}}}})
    log.writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [(1, 1), (2, 0.5), (3, 0.5)]
    assert [one.value for one in events.Scalars("val.csv/t2v R@1")] == [12.5]


@pytest.mark.parametrize("validated", [False, True])
def test_a_plot_shows_loss_and_recall(tmp_path, validated):
    metrics = {"t2v": {"R@1": 10.0, "R@5": 20.0, "R@10": 30.0}}
    history = [
        {"epoch": epoch, "validation": {"val.jsonl": metrics} if validated else {}}
        for epoch in (1, 2)
    ]
    steps = [{"step": step, "loss": 1 / step} for step in (1, 2)]
    plot(tmp_path, [*steps, {"step": 2, "mean_loss": 0.5}], RunState(2, 1, 0.1, history))
    with Image.open(tmp_path / "progress.png") as picture:
        assert picture.width > 500

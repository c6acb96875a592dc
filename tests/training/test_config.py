"""Settings are checked where they are read, and each message names the key."""

from __future__ import annotations

import pytest

from mdmmt.errors import InputError
from mdmmt.training.config import differences, from_mapping

MINIMAL = {"out": "run", "datasets": [{"data": "a.jsonl", "features": "a"}]}


def test_the_defaults_are_those_of_the_paper():
    config = from_mapping(MINIMAL, "x")
    assert (config.epochs, config.batch_size, config.margin) == (50, 32, 0.05)
    assert (config.learning_rate, config.decay, config.loss) == (5e-5, 0.95, "max-margin")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 1}, "x has unknown learning_rat; known: out, datasets"),
        ({"datasets": [{"data": "a"}]}, r"x: datasets\[0\] lacks features"),
        ({"datasets": [{"data": "a", "features": "b", "w": 1}]}, r"x: datasets\[0\] has unknown w"),
        ({"datasets": []}, "x: datasets is empty, expected at least one"),
        ({"datasets": "a.jsonl"}, "x: datasets is a str, expected a list"),
        ({"epochs": 0}, "x: epochs is 0, expected a number from 1"),
        ({"epochs": "ten"}, "x: epochs is 'ten', expected a whole number"),
        ({"epochs": True}, "x: epochs is True, expected a whole number"),
        ({"batch_size": 1}, "x: batch_size is 1, expected a number from 2"),
        ({"learning_rate": float("nan")}, "x: learning_rate is nan, expected a number above 0"),
        ({"expert_dropout": 1}, "x: expert_dropout is 1, expected a number from 0 to below 1"),
        ({"schedule": "linear"}, "x: schedule is 'linear', expected decay, one-cycle"),
        ({"beta2": 1}, "x: beta2 is 1, expected a number from 0 to below 1"),
        ({"loss": "triplet"}, "x: loss is 'triplet', expected max-margin, info-nce"),
        ({"freeze": "both"}, "x: freeze is 'both', expected nothing, text, video"),
        ({"skip_missing": 1}, "x: skip_missing is 1, expected true or false"),
        ({"samples_per_epoch": 8}, "x: samples_per_epoch is 8 and batch_size 32, expected at"),
    ],
)
def test_a_bad_setting_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        from_mapping({**MINIMAL, **changes}, "x")


def test_missing_settings_are_named():
    with pytest.raises(InputError, match="x lacks out, datasets"):
        from_mapping({}, "x")


def test_differences_leave_out_what_a_run_may_change():
    config = from_mapping(MINIMAL, "x")
    other = from_mapping({**MINIMAL, "out": "o", "epochs": 9, "seed": 1, "margin": 0.1}, "x")
    assert differences(config, other) == ["seed", "margin"]
    # The number of epochs is a part of a one-cycle schedule.
    config, other = (
        from_mapping({**MINIMAL, "schedule": "one-cycle", "epochs": n}, "x") for n in (8, 9)
    )
    assert differences(config, other) == ["epochs"]

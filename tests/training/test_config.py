"""Settings are checked where they are read, and each message names the key."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from mdmmt.errors import InputError, InputTypeError
from mdmmt.training.config import (
    DatasetConfig,
    TrainingConfig,
    differences,
    from_mapping,
    read_recipe,
    to_mapping,
)

RECIPE = """
out: runs/both
init: sample
learning_rate: 5e-5
datasets:
  - {data: a.jsonl, features: a, weight: 140}
  - data: b.jsonl
    features: b
    val: b-val.jsonl
"""
PAGE = Path(__file__).parents[2] / "docs" / "training.md"
MINIMAL = {"out": "run", "datasets": [{"data": "a.jsonl", "features": "a"}]}


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return file


def test_a_recipe_gives_the_settings_of_several_datasets(recipe):
    config = read_recipe(recipe, {"epochs": 3})
    assert config == TrainingConfig(
        out="runs/both",
        init="sample",
        learning_rate=5e-5,
        epochs=3,
        datasets=(
            DatasetConfig("a.jsonl", "a", weight=140),
            DatasetConfig("b.jsonl", "b", val="b-val.jsonl"),
        ),
    )
    assert from_mapping(to_mapping(config), "x") == config


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


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("out: run\nepochs: [1,\n")
    with pytest.raises(InputError, match=r"recipe\.yaml, line 3: is not YAML"):
        read_recipe(file)
    file.write_text("- 1\n")
    with pytest.raises(InputError, match=r"recipe\.yaml is a list, expected keys and values"):
        read_recipe(file)
    with pytest.raises(InputTypeError, match="out is 7, expected a text"):
        from_mapping({**MINIMAL, "out": 7}, "x")


def test_the_page_has_the_recipe_of_the_paper_and_every_setting(tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    file = tmp_path / "paper.yaml"
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    config = read_recipe(file)
    assert [one.weight for one in config.datasets] == [140, 100, 70, 60, 9, 9, 102, 169]
    assert (config.samples_per_epoch, config.dropout) == (150_000, 0.2)
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert {field.name for field in fields(TrainingConfig)} <= set(rows)
    assert all(f"`{field.name}`" in page for field in fields(DatasetConfig))


def test_differences_leave_out_what_a_run_may_change():
    config = from_mapping(MINIMAL, "x")
    other = from_mapping({**MINIMAL, "out": "o", "epochs": 9, "seed": 1, "margin": 0.1}, "x")
    assert differences(config, other) == ["seed", "margin"]

"""A recipe gives the settings of a run, and each message names the line of what is wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from mdmmt.errors import InputError, InputTypeError
from mdmmt.training.config import DatasetConfig, TrainingConfig, from_mapping, to_mapping
from mdmmt.training.recipe import parse_yaml, read_recipe

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
DATASET = "datasets:\n  - data: a.jsonl\n    features: a\n"


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe."""

    def write(text: str) -> Path:
        file = tmp_path / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def test_a_recipe_gives_the_settings_of_several_datasets(recipe):
    config = read_recipe(recipe(RECIPE), {"epochs": 3})
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"out: x\nepoch: 3\n{DATASET}", ", line 2 has unknown epoch; known: out, datasets"),
        (f"{DATASET}out: x\nepoch: 3\nbatch: 1\n", ", line 5 has unknown epoch; known: out"),
        (f"out: x\n{DATASET}on: 3\n", ", line 5 has unknown True; known: out"),
        (f"out: x\n{DATASET}    w: 1\n", ", line 5: datasets[0] has unknown w; known: data"),
        (f"out: x\n{DATASET}    1: 1\n", ", line 5: datasets[0] has unknown 1; known: data"),
        (
            f"out: x\n{DATASET}  - {{data: b,\n     features: b, w: 1}}\n",
            ", line 6: datasets[1] has unknown w; known: data",
        ),
        (f"out: x\n{DATASET}  -\n    data: b\n", ", line 6: datasets[1] lacks features"),
        (f"out: x\n{DATASET}  - b.jsonl\n", ", line 5: datasets[1] is a str, expected a dict"),
        (f"\nout: 7\n{DATASET}", ", line 2: out is 7, expected a text"),
        (f"out: x\n{DATASET}epochs: 0\n", ", line 5: epochs is 0, expected a number from 1"),
        (f"out: x\n{DATASET}seed: [1]\n", ", line 5: seed is [1], expected a whole number"),
        (f"out: x\nloss: a\n{DATASET}", ", line 2: loss is 'a', expected max-margin, info-nce"),
        (
            f"freeze: text\nlora_rank: 4\nout: x\n{DATASET}",
            ", line 1: freeze is 'text' and lora_rank is given, expected one of the two",
        ),
        (
            f"out: x\n{DATASET}    weight: much\n",
            ", line 5: datasets[0]: weight is 'much', expected a number",
        ),
        ("out: x\n\ndatasets: a.jsonl\n", ", line 3: datasets is a str, expected a list"),
        ("out: x\n\ndatasets: {a: b}\n", ", line 3: datasets is a dict, expected a list"),
        ("out: x\n\ndatasets: []\n", ", line 3: datasets is empty, expected at least one"),
        (
            f"out: x\nepochs: 1\n{DATASET}epochs: 2\n",
            ", line 6: epochs is there twice, first in line 2; expected it once",
        ),
        (
            f"out: x\n{DATASET}    'data': b\n",
            ", line 5: data is there twice, first in line 3; expected it once",
        ),
        (f"{DATASET}", " lacks out"),
        ("", " is a NoneType, expected keys and values"),
        ("- 1\n", " is a list, expected keys and values"),
        ("out: run\nepochs: [1,\n", ", line 3: is not YAML ("),
        ("out: x\nseed: 2026-02-30\n", ", line 2: is not YAML (day "),
        ("out: x\nseed: !!int x\n", ", line 2: is not YAML (invalid literal for int()"),
        ("out: x\nseed: !other x\n", ", line 2: is not YAML (could not determine a constructor"),
        ("out: x\n[a]: x\n", ", line 2: is not YAML (found unhashable key"),
        ("out: x\nseed: \x07\n", ", line 2: is not YAML (special characters are not allowed"),
        ("[" * 5000, ": is nested too deeply, expected keys and values"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(recipe, text, message):
    file = recipe(text)
    with pytest.raises(InputError) as caught:
        read_recipe(file)
    assert str(caught.value).startswith(f"{file}{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "key"),
    [(cls, one.name) for cls in (TrainingConfig, DatasetConfig) for one in fields(cls)],
)
def test_a_value_of_another_type_is_named_with_its_line(recipe, cls, key):
    is_dataset = cls is DatasetConfig
    lines = ["out: x", "datasets:", "  - features: a", "    data: a.jsonl"]
    lines = [line for line in lines if f"{key}:" not in line or key == "datasets"]
    if key == "datasets":
        lines = lines[:1]
    lines.append(f"{'    ' if is_dataset else ''}{key}: {{a: b}}")
    if key == "features":
        lines[-2] = "  - data: a.jsonl"
    file = recipe("\n".join(lines) + "\n")
    with pytest.raises(InputTypeError) as caught:
        read_recipe(file)
    part = "datasets[0]: " if is_dataset else ""
    assert str(caught.value).startswith(f"{file}, line {len(lines)}: {part}{key} is ")


def test_keys_that_a_merge_brings_are_named_with_their_own_line(recipe):
    text = (
        "datasets:\n  - &first\n    data: a\n    features: b\n    w: 1\n"
        "  - {<<: *first, data: c}\nout: x\n"
    )
    file = recipe(text)
    with pytest.raises(InputError, match=r"line 5: datasets\[0\] has unknown w"):
        read_recipe(file)
    file = recipe(text.replace("w: 1", "val: v"))
    first, second = read_recipe(file).datasets
    assert (first.data, second.data, second.features, second.val) == ("a", "c", "b", "v")
    file = recipe(text.replace("    w: 1\n", "").replace("data: c", "w: 1"))
    with pytest.raises(InputError, match=r"line 5: datasets\[1\] has unknown w"):
        read_recipe(file)


def test_settings_beside_a_recipe_are_told_from_those_in_it(recipe):
    file = recipe(f"out: x\nepochs: 3\n{DATASET}")
    for overrides, message in (
        ({"epochs": 0}, "epochs is 0"),
        ({"epoch": 0}, "has unknown epoch"),
        ({"datasets": 7}, "datasets is a int"),
    ):
        with pytest.raises(InputError, match=f"^the settings given beside .*{message}"):
            read_recipe(file, overrides)


def test_values_of_the_command_line_are_read_alike():
    assert parse_yaml("5e-5", "--set x") == 5e-5
    with pytest.raises(InputError, match=r"^--set x, line 1: a is there twice, first in line 1"):
        parse_yaml("{a: 1, a: 2}", "--set x")


def test_the_page_has_the_recipe_of_the_paper_and_every_setting(recipe):
    page = PAGE.read_text(encoding="utf-8")
    config = read_recipe(recipe(page.partition("```yaml\n")[2].partition("```")[0]))
    assert [one.weight for one in config.datasets] == [140, 100, 70, 60, 9, 9, 102, 169]
    assert (config.samples_per_epoch, config.dropout) == (150_000, 0.2)
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert {field.name for field in fields(TrainingConfig)} <= set(rows)
    assert all(f"`{field.name}`" in page for field in fields(DatasetConfig))

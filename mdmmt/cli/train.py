"""`mdmmt train`: fits a model to captions and features."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .common import Commands, print_result, shows_bars

OPTIONS = "the options"  # what messages call the settings that are given as options
NEEDED = ("data", "features", "out")  # without a recipe
OF_DATASET = ("data", "features", "val", "val_features")


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    train = commands.add_parser("train", help="train a model on captions and features")
    train.add_argument(
        "recipe", nargs="?", type=Path, metavar="RECIPE", help="settings of a run, a YAML file"
    )
    train.add_argument(
        "--data", metavar="FILE", help="annotation file, in a format that `mdmmt evaluate` reads"
    )
    train.add_argument(
        "--features", metavar="FOLDER", help="its feature files, from `mdmmt extract`"
    )
    train.add_argument(
        "--val", metavar="FILE", help="annotation file on which each epoch is evaluated"
    )
    train.add_argument(
        "--val-features", metavar="FOLDER", help="its feature files; default: --features"
    )
    train.add_argument(
        "--init",
        metavar="WEIGHTS",
        help="weights to start from: a file, a model folder, owner/name on Hugging Face, or "
        "'sample'; default: the released model",
    )
    train.add_argument(
        "--exclude",
        metavar="FILE",
        help="list of duplicates, from `mdmmt duplicates`, whose training segments are left out",
    )
    train.add_argument("--out", metavar="FOLDER", help="run folder; a run that is there goes on")
    train.add_argument("--device", help="cpu; default: CUDA if there is one")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another setting, such as epochs=10; may be repeated",
    )
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    from ..training.config import from_mapping
    from ..training.loop import train
    from ..training.recipe import read_recipe

    values: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("init", "exclude", "out", "device")
        if getattr(arguments, name) is not None
    }
    values |= _settings(arguments.set)
    dataset = {
        name: getattr(arguments, name)
        for name in OF_DATASET
        if getattr(arguments, name) is not None
    }
    if arguments.recipe is not None:
        if dataset:
            given = ", ".join(f"--{name.replace('_', '-')}" for name in dataset)
            raise InputError(
                f"{given} and a recipe are given; expected the recipe to name the datasets"
            )
        config = read_recipe(arguments.recipe, values)
    else:
        missing = [f"--{name}" for name in NEEDED if getattr(arguments, name) is None]
        if missing:
            raise InputError(
                f"{', '.join(missing)}: missing; expected --data, --features and --out, or a recipe"
            )
        config = from_mapping({**values, "datasets": [dataset]}, OPTIONS)
    result = train(config, show_progress=shows_bars())
    if result.is_main:
        print_result(
            f"the best epoch is {result.best_epoch} of {len(result.history)}; its model is in "
            f"{result.folder}"
        )
    return 0


def _settings(given: Sequence[str]) -> dict[str, Any]:
    from ..training.recipe import parse_yaml

    settings = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set is {text!r}, expected NAME=VALUE, such as epochs=10")
        settings[name.strip()] = parse_yaml(value, f"--set {name}")
    return settings

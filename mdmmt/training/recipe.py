"""The settings of a training run in a file, a recipe in YAML. Messages name the line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingDependency
from ..storage.text import read_text
from .config import TrainingConfig, from_mapping

# 5e-5, which is a number in YAML 1.2 and a text to PyYAML.
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def read_recipe(
    path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None
) -> TrainingConfig:
    """Read the settings of a run from a YAML file.

    Args:
        path: a file whose keys are the fields of `TrainingConfig`, and whose `datasets` is a list
            of mappings with the fields of `DatasetConfig`. Paths in it are relative to the folder
            in which the process runs.
        overrides: values that replace those of the file.

    Raises:
        InputError, InputTypeError: the file cannot be read or is not YAML, a key is unknown,
            missing or there twice, or a value is of another type or out of range. The message
            names the file, the line and the key.
        MissingDependency: PyYAML is not installed.
    """
    path = Path(path)
    overrides = overrides or {}
    values, lines = _parse(read_text(path), str(path))
    if not isinstance(values, Mapping):
        raise InputError(f"{path} is a {type(values).__name__}, expected keys and values")

    def place(name: str, dataset: int | None) -> str:
        if (name if dataset is None else "datasets") in overrides:
            return f"the settings given beside {path}"
        line = lines.get((name, dataset)) or lines.get(("", dataset))
        return str(path) if line is None else f"{path}, line {line}"

    return from_mapping({**values, **overrides}, str(path), place)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML.

    Args:
        where: the name of the text, with which error messages start.

    Raises:
        InputError: the text is not YAML, or a key is there twice.
        MissingDependency: PyYAML is not installed.
    """
    values, _ = _parse(text, where)
    return values


def _parse(text: str, where: str) -> tuple[Any, dict[tuple[str, int | None], int]]:
    """What YAML holds, and the lines of its keys and datasets.

    The key of a line is the name of a key and the number of its dataset, None for a key of the
    recipe itself. A dataset begins in the line of the name "".
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingDependency("a recipe in YAML", extra="train") from error

    class Loader(yaml.SafeLoader):  # type: ignore[misc] # yaml has no types
        """Names the line of a key that is there twice, and of a value that cannot be read."""

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            first: dict[tuple[str, str], Any] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                earlier = first.setdefault((key.tag, key.value), key)
                if earlier is not key:
                    raise InputError(
                        f"{where}, line {_line(key)}: {key.value} is there twice, first in line "
                        f"{_line(earlier)}; expected it once"
                    )
            return node

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except ValueError as error:  # such as a date that no month has
                raise yaml.constructor.ConstructorError(
                    None, None, str(error), node.start_mark
                ) from error

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        values = None if root is None else loader.construct_document(root)
        return values, _lines_of(root, loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{where}, line {line}: is not YAML ({error.reason})") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1
        raise InputError(f"{where}, line {line}: is not YAML ({error.problem})") from error
    except RecursionError as error:
        raise InputError(f"{where}: is nested too deeply, expected keys and values") from error


def _lines_of(root: Any, loader: Any) -> dict[tuple[str, int | None], int]:
    """The lines of the keys and datasets of a recipe; see `_parse`. YAML of any shape will do."""

    def pairs(node: Any) -> list[tuple[str, int, Any]]:
        """The keys of a mapping, their lines and values; none if it is no mapping."""
        if node is None or node.id != "mapping":
            return []
        return [(str(loader.construct_object(key)), _line(key), value) for key, value in node.value]

    lines: dict[tuple[str, int | None], int] = {}
    for key, line, value in pairs(root):
        lines[key, None] = line
        if key == "datasets" and value.id == "sequence":
            for number, dataset in enumerate(value.value):
                lines["", number] = _line(dataset)
                lines.update({(name, number): at for name, at, _ in pairs(dataset)})
    return lines


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1

"""The parser of the commands, which names the nearest word for one that is mistyped."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any


class Parser(argparse.ArgumentParser):
    """Takes options by their full names alone, so that a new option changes no command line."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options, allow_abbrev=False)

    @property
    def commands(self) -> dict[str, Parser]:
        """The parsers of the sub-commands by name."""
        return {
            name: command
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name, command in action.choices.items()
        }

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Parser]]:
        """Yield each command that has no sub-commands, by its full name."""
        for name, command in self.commands.items():
            if command.commands:
                yield from command.leaves(f"{prefix}{name} ")
            else:
                yield f"{prefix}{name}", command

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, and first refuse an option that is not there.

        argparse itself would first complain of what is missing because an option is mistyped.
        """
        if args is not None:
            for name in self._unknown_options(args):
                self.error(f"there is no option {name}{_hint(name, self._option_string_actions)}")
        return super().parse_known_args(args, namespace)

    def _unknown_options(self, args: Sequence[str]) -> Iterator[str]:
        for arg in args:
            name = arg.partition("=")[0]
            if name == "--" or (self.commands and not arg.startswith("-")):
                return  # options of a sub-command follow, or none
            is_option = name.startswith("--") and " " not in name
            if is_option and name not in self._option_string_actions:
                yield name

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            expected = f"{value!r}, expected {', '.join(choices)}"
            raise argparse.ArgumentError(action, expected + _hint(str(value), choices))


def _hint(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""

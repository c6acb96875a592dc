"""The examples in the help: each is a command line that the parser takes."""

from __future__ import annotations

import shlex

import pytest

from mdmmt.cli import main, make_parser
from mdmmt.cli.examples import EXAMPLES

COMMANDS = dict(make_parser().leaves())


def test_every_command_has_examples() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_of_the_command_and_are_taken(name: str, capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*name.split(), "--help"])
    shown = capsys.readouterr().out
    for example in EXAMPLES[name]:
        assert f"\n  {example}\n" in shown
        words = shlex.split(example.partition(" > ")[0])
        assert words[: len(name.split()) + 1] == ["mdmmt", *name.split()]
        assert callable(make_parser().parse_args(words[1:]).run)

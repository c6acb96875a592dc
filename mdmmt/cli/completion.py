"""`mdmmt completion`: prints a script that lets a shell complete commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import MissingDependency
from .common import Commands

if TYPE_CHECKING:
    from .parser import Parser

SHELLS = ("bash", "zsh", "tcsh")
FILES, FOLDERS = ("FILE", "PATH", "IN"), ("FOLDER",)  # what an option calls its value


def add_commands(commands: Commands, make_parser: Callable[[], Parser]) -> None:
    """Add the command to the parser.

    Args:
        make_parser: makes the parser of all commands, which the script is written from.
    """
    completion = commands.add_parser(
        "completion", help="print a script with which your shell completes commands and options"
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=partial(_completion, make_parser))


def _completion(make_parser: Callable[[], Parser], arguments: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError as error:
        raise MissingDependency("completion", "completion") from error

    parser = make_parser()
    for _, command in parser.leaves():
        for action in command._actions:
            if action.metavar in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined] # shtab's own
            elif action.metavar in FOLDERS:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(parser, arguments.shell))
    return 0

"""The command `mdmmt`; `mdmmt --help` lists its sub-commands.

Each module here adds some commands to the parser and runs them. A command imports its own
dependencies when it runs, so `mdmmt --help` is quick.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from ..errors import MdmmtError, describe_error
from ..version import VERSION
from . import (
    app,
    batch,
    completion,
    demo,
    dumps,
    duplicates,
    embed,
    evaluation,
    extract,
    operator_folder,
    search,
    train,
    weights,
)
from .common import add_message_options, any_name_printable, logger, logging_to_stderr, say
from .examples import EXAMPLES
from .parser import Parser


def make_parser() -> Parser:
    """Make the parser of all commands; each command sets `run`, which takes the arguments."""
    parser = Parser(prog="mdmmt", description="Text and video in one embedding space (MDMMT).")
    parser.add_argument("--version", action="version", version=f"mdmmt {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (
        demo,
        extract,
        embed,
        batch,
        dumps,
        search,
        app,
        evaluation,
        duplicates,
        train,
        weights,
        operator_folder,
    ):
        module.add_commands(commands)
    completion.add_commands(commands, make_parser)
    for name, command in parser.leaves():
        add_message_options(command)
        command.epilog = "\n  ".join(("examples:", *EXAMPLES[name]))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 after an error, 130 after Ctrl-C."""
    arguments = make_parser().parse_args(argv)
    with any_name_printable(), warnings.catch_warnings(), logging_to_stderr(arguments):
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: say(message, logging.WARNING)
        try:
            return arguments.run(arguments)
        except (MdmmtError, OSError) as error:
            say(describe_error(error))
            logger.debug("it arose here:", exc_info=True)
            return 1
        except KeyboardInterrupt:
            say("interrupted")
            return 130

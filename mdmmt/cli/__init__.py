"""The command `mdmmt`; `mdmmt --help` lists what it does.

Each module here adds some commands to the parser and runs them. What a command needs besides the
package itself is imported when it runs.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

from ..errors import MdmmtError, describe_error
from ..version import VERSION
from . import evaluation, search, videos, weights
from . import operator_folder as towhee
from .common import logging_to_stderr, say


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 after an error that was the input's."""
    parser = argparse.ArgumentParser(
        prog="mdmmt", description="Text and video in one embedding space (MDMMT)."
    )
    parser.add_argument("--version", action="version", version=f"mdmmt {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (videos, search, evaluation, weights, towhee):
        module.add_commands(commands)
    arguments = parser.parse_args(argv)
    with warnings.catch_warnings(), logging_to_stderr():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: say(message)
        try:
            return arguments.run(arguments)
        except (MdmmtError, OSError) as error:
            say(describe_error(error))
            return 1
        except KeyboardInterrupt:
            say("interrupted")
            return 130

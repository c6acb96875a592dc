"""`mdmmt demo`: the whole way on clips that it draws."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import Commands


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    demo = commands.add_parser("demo", help="draw clips, embed them, find them by text")
    demo.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder to write to; default: %(default)s"
    )
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from ..sample.demo import run

    run(arguments.out)
    return 0

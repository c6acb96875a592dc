"""`mdmmt hub-folder` and `install-operator`: write the operator where Towhee finds it."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import Commands, report


def add_commands(commands: Commands) -> None:
    """Add these commands to the parser."""
    hub_folder = commands.add_parser("hub-folder", help="write the folder that Towhee's hub holds")
    hub_folder.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder to write"
    )
    hub_folder.set_defaults(run=_hub_folder)

    install = commands.add_parser(
        "install-operator", help="put the operator into Towhee's operator folder"
    )
    install.set_defaults(run=_install_operator)


def _hub_folder(arguments: argparse.Namespace) -> int:
    from ..operator_folder import write_operator_folder

    write_operator_folder(arguments.out)
    return report([], f"operator folder written to {arguments.out}")


def _install_operator(arguments: argparse.Namespace) -> int:
    from ..operator_folder import install_operator

    return report([], f"operator installed in {install_operator()}")

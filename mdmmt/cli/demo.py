"""`mdmmt demo`: the whole way on clips that it draws."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from .common import Commands, print_result, say


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    demo = commands.add_parser("demo", help="draw clips, embed them, find them by text")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="FOLDER",
        help="folder to write to; default: %(default)s",
    )
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from ..operator import check_towhee

    check_towhee("the demo")
    from ..sample import NOTICE
    from ..sample.demo import format_result, run

    demo = run(arguments.out)
    say(NOTICE, logging.INFO)
    for result in demo.results:
        print(format_result(result, demo.clips), end="\n\n")
    first = sum(result.ranking[0] == result.target for result in demo.results)
    print_result(
        f"{first} of {len(demo.results)} queries found their clip first among {len(demo.clips)}. "
        f"Embeddings {demo.videos.shape} {demo.videos.dtype}, clips and a picture are in "
        f"{arguments.out}: see {demo.picture}"
    )
    return 0

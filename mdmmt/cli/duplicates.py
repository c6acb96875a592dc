"""`mdmmt duplicates`: the segments that two sets of videos share."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ..storage.text import counted
from .common import Commands, names_of_experts, progress, report, say, seconds

DEFAULT_THRESHOLD_S = 1.2  # of `find_duplicates`, whose module is slow to import


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    duplicates = commands.add_parser(
        "duplicates", help="the segments that two sets of videos share, such as test and training"
    )
    duplicates.add_argument("a", type=Path, metavar="A", help="folder of feature files")
    duplicates.add_argument(
        "b",
        type=Path,
        metavar="B",
        help="another one, or the same, of which each two videos are compared",
    )
    duplicates.add_argument(
        "--out", type=Path, metavar="FILE", help="write the list; default: print it"
    )
    duplicates.add_argument(
        "--experts",
        type=names_of_experts,
        metavar="NAME,NAME",
        help="the experts that are compared; default: all that both folders have",
    )
    duplicates.add_argument(
        "--threshold",
        type=seconds,
        default=DEFAULT_THRESHOLD_S,
        metavar="S",
        help="what a segment must count for, in seconds of a perfect copy; default: %(default)g",
    )
    duplicates.set_defaults(run=_duplicates)


def _duplicates(arguments: argparse.Namespace) -> int:
    from ..datasets import find_duplicates, write_duplicates
    from ..datasets.duplicate_lists import format_duplicate
    from ..features import FeatureFolder
    from ..storage.files import check_writable

    if arguments.out is not None:
        check_writable(arguments.out)
    a = FeatureFolder(arguments.a)
    b = a if arguments.a.resolve() == arguments.b.resolve() else FeatureFolder(arguments.b)
    found = find_duplicates(
        a, b, threshold_s=arguments.threshold, experts=arguments.experts, progress=progress
    )
    summary = counted(len(found), "duplicate")
    if a is b:
        summary += f" among {counted(len(a.videos()), 'video')}"
    else:
        summary += f" between {len(a.videos())} and {counted(len(b.videos()), 'video')}"
    if arguments.out is None:
        for line in map(format_duplicate, found):
            print(line)
        say(summary, logging.INFO)
        return 0
    write_duplicates(arguments.out, found)
    return report([], f"{summary}, written to {arguments.out}")

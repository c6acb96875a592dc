"""`mdmmt dumps`: feature files from and to the dumps of MDMMT's authors."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from ..storage.text import counted
from .common import Commands, report


def add_commands(commands: Commands) -> None:
    """Add the commands to the parser."""
    dumps = commands.add_parser(
        "dumps", help="features as the authors of MDMMT keep them, .emb and .idx"
    ).add_subparsers(required=True, metavar="read|write")
    read = dumps.add_parser("read", help="write a feature file for each video in some dumps")
    read.add_argument(
        "dumps",
        nargs="+",
        metavar="EXPERT=PREFIX",
        help="each expert's dump, as CLIP=folder/clip for folder/clip_0.emb and so on",
    )
    read.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder for the feature files"
    )
    read.set_defaults(run=_read_dumps)
    write = dumps.add_parser("write", help="write a dump for each expert in some feature files")
    write.add_argument("features", nargs="+", type=Path, metavar="FILE", help="feature files")
    write.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for EXPERT.emb, EXPERT.idx",
    )
    write.set_defaults(run=_write_dumps)


def _read_dumps(arguments: argparse.Namespace) -> int:
    from ..experts import expert_classes
    from ..features.dumps import read_dumps
    from ..features.files import SUFFIX, SourceVideo, update_features
    from ..storage.files import check_folder

    wrong = [argument for argument in arguments.dumps if "=" not in argument]
    if wrong:
        raise InputError(f"{wrong[0]!r} names no dump, expected EXPERT=PREFIX")
    check_folder(arguments.out)
    prefixes = dict(argument.split("=", 1) for argument in arguments.dumps)
    if len(prefixes) < len(arguments.dumps):
        raise InputError("an expert is named twice, expected one PREFIX for each")
    dims = {name: expert.dim for name, expert in expert_classes(prefixes).items()}
    videos = read_dumps(prefixes, dims)
    for video, features in videos.items():
        file = arguments.out / f"{video}{SUFFIX}"
        versions = dict.fromkeys(features, "dump")
        update_features(file, SourceVideo(video, None, None), features, versions, "track")
    return report([], f"features of {counted(len(videos), 'video')} written to {arguments.out}")


def _write_dumps(arguments: argparse.Namespace) -> int:
    from ..features.dumps import write_dumps
    from ..features.files import read_features, read_header
    from ..storage.files import check_folder

    check_folder(arguments.out)
    names = {name for file in arguments.features for name in read_header(file)[1]}
    prefixes = {name: arguments.out / name for name in sorted(names)}
    contents = map(read_features, arguments.features)
    write_dumps(prefixes, ((content.source.name, content.features) for content in contents))
    return report([], f"{', '.join(prefixes)}: dumps written to {arguments.out}")

"""`mdmmt download`, `convert`, `info` and `export`: the model's weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import WEIGHTS_DEFAULT, WEIGHTS_HELP, Commands, report


def add_commands(commands: Commands) -> None:
    """Tell the parser of these commands."""
    download = commands.add_parser(
        "download", help="fetch the released weights from Google Drive into this user's cache"
    )
    download.set_defaults(run=_download)

    convert = commands.add_parser("convert", help="write a model folder from any weights")
    convert.add_argument("source", metavar="IN", help=WEIGHTS_HELP)
    convert.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    convert.set_defaults(run=_convert)

    export = commands.add_parser("export", help="write a tower as an ONNX file")
    export.add_argument("modality", choices=["video", "text"])
    export.add_argument("out", metavar="OUT", type=Path, help="file to write, .onnx")
    export.add_argument("--weights", help=WEIGHTS_HELP + WEIGHTS_DEFAULT)
    export.set_defaults(run=_export)

    info = commands.add_parser("info", help="say what weights are: layout, experts, sizes, hash")
    info.add_argument("weights", metavar="PATH", help=WEIGHTS_HELP)
    info.set_defaults(run=_info)


def _download(arguments: argparse.Namespace) -> int:
    from ..weights.released import add_tokenizer, released_weights

    folder = released_weights()
    add_tokenizer(folder)
    print(f"the released weights are in {folder}; weight_path=None finds them there")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from ..weights.convert import convert

    print(f"model folder written to {convert(arguments.source, arguments.out)}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from ..operator import MDMMT
    from ..storage.files import check_folder

    check_folder(arguments.out.parent)  # before anything is downloaded
    MDMMT(arguments.modality, arguments.weights, "cpu").save_model("onnx", arguments.out)
    return report([], f"{arguments.modality} tower written to {arguments.out}")


def _info(arguments: argparse.Namespace) -> int:
    from ..weights.info import info

    for fact, value in info(arguments.weights).items():
        print(f"{fact:<12} {value}")
    return 0

"""`mdmmt download`, `convert`, `info` and `export`: the model's weights."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import DOWNLOADS
from ..storage.files import in_units
from ..storage.text import counted, format_table
from .common import WEIGHTS_DEFAULT, WEIGHTS_HELP, Commands, report, say

LIST_HEADER = ("name", "state", "size, about", "source", "SHA-256 that the publisher states")

if TYPE_CHECKING:
    from ..weights.info import TowerInfo, WeightsInfo


def add_commands(commands: Commands) -> None:
    """Add these commands to the parser."""
    download = commands.add_parser(
        "download",
        help="fetch all that the released model needs into this user's cache, or MDMMT_HOME",
    )
    download.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=DOWNLOADS,
        help=f"fetch this alone: {', '.join(DOWNLOADS)}; may be repeated",
    )
    download.add_argument(
        "--list", action="store_true", help="show sizes, hashes and sources, and fetch nothing"
    )
    download.set_defaults(run=_download)

    convert = commands.add_parser("convert", help="write a model folder from any weights")
    convert.add_argument("source", metavar="IN", help=WEIGHTS_HELP)
    convert.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder to write"
    )
    convert.set_defaults(run=_convert, words={"weight_path": "IN"})

    export = commands.add_parser("export", help="write a tower as an ONNX file")
    export.add_argument("modality", choices=["video", "text"])
    export.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="file to write, .onnx"
    )
    export.add_argument("--weights", help=WEIGHTS_HELP + WEIGHTS_DEFAULT)
    export.set_defaults(run=_export)

    info = commands.add_parser(
        "info",
        help="show layout, experts, sizes and hash of weights; without PATH: what is installed, "
        "what is missing, device and precision",
    )
    info.add_argument("weights", metavar="PATH", nargs="?", help=WEIGHTS_HELP)
    info.set_defaults(run=_info, words={"weight_path": "PATH"})


def _download(arguments: argparse.Namespace) -> int:
    from .. import downloads

    names = [name for name in DOWNLOADS if name in (arguments.only or DOWNLOADS)]
    if arguments.list:
        rows = [LIST_HEADER, *(row for name in names for row in _listed(name))]
        print(format_table(rows, flush_left=(0, 1, 3, 4)))
        return 0
    found, failures = downloads.download(names)
    if found:
        print(format_table([(name, str(place)) for name, place in found.items()], (0, 1)))
    for failure in failures:
        say(failure)
    return 1 if failures else 0


def _listed(name: str) -> Iterator[tuple[str, ...]]:
    """A row for each file of one thing; those of further sources say "or"."""
    from .. import downloads

    state = "there" if downloads.find(name) else "missing"
    for files in downloads.sources(name):
        for file in files:
            yield name, state, in_units(file.size), file.url, file.sha256 or "none"
        state = "or"


def _convert(arguments: argparse.Namespace) -> int:
    from ..weights.convert import convert

    return report([], f"model folder written to {convert(arguments.source, arguments.out)}")


def _export(arguments: argparse.Namespace) -> int:
    from ..operator import MDMMT
    from ..sample import NOTICE
    from ..storage.files import check_folder
    from ..storage.paths import SAMPLE

    check_folder(arguments.out.parent)  # before anything is downloaded
    if arguments.weights == SAMPLE:
        say(NOTICE, logging.INFO)
    MDMMT(arguments.modality, arguments.weights, "cpu").save_model("onnx", arguments.out)
    return report([], f"{arguments.modality} tower written to {arguments.out}")


def _info(arguments: argparse.Namespace) -> int:
    if arguments.weights is None:
        from ..installation import facts

        found = facts()
    else:
        from ..weights.info import info

        found = _facts(info(arguments.weights))
    print(format_table(found.items(), flush_left=(0, 1)))
    return 0


def _facts(info: WeightsInfo) -> dict[str, str]:
    """Facts about weights in words."""
    fits = "yes" if info.path.is_dir() else "yes, the sizes are those of the released model"
    experts = ", ".join(f"{name} ({dim} wide)" for name, dim in info.experts.items())
    skipped = {"skipped": ", ".join(info.skipped)} if info.skipped else {}
    return {
        "path": str(info.path),
        "layout": _layout(info),
        **skipped,
        "size": f"{info.size_bytes:,} bytes",
        "sha256": info.sha256,
        "origin": _origin(info),
        "dtype": ", ".join(info.dtypes),
        "experts": experts or "not known without the video tower",
        "video tower": _tower(info.video_tower),
        "text tower": _tower(info.text_tower),
        "tokenizer": "there" if info.has_tokenizer else "none here",
        "fits": fits if info.misfit is None else f"no: {info.misfit}",
    }


def _layout(info: WeightsInfo) -> str:
    from ..storage.checkpoint import PICKLES
    from ..weights.layout import CONFIG_FILE, MODEL_FILE

    if info.path.is_dir():
        return f"model folder ({CONFIG_FILE}, {MODEL_FILE})"
    if info.file.suffix not in PICKLES:
        return "safetensors"
    return f"torch file, {' and '.join(info.nested) or 'bare tensors'}"


def _origin(info: WeightsInfo) -> str:
    from ..storage.checkpoint import PICKLES

    if info.origin is None:
        return "not noted in such a file" if info.file.suffix in PICKLES else "not noted"
    return f"{info.origin}, sha256 {info.origin_sha256 or 'not noted'}"


def _tower(tower: TowerInfo | None) -> str:
    if tower is None:
        return "not in this file"
    return f"{tower.numbers:,} numbers in {counted(tower.tensors, 'tensor')}"

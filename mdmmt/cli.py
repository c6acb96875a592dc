"""The command `mdmmt`: demo, embed, download, convert, info, hub-folder, install-operator."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import InputError, WeightsError
from .version import VERSION

EMBEDDING_FORMATS = (".npy", ".jsonl")
WEIGHTS_HELP = "weights file, model folder, owner/name[@revision] on Hugging Face, or 'sample'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 after an error that was the input's."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (InputError, WeightsError, OSError) as error:
        print(f"mdmmt: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mdmmt", description="Text and video in one embedding space (MDMMT)."
    )
    parser.add_argument("--version", action="version", version=f"mdmmt {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="draw clips, embed them, find them by text")
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder to write to")
    demo.set_defaults(run=_demo)

    embed = commands.add_parser("embed", help="write the embeddings of videos or texts")
    what = embed.add_mutually_exclusive_group(required=True)
    what.add_argument("videos", nargs="*", default=[], metavar="FILE", help="video files")
    what.add_argument("--text", action="append", metavar="TEXT", help="a text; may be repeated")
    embed.add_argument("--weights", help=WEIGHTS_HELP)
    embed.add_argument("--device", help="cpu, cuda or cuda:N; default CUDA if there is one")
    embed.add_argument(
        "--out", type=Path, required=True, help="file to write, .npy (N, D) float32 or .jsonl"
    )
    embed.set_defaults(run=_embed)

    download = commands.add_parser(
        "download", help="fetch the released weights from Google Drive into this user's cache"
    )
    download.set_defaults(run=_download)

    convert = commands.add_parser("convert", help="write a model folder from any weights")
    convert.add_argument("source", metavar="IN", help=WEIGHTS_HELP)
    convert.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    convert.set_defaults(run=_convert)

    info = commands.add_parser("info", help="say what weights are: layout, experts, sizes, hash")
    info.add_argument("weights", metavar="PATH", help=WEIGHTS_HELP)
    info.set_defaults(run=_info)

    hub_folder = commands.add_parser("hub-folder", help="write the folder that Towhee's hub holds")
    hub_folder.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    hub_folder.set_defaults(run=_hub_folder)

    install = commands.add_parser(
        "install-operator", help="put the operator into Towhee's operator folder"
    )
    install.set_defaults(run=_install_operator)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import run

    run(arguments.out)
    return 0


def _embed(arguments: argparse.Namespace) -> int:
    """Embed what can be; name what cannot at the end, with its reason."""
    from huggingface_hub.utils import tqdm

    from .model import load

    if arguments.out.suffix not in EMBEDDING_FORMATS:
        raise InputError(
            f"--out is {str(arguments.out)!r}, expected a name that ends in "
            f"{' or '.join(EMBEDDING_FORMATS)}"
        )
    model = load(arguments.weights, arguments.device)
    kind, names = ("text", arguments.text) if arguments.text else ("path", arguments.videos)
    encode = model.encode_text if arguments.text else model.encode_video
    rows: list[np.ndarray | None] = []
    failures = []
    for name in tqdm(names, unit=kind, disable=not sys.stderr.isatty()):
        try:
            rows.append(encode(name))
        except InputError as error:
            rows.append(None)
            failures.append(f"{name}: {error}")
    for failure in failures:
        print(f"mdmmt: {failure}", file=sys.stderr)
    if len(failures) == len(names):
        print(f"mdmmt: nothing was embedded, {arguments.out} was not written", file=sys.stderr)
        return 1
    _write_embeddings(arguments.out, kind, names, rows)
    print(f"{len(names) - len(failures)} of {len(names)} embedded, written to {arguments.out}")
    return 1 if failures else 0


def _write_embeddings(
    out: Path, kind: str, names: Sequence[str], rows: Sequence[np.ndarray | None]
) -> None:
    """Write the file whole or not at all.

    Row i of a .npy belongs to name i, and is NaN where there is no embedding; a .jsonl says which
    is which, and leaves those out.
    """
    with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}-", delete=False) as file:
        try:
            if out.suffix == ".npy":
                width = next(len(row) for row in rows if row is not None)
                nothing = np.full(width, np.nan, dtype=np.float32)
                np.save(file, np.stack([nothing if row is None else row for row in rows]))
            else:
                for name, row in zip(names, rows, strict=True):
                    if row is not None:
                        record = {kind: name, "embedding": [float(x) for x in row]}
                        file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
            file.close()
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, out)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _download(arguments: argparse.Namespace) -> int:
    from .download import add_tokenizer, released_weights

    folder = released_weights()
    add_tokenizer(folder)
    print(f"the released weights are in {folder}; weight_path=None finds them there")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from .convert import convert

    print(f"model folder written to {convert(arguments.source, arguments.out)}")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from .info import info

    for fact, value in info(arguments.weights).items():
        print(f"{fact:<12} {value}")
    return 0


def _hub_folder(arguments: argparse.Namespace) -> int:
    from .hub import write_operator_folder

    write_operator_folder(arguments.out)
    print(f"operator folder written to {arguments.out}")
    return 0


def _install_operator(arguments: argparse.Namespace) -> int:
    from .hub import install_operator

    print(f"operator installed in {install_operator()}")
    return 0

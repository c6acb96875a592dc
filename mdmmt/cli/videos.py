"""`mdmmt demo`, `extract`, `embed` and `dumps`: from videos and texts to embeddings."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import RELEASED
from ..errors import InputError
from .common import DEVICE_HELP, Commands, add_model_options, load_model, progress, report


def add_commands(commands: Commands) -> None:
    """Tell the parser of these commands."""
    demo = commands.add_parser("demo", help="draw clips, embed them, find them by text")
    demo.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder to write to; default: %(default)s"
    )
    demo.set_defaults(run=_demo)

    extract = commands.add_parser(
        "extract", help="run the experts on videos, and keep what they find for later"
    )
    extract.add_argument("videos", nargs="+", metavar="FILE", help="video files, folders of them")
    extract.add_argument("--out", type=Path, required=True, help="folder for the feature files")
    extract.add_argument(
        "--experts",
        type=lambda names: names.split(","),
        default=",".join(expert.name for expert in RELEASED.video.experts),
        metavar="NAME,NAME",
        help="default: %(default)s; frame,motion,sound for the sample model",
    )
    extract.add_argument("--device", help=DEVICE_HELP)
    extract.set_defaults(run=_extract)

    embed = commands.add_parser("embed", help="write the embeddings of videos or texts")
    what = embed.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "videos",
        nargs="*",
        default=[],
        metavar="FILE",
        help="video files, feature files, folders of videos",
    )
    what.add_argument("--text", action="append", metavar="TEXT", help="a text; may be repeated")
    add_model_options(embed)
    embed.add_argument(
        "--out", type=Path, required=True, help="file to write, .npy (N, D) float32 or .jsonl"
    )
    embed.add_argument(
        "--segments",
        choices=["windows"],
        help="cut each video into windows, for a .jsonl; by default a video that is longer than "
        "what the model takes gives one embedding, of its beginning",
    )
    embed.add_argument("--window", type=float, metavar="S", help="seconds of each window")
    embed.add_argument("--stride", type=float, metavar="S", help="seconds between their starts")
    embed.set_defaults(run=_embed)

    dumps = commands.add_parser(
        "dumps", help="features as the authors of MDMMT keep them, .emb and .idx"
    ).add_subparsers(required=True, metavar="read|write")
    read = dumps.add_parser("read", help="write a feature file of each video in some dumps")
    read.add_argument(
        "dumps",
        nargs="+",
        metavar="EXPERT=PREFIX",
        help="each expert's dump, as CLIP=folder/clip for folder/clip_0.emb and so on",
    )
    read.add_argument("--out", type=Path, required=True, help="folder for the feature files")
    read.set_defaults(run=_read_dumps)
    write = dumps.add_parser("write", help="write a dump of each expert in some feature files")
    write.add_argument("features", nargs="+", type=Path, metavar="FILE", help="feature files")
    write.add_argument("--out", type=Path, required=True, help="folder for EXPERT.emb, EXPERT.idx")
    write.set_defaults(run=_write_dumps)


def _demo(arguments: argparse.Namespace) -> int:
    from ..sample.demo import run

    run(arguments.out)
    return 0


def _extract(arguments: argparse.Namespace) -> int:
    from .. import experts
    from ..batch.extract import extract_files, find_videos, plan
    from ..device import resolve_device
    from ..storage.files import check_folder

    check_folder(arguments.out)
    planned = plan(find_videos(arguments.videos), arguments.out)
    running = experts.load(arguments.experts, device=resolve_device(arguments.device))
    outcomes = list(progress(extract_files(planned, running), len(planned), "video"))
    kept = sum(outcome.kept for outcome in outcomes)
    failures = [f"{outcome.video}: {outcome.error}" for outcome in outcomes if outcome.error]
    done = len(outcomes) - len(failures)
    return report(
        failures,
        f"{done} of {len(outcomes)} videos have their features in {arguments.out}, "
        f"{kept} of which were there before",
    )


def _embed(arguments: argparse.Namespace) -> int:
    """Embed what can be; name what cannot at the end, with its reason."""
    from ..batch.embed import FORMATS, embed_texts, embed_videos, embed_windows, write_embeddings
    from ..batch.extract import find_videos
    from ..storage.files import check_writable

    out, windows = arguments.out, arguments.segments is not None
    if out.suffix not in FORMATS or (windows and out.suffix != ".jsonl"):
        expected = ".jsonl, since there are --segments" if windows else " or ".join(FORMATS)
        raise InputError(f"--out is {str(out)!r}, expected a name that ends in {expected}")
    if not windows and (arguments.window, arguments.stride) != (None, None):
        raise InputError("--window and --stride are for --segments windows")
    if windows and arguments.text:
        raise InputError("--segments are for videos, not for --text")
    check_writable(out)
    model = load_model(arguments)
    if arguments.text:
        kind, names = "text", arguments.text
        found = embed_texts(model, names)
    else:
        kind, names = "path", [str(path) for path, _ in find_videos(arguments.videos)]
        found = embed_videos(model, names)
        if windows:
            found = embed_windows(model, names, arguments.window, arguments.stride)
    rows = list(progress(found, None if windows else len(names), kind))
    # An error speaks of the text itself, which may be a long one.
    failures = [
        row.error if arguments.text else f"{row.name}: {row.error}" for row in rows if row.error
    ]
    embedded = len(rows) - len(failures)
    if embedded == 0:
        return report(failures, f"nothing was embedded, {out} was not written")
    write_embeddings(out, kind, rows)
    if windows:
        said = f"{embedded} windows of {len(names) - len(failures)} of {len(names)} videos"
    else:
        said = f"{embedded} of {len(names)}"
    return report(failures, f"{said} embedded, written to {out}")


def _read_dumps(arguments: argparse.Namespace) -> int:
    from ..experts import expert_classes
    from ..features.dumps import read_dumps
    from ..features.files import SUFFIX, SourceVideo, read_existing, write_features
    from ..storage.files import check_folder

    wrong = [given for given in arguments.dumps if "=" not in given]
    if wrong:
        raise InputError(f"{wrong[0]!r} names no dump, expected EXPERT=PREFIX")
    check_folder(arguments.out)
    prefixes = dict(given.split("=", 1) for given in arguments.dumps)
    if len(prefixes) < len(arguments.dumps):
        raise InputError("an expert is named twice, expected one PREFIX for each")
    dims = {name: expert.dim for name, expert in expert_classes(prefixes).items()}
    videos = read_dumps(prefixes, dims)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for video, features in videos.items():
        file = arguments.out / f"{video}{SUFFIX}"
        existing = read_existing(file, SourceVideo(video, None, None))
        write_features(file, existing.with_experts(features, dict.fromkeys(features, "dump")))
    return report([], f"{len(videos)} videos have their features in {arguments.out}")


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

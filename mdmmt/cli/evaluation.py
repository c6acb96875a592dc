"""`mdmmt evaluate`: how well a model finds what captions describe."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..datasets.annotations import FORMATS, OWN_FIELDS, SUFFIXES
from ..errors import InputError
from ..evaluation.metrics import PROTOCOLS, UNIQUE
from .common import Commands, add_model_options, load_model, progress, say

FEATURES_FOLDER = "features"
NAMED = 5  # of a long list of videos


def add_commands(commands: Commands) -> None:
    """Tell the parser of these commands."""
    evaluate = commands.add_parser(
        "evaluate", help="recall and ranks, text to video and video to text, on a dataset"
    )
    evaluate.add_argument(
        "--dataset",
        type=Path,
        required=True,
        metavar="PATH",
        help=f"annotation file ({', '.join(one.name for one in FORMATS)}), or a folder with one "
        f"such file and features/; CSV and JSON lines have {', '.join(OWN_FIELDS)}",
    )
    evaluate.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="folder of feature files, from `mdmmt extract`; default: features/ beside the file",
    )
    add_model_options(evaluate)
    evaluate.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default=UNIQUE,
        help="default: %(default)s, that of MDMMT's authors; single for MSR-VTT 1k-A",
    )
    evaluate.add_argument("--split", help="of an MSR-VTT file; default: test")
    evaluate.add_argument(
        "--videos", type=Path, metavar="FILE", help="a list of the videos that are taken"
    )
    evaluate.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out captions whose video has no features, and list them in --out",
    )
    evaluate.add_argument(
        "--ablate", action="store_true", help="also with each expert alone, and each left out"
    )
    evaluate.add_argument("--out", type=Path, metavar="FILE", help="write all of it, as JSON")
    evaluate.add_argument("--plot", type=Path, metavar="FILE", help="write a plot, .png or .svg")
    evaluate.add_argument(
        "--compare", type=Path, metavar="FILE", help="compare with an earlier --out, pair by pair"
    )
    evaluate.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from ..datasets import read_captions, read_video_list
    from ..evaluation import ablate, evaluate, plots, results
    from ..features.files import FeatureFolder
    from ..storage.files import check_writable

    if arguments.out is not None:
        check_writable(arguments.out)
    if arguments.plot is not None:
        plots.check_plot(arguments.plot)
    file = _annotations(arguments.dataset)
    captions = read_captions(file, arguments.split)
    if arguments.videos is not None:
        wanted = set(read_video_list(arguments.videos))
        captions = [caption for caption in captions if caption.video in wanted]
        if not captions:
            raise InputError(f"no caption of {file} is of a video in {arguments.videos}")
        without = sorted(wanted - {caption.video for caption in captions})
        if without:
            say(
                f"{len(without)} of the {len(wanted)} videos in {arguments.videos} have no caption "
                f"in {file}: {', '.join(without[:NAMED])}{', …' if without[NAMED:] else ''}"
            )
    earlier = results.read_results(arguments.compare)[0] if arguments.compare else None
    features = FeatureFolder(arguments.features or file.parent / FEATURES_FOLDER)
    model = load_model(arguments)
    given = (model, captions, features, arguments.protocol)
    how = {"skip_missing": arguments.skip_missing, "progress": progress}
    found = ablate(*given, **how) if arguments.ablate else [evaluate(*given, **how)]
    print(results.table(found))
    if arguments.out is not None:  # before all that may fail
        results.write_results(arguments.out, found)
    if earlier is not None:
        print(f"\nfirst: {arguments.compare}, second: this one")
        print(results.comparison_table(results.compare_results(earlier, found[0])))
    if arguments.plot is not None:
        plots.plot(found, arguments.plot)
    if found[0].missing:
        say(f"{len(found[0].missing)} captions were left out, whose videos have no features")
    return 0


def _annotations(dataset: Path) -> Path:
    """The annotation file that is meant."""
    if not dataset.is_dir():
        return dataset
    files = sorted(file for file in dataset.iterdir() if file.suffix in SUFFIXES)
    if len(files) != 1:
        raise InputError(
            f"the folder {str(dataset)!r} should hold exactly one annotation file "
            f"({', '.join(SUFFIXES)}); found: {', '.join(f.name for f in files) or 'none'}"
        )
    return files[0]

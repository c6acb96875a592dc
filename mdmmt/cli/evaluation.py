"""`mdmmt evaluate`: how well a model finds what captions describe."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from ..datasets import Caption, read_captions, read_video_list
from ..datasets.annotations import FORMATS, OWN_FIELDS, SUFFIXES
from ..errors import InputError
from ..evaluation.metrics import PROTOCOLS, UNIQUE
from ..storage.text import counted
from .common import (
    Commands,
    add_model_options,
    add_tokenizer_option,
    load_model,
    print_result,
    progress,
    say,
)

FEATURES_FOLDER = "features"
MAX_NAMED = 5  # videos that a message names


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
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
        metavar="FOLDER",
        help="folder of feature files, from `mdmmt extract`; default: features/ beside the file",
    )
    add_model_options(evaluate)
    add_tokenizer_option(evaluate)
    evaluate.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default=UNIQUE,
        help="default: %(default)s, that of MDMMT's authors; single for MSR-VTT 1k-A",
    )
    evaluate.add_argument("--split", help="split of an MSR-VTT file; default: test")
    evaluate.add_argument(
        "--videos", type=Path, metavar="FILE", help="a list of the videos to evaluate, one a line"
    )
    evaluate.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out captions whose video has no features, and list them in --out",
    )
    evaluate.add_argument(
        "--ablate",
        action="store_true",
        help="also with each expert alone and with each left out",
    )
    evaluate.add_argument("--out", type=Path, metavar="FILE", help="write all results as JSON")
    evaluate.add_argument("--plot", type=Path, metavar="FILE", help="write a plot, .png or .svg")
    evaluate.add_argument(
        "--compare", type=Path, metavar="FILE", help="compare with an earlier --out, pair by pair"
    )
    evaluate.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from ..evaluation import ablate, evaluate, plots, results
    from ..features import FeatureFolder
    from ..storage.files import check_writable

    if arguments.out is not None:
        check_writable(arguments.out)
    if arguments.plot is not None:
        plots.check_plot(arguments.plot)
    file = _annotation_file(arguments.dataset)
    captions = read_captions(file, arguments.split)
    if arguments.videos is not None:
        captions = _captions_of_listed_videos(captions, file, arguments.videos)
    earlier = results.read_results(arguments.compare)[0] if arguments.compare else None
    features = FeatureFolder(arguments.features or file.parent / FEATURES_FOLDER)
    model = load_model(arguments)
    positional = (model, captions, features, arguments.protocol)
    skip_missing = arguments.skip_missing
    if arguments.ablate:
        evaluations = ablate(*positional, skip_missing=skip_missing, progress=progress)
    else:
        result = evaluate(*positional, skip_missing=skip_missing, progress=progress)
        evaluations = [result]
    print(results.table(evaluations))
    if arguments.out is not None:  # first, so that later errors do not lose the results
        results.write_results(arguments.out, evaluations)
    if earlier is not None:
        print()
        print_result(f"first: {arguments.compare}, second: this one")
        print(results.comparison_table(results.compare_results(earlier, evaluations[0])))
    if arguments.plot is not None:
        plots.plot(evaluations, arguments.plot)
    if evaluations[0].missing:
        left_out = counted(len(evaluations[0].missing), "caption was", "captions were")
        say(f"{left_out} left out, for which there is no video with features", logging.WARNING)
    return 0


def _captions_of_listed_videos(
    captions: Sequence[Caption], file: Path, video_list: Path
) -> list[Caption]:
    """The captions of the videos in a list; says which of these have no caption."""
    listed = set(read_video_list(video_list))
    selected = [caption for caption in captions if caption.video in listed]
    if not selected:
        raise InputError(f"{file} has no caption of a video in {video_list}")
    without_caption = sorted(listed - {caption.video for caption in selected})
    if without_caption:
        say(
            f"{file} has no caption of {len(without_caption)} of the "
            f"{counted(len(listed), 'video')} in {video_list}: "
            + ", ".join(without_caption[:MAX_NAMED])
            + (", …" if len(without_caption) > MAX_NAMED else ""),
            logging.WARNING,
        )
    return selected


def _annotation_file(dataset: Path) -> Path:
    """The annotation file: the given one, or the only one in the given folder."""
    if not dataset.is_dir():
        return dataset
    files = sorted(file for file in dataset.iterdir() if file.suffix in SUFFIXES)
    if len(files) != 1:
        raise InputError(
            f"the folder {str(dataset)!r} should hold exactly one annotation file "
            f"({', '.join(SUFFIXES)}); found: {', '.join(f.name for f in files) or 'none'}"
        )
    return files[0]

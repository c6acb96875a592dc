"""`mdmmt extract`: run the experts on videos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..media.specs import CLOCKS
from ..storage.files import in_units
from ..storage.text import counted
from .common import (
    DEVICE_HELP,
    Commands,
    add_experts_options,
    add_jobs_option,
    add_time_limit_option,
    check_some_are_there,
    jobs_of,
    print_result,
    report,
    video_progress,
)

if TYPE_CHECKING:
    from ..batch.estimate import Estimate


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    extract = commands.add_parser(
        "extract", help="run the experts on videos, and keep their features for later"
    )
    extract.add_argument("videos", nargs="+", metavar="FILE", help="video files, folders of them")
    extract.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder for the feature files"
    )
    add_experts_options(
        extract,
        "those of the model in weights/ beside the operator, else of the one that MDMMT_WEIGHTS "
        "names, else VIDEO,CLIP,tf_vggish; frame,motion,sound for the sample model",
    )
    extract.add_argument(
        "--clock",
        choices=CLOCKS,
        default="file",
        help="of the times: from the start of the file, or as the authors of MDMMT count them, "
        "each track from its own start; default: %(default)s",
    )
    extract.add_argument("--device", help=DEVICE_HELP)
    add_jobs_option(extract)
    add_time_limit_option(extract)
    extract.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing; tell how long the run would take, by a measurement of one video, and "
        "how much disk",
    )
    extract.set_defaults(run=_extract)


def _extract(arguments: argparse.Namespace) -> int:
    from .. import experts
    from ..batch.estimate import estimate_extraction
    from ..batch.extract import extract_files, plan
    from ..device import resolve_device
    from ..features.listing import find_videos
    from ..storage.files import check_folder

    check_folder(arguments.out)
    check_some_are_there(arguments.videos, "a video file or a folder of videos")
    planned = plan(find_videos(arguments.videos), arguments.out)
    device = resolve_device(arguments.device)
    jobs = jobs_of(arguments, device)
    running = experts.load(
        arguments.experts or _default_experts(),
        device=device,
        precision=arguments.experts_precision,
    )
    if arguments.dry_run:
        return _tell_estimate(
            estimate_extraction(planned, running, arguments.clock, jobs), len(planned)
        )
    run = extract_files(planned, running, arguments.clock, arguments.time_limit, jobs)
    outcomes = []
    with video_progress(map(str, planned.values())) as finish:
        for outcome in run:
            outcomes.append(outcome)
            finish(outcome.name)
    failures = [f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error]
    written = sum(outcome.result is True for outcome in outcomes)
    done = len(outcomes) - len(failures)
    return report(
        failures,
        f"the features of {done} of {counted(len(outcomes), 'video')} are in {arguments.out}, "
        f"those of {done - written} already existed",
    )


def _default_experts() -> list[str]:
    """The experts of the default model, which is not downloaded for that."""
    from ..config import RELEASED
    from ..weights.layout import read_config
    from ..weights.locate import default_source, find_weights

    _, source = default_source()
    config = RELEASED if source is None else read_config(find_weights(None))
    return [expert.name for expert in config.video.experts]


def _tell_estimate(estimate: Estimate | None, count: int) -> int:
    if estimate is None:
        have = counted(count, "video has its features", "videos have their features")
        print_result(f"{count} of {have}")
        return 0
    print_result(
        f"the features of {estimate.videos} of {counted(count, 'video')} are missing: "
        f"{counted(round(estimate.seconds), 'second')} of video by their headers, "
        f"{counted(estimate.unreadable, 'header tells', 'headers tell')} no duration"
    )
    print_result(
        f"measured: {estimate.speed:.2f} seconds of video a second, of {estimate.measured}"
    )
    time = counted(round(estimate.time_s), "second")
    print_result(f"estimate: {time}, {in_units(estimate.size_bytes)} on the disk")
    return 0

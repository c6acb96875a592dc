"""`mdmmt extract`: run the experts on videos."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import RELEASED
from ..media.specs import CLOCKS
from .common import (
    DEVICE_HELP,
    Commands,
    add_jobs_option,
    add_time_limit_option,
    jobs_of,
    report,
    video_progress,
)


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    extract = commands.add_parser(
        "extract", help="run the experts on videos, and keep their features for later"
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
    extract.set_defaults(run=_extract)


def _extract(arguments: argparse.Namespace) -> int:
    from .. import experts
    from ..batch.extract import extract_files, find_videos, plan
    from ..device import resolve_device
    from ..storage.files import check_folder

    check_folder(arguments.out)
    planned = plan(find_videos(arguments.videos), arguments.out)
    device = resolve_device(arguments.device)
    jobs = jobs_of(arguments, device)
    running = experts.load(arguments.experts, device=device)
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
        f"{done} of {len(outcomes)} videos have their features in {arguments.out}, "
        f"{done - written} of them already existed",
    )

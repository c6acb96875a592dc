"""How many copies of videos `mdmmt duplicates` finds, and how long many segments take.

python benchmarks/duplicates.py [sample | drawn | time] …

`sample`: with the experts of the sample model. `drawn`: with the networks of CLIP and tf_vggish,
whose weights are drawn by chance, as the real ones are not at hand; VIDEO is left out, as it takes
hours on a processor. `time`: 10,000 segments of 10 seconds in each set.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from common import describe_machine
from copies import KINDS, copy, cut_out, join, random_stretch
from media import BIG_BUCK_BUNNY, BIKES, footage
from sample_clips import draw_sample_clips

from mdmmt.datasets import find_duplicates
from mdmmt.experts import LIGHT_EXPERTS, Expert, load
from mdmmt.features import VideoFeatures, extract
from mdmmt.features.types import ExpertFeatures
from mdmmt.sample.clips import draw

SEED = 700
ORIGINALS, OTHERS, FILMS, CLIPS_OF_A_FILM, CUTS, SAME_CAPTION = 100, 100, 16, 6, 64, 100
REAL = (BIKES, BIG_BUCK_BUNNY, "carphone_pristine.mp4")
SEGMENTS, SECONDS = 10_000, 10
WIDTHS = {"CLIP": 512, "VIDEO": 2048, "tf_vggish": 128}

Truth = Mapping[str, tuple[str, float | None]]  # by copy, its original and where it begins there


def main() -> None:
    wanted = sys.argv[1:] or ["sample", "drawn", "time"]
    print(describe_machine(torch.get_num_threads()))
    if {"sample", "drawn"} & set(wanted):
        with tempfile.TemporaryDirectory() as folder:
            truths = make_videos(Path(folder))
            for name, experts in (("sample", load(LIGHT_EXPERTS)), ("drawn", drawn_experts())):
                if name in wanted:
                    compare(Path(folder), truths, name, experts)
    if "time" in wanted:
        measure_time()


def make_videos(folder: Path) -> dict[str, Truth]:
    """Write the originals and other videos into `train`, and copies into a folder for each kind."""
    rng = np.random.default_rng(SEED)
    for name in ("train", "others", "cut out", "same caption", *KINDS):
        (folder / name.replace("/", "-")).mkdir()
    originals = draw_sample_clips(folder / "train", ORIGINALS, SEED)
    for number, clip in enumerate(originals[:SAME_CAPTION]):
        draw(folder / "same caption" / clip.path.name, clip.combination, (SEED + 1, number))
    for name in REAL:
        (folder / "train" / name).write_bytes(footage(name).read_bytes())
    names = [path.name for path in sorted((folder / "train").iterdir())]
    truths: dict[str, Truth] = {kind: {name: (name, 0.0) for name in names} for kind in KINDS}
    for kind in KINDS:
        for name in names:
            copy(folder / "train" / name, folder / kind.replace("/", "-") / name, kind)
    truths["same caption"] = {clip.path.name: (clip.path.name, None) for clip in originals}
    for clip in draw_sample_clips(folder / "others", OTHERS, SEED + 2):
        clip.path.rename(folder / "train" / f"other-{clip.path.name}")
    parts = draw_sample_clips(folder / "others", FILMS * CLIPS_OF_A_FILM, SEED + 3)
    cuts: dict[str, tuple[str, float | None]] = {}
    lengths_s = {}
    for number in range(FILMS):
        film = f"film-{number}.mp4"
        own = parts[number * CLIPS_OF_A_FILM : (number + 1) * CLIPS_OF_A_FILM]
        join([clip.path for clip in own], folder / "train" / film)
        lengths_s[film] = seconds_of(folder / "train" / film)
    lengths_s[BIKES] = seconds_of(folder / "train" / BIKES)
    sources = [*lengths_s] * (CUTS // len(lengths_s) + 1)
    for number, source in enumerate(sources[:CUTS]):
        begin_s, length_s = random_stretch(rng, lengths_s[source], 3.0, 8.0)
        name = f"{number}.mp4"
        cut_out(folder / "train" / source, folder / "cut out" / name, begin_s, length_s)
        cuts[name] = (source, begin_s)
    truths["cut out"] = cuts
    return truths


def seconds_of(video: Path) -> float:
    import av

    with av.open(str(video)) as container:
        return container.duration / av.time_base


def compare(
    folder: Path, truths: Mapping[str, Truth], name: str, experts: Mapping[str, Expert]
) -> None:
    """Print a row for each kind of copy."""
    print(f"\nexperts: {', '.join(experts)} ({name})")
    train = features_of(folder / "train", experts)
    print(f"{len(train)} videos in the training set\n")
    print("| kind | copies | recall | precision | time error, 95th percentile |")
    print("|---|---|---|---|---|")
    for kind, truth in truths.items():
        test = features_of(folder / kind.replace("/", "-"), experts)
        found = find_duplicates(test, train)
        pairs = {(one.test.video, one.train.video) for one in found}
        right = {(test, train) for test, train in pairs if truth[test][0] == train}
        offsets = [
            abs(one.train.start_s - one.test.start_s - begin_s)
            for one in found
            if truth[one.test.video][0] == one.train.video
            and (begin_s := truth[one.test.video][1]) is not None
        ]
        share = f"{len(right) / len(pairs):.1%}" if pairs else "-"
        off = f"{np.quantile(offsets, 0.95):.2f} s" if offsets else "-"
        print(f"| {kind} | {len(truth)} | {len(right) / len(truth):.1%} | {share} | {off} |")
        sys.stdout.flush()


def features_of(folder: Path, experts: Mapping[str, Expert]) -> dict[str, VideoFeatures]:
    return {path.name: extract(path, experts) for path in sorted(folder.iterdir())}


def drawn_experts() -> dict[str, Expert]:
    """CLIP and tf_vggish with weights drawn by chance."""
    from seeded import state
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from mdmmt.experts.clip import ClipExpert
    from mdmmt.experts.vggish import VGGish, VggishExpert

    torch.manual_seed(0)
    network = VGGish()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(state(0, shapes), assign=True)
    with tempfile.TemporaryDirectory() as folder:
        config = CLIPVisionConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        )
        CLIPVisionModelWithProjection(config).save_pretrained(folder)
        return {
            "CLIP": ClipExpert.load(folder),
            "tf_vggish": VggishExpert(network, torch.device("cpu")),
        }


class Drawn(Mapping[str, VideoFeatures]):
    """Features drawn by chance, of the released model's widths; made when they are asked for."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, video: str) -> VideoFeatures:
        rng = np.random.default_rng((self.seed, int(video)))
        times_s = np.arange(SECONDS)[:, None] + [0.0, 1.0]
        return {
            name: ExpertFeatures(rng.standard_normal((SECONDS, width), np.float32), times_s)
            for name, width in WIDTHS.items()
        }

    def __iter__(self):
        return map(str, range(SEGMENTS))

    def __len__(self) -> int:
        return SEGMENTS


def measure_time() -> None:
    began, cpu_began = time.perf_counter(), time.process_time()
    found = find_duplicates(Drawn(0), Drawn(1))
    cpu_s, wall_s = time.process_time() - cpu_began, time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\n{SEGMENTS} x {SEGMENTS} segments of {SECONDS} s, experts {', '.join(WIDTHS)}: "
        f"{wall_s:.0f} s ({cpu_s:.0f} s of processor time), {torch.get_num_threads()} threads, "
        f"{peak:.0f} MB at the peak, {len(found)} found"
    )


if __name__ == "__main__":
    main()

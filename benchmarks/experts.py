"""How fast the pretrained experts are here, and what they cost; by hand, see `make help`.

    python benchmarks/experts.py networks   # beside the plain network, engines, the matrix limit
    python benchmarks/experts.py files      # decoding, each expert, all in one pass, authors' way
    python benchmarks/experts.py cost       # seconds, memory and disk for a minute of video
    python benchmarks/experts.py jobs       # videos a minute for each number of jobs
    python benchmarks/experts.py rounding   # how far VIDEO in 8 bits is from the exact one

All weights are random, which changes no time. The variants that are compared run in turns in one
process. VIDEO is measured beside the same network written plainly, and beside the bare matrix
products of that network (without its depth-wise convolutions).
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import RawDescriptionHelpFormatter as RawHelp
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mdmmt.batch.extract import extract_file, extract_files
from mdmmt.config import RELEASED
from mdmmt.experts import ExpertPrecision
from mdmmt.experts.clip import ClipExpert
from mdmmt.experts.ircsn import (
    CLIP_FRAMES,
    CLIP_SIZE,
    PublishedIrCSN,
    VideoExpert,
)
from mdmmt.experts.vggish import VGGish, VggishExpert, log_mel
from mdmmt.fast import FastVideoTower
from mdmmt.features import ExpertFeatures, extract
from mdmmt.features.files import SUFFIX
from mdmmt.features.tokens import tokens_of_checked
from mdmmt.kernels import cpu
from mdmmt.media.decode import read_clips

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
import seeded
from closeness import (
    centred_cosines,
    largest_neighbour_loss,
    shown_clips,
    unchanged_neighbours,
)
from engines import export, load_engines
from media import BIG_BUCK_BUNNY, footage
from plain_csn import PlainCSN, lively, normalised

CPU = torch.device("cpu")
VIDEOS = 4  # that `jobs` extracts


def measure(rounds: int, clock: bool = False, **runs: Callable[[], object]) -> dict[str, float]:
    """Run each in turn; print the medians, and return those of the processors' time.

    Args:
        clock: return those of the time on the clock.
    """
    times = {name: [] for name in runs}
    for turn in range(rounds + 1):  # the first one warms up
        for name, run in runs.items():
            started, begun = time.perf_counter(), time.process_time()
            run()
            if turn:
                took = time.perf_counter() - started, time.process_time() - begun
                times[name].append(took)
    medians = {
        name: [statistics.median(t) for t in zip(*times[name], strict=True)] for name in runs
    }
    for name, (wall, work) in medians.items():
        print(f"{name:14} {wall:7.3f} s on the clock {work:7.3f} s of processors", flush=True)
    return {name: times[0 if clock else 1] for name, times in medians.items()}


def products(plain: PlainCSN, clip: torch.Tensor) -> Callable[[], None]:
    """The matrix products of all but the depth-wise convolutions, for a clip [1, 3, t, h, w]."""
    pairs: dict[tuple[int, int, int], int] = {}

    def note(layer: nn.Conv3d, _, output: torch.Tensor) -> None:
        if layer.groups == 1:
            rows, width = output[0, 0].numel(), layer.weight[0].numel()
            shape = rows, width, layer.out_channels
            pairs[shape] = pairs.get(shape, 0) + 1

    hooks = [m.register_forward_hook(note) for m in plain.modules() if isinstance(m, nn.Conv3d)]
    plain(clip)
    for hook in hooks:
        hook.remove()
    made = [
        (torch.randn(m, k), torch.randn(k, n), torch.empty(m, n), times)
        for (m, k, n), times in pairs.items()
    ]
    work = sum(2 * m * k * n * times for (m, k, n), times in pairs.items())
    print(f"the matrix products of a clip are {work / 1e9:.0f} GFLOP")

    def run() -> None:
        for left, right, out, times in made:
            for _ in range(times):
                torch.mm(left, right, out=out)

    return run


def networks(rounds: int) -> dict[str, float]:
    """The networks alone, on clips that are decoded already; the ratios of docs/performance.md."""
    video, plain = make_video()
    count = video.clips_at_once  # each with its share of the threads, by VIDEO and by engines
    frames = np.repeat(seeded.pictures(0, 32, 224)[None], count, axis=0)
    clip = plain_input(frames[:1])
    runs: dict[str, Callable[[], object]] = {}
    if cpu.has_openvino(CPU):
        runs["VIDEO by OpenVINO"] = partial(video_of(plain, by_openvino=True).features, frames)
    if has_int8():
        runs["VIDEO in int8"] = partial(video_of(plain, "int8").features, frames)
    with tempfile.TemporaryDirectory() as folder:
        file = export(plain, (clip,), ["clip"], {"clip": {0: "batch"}}, Path(folder) / "v.onnx")
        engines = [load_engines(file, torch.get_num_threads() // count) for _ in range(count)]
    workers, feed = ThreadPoolExecutor(count), {"clip": clip.numpy()}
    for name in engines[0]:
        copies = [engine[name] for engine in engines]
        runs[name] = lambda copies=copies: list(workers.map(lambda copy: copy(feed), copies))
    took = measure(
        rounds,
        plain=lambda: [plain(clip) for _ in range(count)],
        VIDEO=lambda: video.features(frames),
        products=products(plain, clip),
        **runs,
    )
    took["products"] *= count
    facts = {
        "VIDEO clips a processor-second": count / took["VIDEO"],
        "VIDEO to plain": took["plain"] / took["VIDEO"],
        "VIDEO to matrix limit": took["products"] / took["VIDEO"],
    }
    for name in runs:
        facts[f"{name} to VIDEO"] = took["VIDEO"] / took[name]
    return facts | small_networks(rounds)


def small_networks(rounds: int) -> dict[str, float]:
    """CLIP and tf_vggish beside `transformers` and engines.

    All of them take sound as it is; pictures are prepared before, for all but ours.
    """
    clip_expert, plain_clip, vggish = make_clip(), make_plain_clip(), make_vggish()
    pictures = seeded.pictures(0, 16, 228)[:, None]
    plain_pixels = plain_input(pictures[:, :, :224, :224])[:, :, 0]
    windows = seeded.sound(0, 15.6, 16000).reshape(16, 15600).astype("float32")
    runs: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs: dict[str, tuple[nn.Module, Callable[[], np.ndarray]]] = {
            "CLIP": (Projection(plain_clip), plain_pixels.numpy),
            "tf_vggish": (VGGish(), lambda: log_mel(windows)),
        }
        for expert, (network, prepare) in inputs.items():
            x, axes = torch.from_numpy(prepare()), {"x": {0: "batch"}}
            file = export(network, (x,), ["x"], axes, Path(folder) / f"{expert}.onnx")
            for name, engine in load_engines(file, torch.get_num_threads()).items():
                runs[f"{expert} by {name}"] = lambda engine=engine, prepare=prepare: engine(
                    {"x": prepare()}
                )
    runs["CLIP by transformers"] = lambda: plain_clip(plain_pixels)
    took = measure(
        rounds,
        CLIP=lambda: clip_expert.features(pictures),
        tf_vggish=lambda: vggish.features(windows),
        **runs,
    )
    facts = {f"{name} clips a processor-second": 16 / took[name] for name in inputs}
    for name in runs:
        expert = name.split()[0]
        facts[f"{name} to {expert}"] = took[expert] / took[name]
    return facts


class Projection(nn.Module):
    """CLIP's features alone, without the other outputs of `transformers`."""

    def __init__(self, network: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x).image_embeds


def files(path: Path, rounds: int) -> dict[str, float]:
    """A file from beginning to end: decoding alone, each expert, all in one pass, authors' way.

    The authors of MDMMT decoded once for each expert and gave it one clip at a time; the networks
    are then those of the libraries.
    """
    video, plain = make_video()
    running = {"VIDEO": video, "CLIP": make_clip(), "tf_vggish": make_vggish()}
    specs = {name: expert.spec for name, expert in running.items()}
    length_s = max(clip.end_s for clip in read_clips(path, {"CLIP": specs["CLIP"]}))

    def one_by_one() -> None:
        for name, expert in running.items():
            for clip in read_clips(path, {name: specs[name]}):
                if name == "VIDEO":
                    plain(plain_input(clip.data[None]))
                else:
                    expert.features(clip.data[None])

    runs = {}
    if cpu.has_openvino(CPU):
        by_openvino = running | {"VIDEO": video_of(plain, by_openvino=True)}
        runs["together by OpenVINO"] = partial(extract, path, by_openvino)
    if has_int8():
        rounded = running | {"VIDEO": video_of(plain, "int8")}
        runs["together in int8"] = partial(extract, path, rounded)
    took = measure(
        rounds,
        clock=True,
        decoding=lambda: [None for _ in read_clips(path, specs)],
        **{name: partial(extract, path, {name: expert}) for name, expert in running.items()},
        together=lambda: extract(path, running),
        authors=one_by_one,
        **runs,
    )
    facts = {f"{name}, seconds of video a second": length_s / t for name, t in took.items()}
    facts |= {f"{name} to together": took["together"] / took[name] for name in runs}
    return facts | {"together to authors' way": took["authors"] / took["together"]}


def cost(path: Path, name: str) -> dict[str, float]:
    """One expert in this process alone: seconds, memory and disk for a minute of video."""
    make = {"VIDEO": lambda: make_video()[0], "CLIP": make_clip, "tf_vggish": make_vggish}
    make["VIDEO by OpenVINO"] = lambda: video_of(make_video()[1], by_openvino=True)
    make["VIDEO in int8"] = lambda: video_of(make_video()[1], "int8")
    expert = make[name]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.safetensors"
        extract_file(path, file, {name: expert})  # warms up
        disk = file.stat().st_size
        started = time.perf_counter()
        features = extract(path, {name: expert})[name]
        took = time.perf_counter() - started
    minutes = len(features) * expert.spec.clip_s / 60
    return {
        f"{name}, seconds a minute": took / minutes,
        f"{name}, MB of memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        f"{name}, kB of disk a minute": disk / 1024 / minutes,
    }


def jobs(path: Path, rounds: int, only: str | None) -> dict[str, float]:
    """Videos a minute for 1 and 2 jobs: copies of a file, to feature files; `only` one expert."""
    make = {"VIDEO": lambda: make_video()[0], "CLIP": make_clip, "tf_vggish": make_vggish}
    running = {name: make[name]() for name in make if only in (None, name)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = [folder / f"{i}{path.suffix}" for i in range(VIDEOS)]
        for video in videos:
            shutil.copy(path, video)

        def run(count: int) -> None:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                planned = {Path(out) / f"{video.stem}{SUFFIX}": video for video in videos}
                for outcome in extract_files(planned, running, jobs=count):
                    assert outcome.error is None

        took = measure(rounds, clock=True, jobs_1=partial(run, 1), jobs_2=partial(run, 2))
    facts = {f"{name}, videos a minute": 60 * VIDEOS / t for name, t in took.items()}
    return facts | {"jobs_2 to jobs_1": took["jobs_1"] / took["jobs_2"]}


def rounding() -> dict[str, float]:
    """The features of VIDEO in 8 bits beside the exact ones, of clips that they tell apart.

    Where NNCF is installed, the 8 bits that it makes of the plain network are measured, too.
    """
    if not has_int8():
        print("VIDEO has no 8 bits here: they need OpenVINO, and a processor with AVX512-VNNI")
        return {}
    clips = shown_clips(40, CLIP_FRAMES, CLIP_SIZE)
    samples = [plain_input(clip[None]) for clip in clips[::5]]
    plain = lively(torch.cat(samples))
    exact, int8 = (video_of(plain, name) for name in ("exact", "int8"))
    with tempfile.TemporaryDirectory() as folder:
        file = export(
            plain, (samples[0],), ["clip"], {"clip": {0: "batch"}}, Path(folder) / "v.onnx"
        )
        feeds = [{"clip": sample.numpy()} for sample in samples]
        engines = load_engines(file, torch.get_num_threads(), feeds, is_transformer=False)
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "VIDEO in int8": lambda clip: int8.features(clip)[0]
    }
    if "OpenVINO int8" in engines:
        engine = engines["OpenVINO int8"]
        ways["OpenVINO int8"] = lambda clip: engine({"clip": plain_input(clip).numpy()})[0][0]
    wanted, facts = exact.features(clips), {}
    for name, way in ways.items():
        features = np.stack([way(clip[None]) for clip in clips])
        facts |= {f"{name}: {fact}": value for fact, value in closeness(wanted, features).items()}
    runs = {name: partial(way, clips[:1]) for name, way in ways.items()}
    took = measure(5, exact=lambda: exact.features(clips[:1]), **runs)
    return facts | {f"{name} to exact": took["exact"] / took[name] for name in ways}


def closeness(exact: np.ndarray, features: np.ndarray) -> dict[str, float]:
    cosines = centred_cosines(exact, features)
    return {
        "median cosine, centred": float(np.median(cosines)),
        "least cosine, centred": float(cosines.min()),
        "share of unchanged neighbours": unchanged_neighbours(exact, features),
        "largest loss of a neighbour's cosine": largest_neighbour_loss(exact, features),
        **embedding_cosines(exact, features),
    }


def embedding_cosines(exact: np.ndarray, int8: np.ndarray) -> dict[str, float]:
    """How close the VIDEO blocks of embeddings are, through a video tower of drawn weights."""
    # Imported here, since `cost` measures the memory of a process without `towhee.models`.
    from tiny import make_pair, write_vocabulary

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_vocabulary(folder, RELEASED.text.bert.vocab_size)
        tower = FastVideoTower.consume(make_pair(RELEASED, folder).ours_video, "exact")
    experts = RELEASED.video.experts
    place = [expert.name for expert in experts].index("VIDEO")
    width = RELEASED.video.same_dim
    blocks = []
    for features in (exact, int8):
        times = np.array([[0.0, 1.0]])
        videos = [{"VIDEO": ExpertFeatures(row[None], times)} for row in features]
        vectors = tower([tokens_of_checked(video, experts) for video in videos]).numpy()
        blocks.append(vectors[:, place * width : (place + 1) * width])
    cosines = centred_cosines(*blocks)
    return {
        "median cosine of centred embeddings": float(np.median(cosines)),
        "least cosine of centred embeddings": float(cosines.min()),
    }


def has_int8() -> bool:
    return cpu.has_openvino(CPU) and cpu.has_instructions("avx512_vnni")


def make_video() -> tuple[VideoExpert, PlainCSN]:
    """The expert and the network as it is written plainly, with the same random weights."""
    with torch.device("meta"):
        plain = PlainCSN()
    shapes = {name: tuple(tensor.shape) for name, tensor in plain.state_dict().items()}
    plain.load_state_dict(seeded.state(0, shapes), assign=True)
    return video_of(plain), plain.eval()


def video_of(
    plain: PlainCSN, precision: ExpertPrecision = "exact", by_openvino: bool = False
) -> VideoExpert:
    """The expert with the weights of a plain network; 'int8' is by OpenVINO in any case."""
    with torch.device("meta"):
        published = PublishedIrCSN()
    published.load_state_dict(plain.state_dict(), assign=True)
    by_openvino |= precision == "int8"
    with patch.object(cpu, "has_openvino", lambda device: by_openvino):
        return VideoExpert(published.eval(), CPU, precision=precision)


def make_clip() -> ClipExpert:
    return ClipExpert(make_plain_clip(), CPU)


def make_plain_clip() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig()).eval()


def make_vggish() -> VggishExpert:
    return VggishExpert(VGGish(), CPU)


def plain_input(frames: np.ndarray) -> torch.Tensor:
    """[1, t, h, w, 3] uint8 -> [1, 3, t, h, w] float32, normalised"""
    return normalised(torch.from_numpy(frames)).contiguous()


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawHelp)
    parser.add_argument("what", choices=["networks", "files", "cost", "jobs", "rounding"])
    parser.add_argument("--video", type=Path, default=footage(BIG_BUCK_BUNNY))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--expert", help="for `cost` and `jobs`: this one alone")
    args = parser.parse_args()
    if args.what == "networks":
        facts = networks(args.rounds)
    elif args.what == "files":
        facts = files(args.video, args.rounds)
    elif args.what == "jobs":
        facts = jobs(args.video, args.rounds, args.expert)
    elif args.what == "rounding":
        facts = rounding()
    elif args.expert:
        facts = cost(args.video, args.expert)
    else:
        facts = {}
        ways = ["VIDEO by OpenVINO"] * cpu.has_openvino(CPU) + ["VIDEO in int8"] * has_int8()
        for name in ("VIDEO", *ways, "CLIP", "tf_vggish"):
            command = [sys.executable, __file__, "cost", "--expert", name]
            subprocess.run([*command, "--video", args.video], check=True)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, value in facts.items():
        print(f"{name:60} {value:10.4g}")


if __name__ == "__main__":
    main()

"""Measure the pretrained experts on CUDA, from pictures and from video files; see `make help`.

    python benchmarks/experts_on_cuda.py

It prints the time of a clip in each network, beside the same network written plainly in float32,
one clip at a time; how far features in float16 are from exact ones; and how many seconds of video a
second come out of a 720p file with sound, for decoding alone, for one process with several jobs,
and for several processes that share the device. All weights are random.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import describe_machine, measure
from experts import (
    PublishedIrCSN,
    centred_cosines,
    footage,
    largest_neighbour_loss,
    make_plain_clip,
    make_video,
    plain_input,
    real_clips,
    seeded,
    unchanged_neighbours,
)
from media import BIG_BUCK_BUNNY
from plain_csn import lively

from mdmmt.batch.extract import extract_files
from mdmmt.config import ExpertPrecision
from mdmmt.experts import Expert
from mdmmt.experts.clip import ClipExpert
from mdmmt.experts.ircsn import VideoExpert
from mdmmt.experts.vggish import VGGish, VggishExpert
from mdmmt.features.files import SUFFIX
from mdmmt.media.decode import read_clips

DEVICE = torch.device("cuda")
CLIPS = 37  # whose features are compared
VIDEOS_EACH = 4  # that a job or a process reads
START_S = 120.0  # that processes may take to be ready
SECONDS, ROUNDS = 1.0, 5  # the least of each measurement
PRECISIONS: tuple[ExpertPrecision, ...] = ("exact", "float16")


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Whether cuDNN may compute in TensorFloat-32, as torch lets it by default."""
    usual = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = usual


def milliseconds(name: str, run: Callable[[], object], items: int) -> float:
    """Print the median time of an item, and return it."""

    def wait() -> None:
        run()
        torch.cuda.synchronize()

    took = measure({name: wait}, SECONDS, ROUNDS)[name].median_s * 1e3 / items
    print(f"{name:52} {took:8.3f} ms", flush=True)
    return took


def of_plain(plain: torch.nn.Module, precision: ExpertPrecision) -> VideoExpert:
    published = PublishedIrCSN()
    published.load_state_dict({name: one.cpu() for name, one in plain.state_dict().items()})
    return VideoExpert(published.eval(), DEVICE, precision=precision)


def networks() -> None:
    _, plain = make_video()
    plain = plain.to(DEVICE)
    frames = np.stack([seeded.pictures(i % 4, 32, 224) for i in range(32)])
    clip = plain_input(frames[:1]).to(DEVICE)
    base = {}
    for allowed in (True, False):
        with tensor_float_32(allowed):
            name = f"VIDEO plainly, a clip, TensorFloat-32 {'on' if allowed else 'off'}"
            base[allowed] = milliseconds(name, lambda: plain(clip), 1)
    for precision, sizes in (("exact", (1, 8)), ("float16", (1, 4, 16, 32))):
        expert = of_plain(plain, precision)
        for size in sizes:
            there = torch.from_numpy(frames[:size]).to(DEVICE)
            with tensor_float_32(False):
                took = milliseconds(
                    f"VIDEO {precision}, {size} clips on the device",
                    partial(expert.network, there),
                    size,
                )
            print(f"{'':52} {base[True] / took:8.2f} and {base[False] / took:.2f} times as fast")
        milliseconds(
            f"VIDEO {precision}, 16 clips from memory and back",
            partial(expert.features, frames[:16]),
            16,
        )
    pictures = seeded.pictures(0, 16, 228)[:, None]
    for precision in PRECISIONS:
        clip_expert = ClipExpert(make_plain_clip(), DEVICE, precision=precision)
        milliseconds(f"CLIP {precision}, 16 pictures", partial(clip_expert.features, pictures), 16)
    windows = seeded.sound(0, 15.6, 16000).reshape(16, 15600).astype("float32")
    vggish = VggishExpert(VGGish().eval(), DEVICE)
    milliseconds("tf_vggish exact, 16 windows", partial(vggish.features, windows), 16)


def rounding() -> None:
    real = real_clips(32, 224)
    clips = [*real, *(seeded.pictures(seed, 32, 224) for seed in range(CLIPS - len(real)))]
    frames = np.stack(clips)
    plain = lively(torch.cat([plain_input(one[None]) for one in frames[::6]]))
    with tensor_float_32(False):
        exact = of_plain(plain, "exact").features(frames)
    half = of_plain(plain, "float16").features(frames)
    cosines = centred_cosines(exact, half)
    print(
        f"VIDEO in float16, {len(frames)} clips, less their mean: cosine {np.median(cosines):.6f} "
        f"(median), {cosines.min():.6f} (least); nearest neighbour unchanged for "
        f"{unchanged_neighbours(exact, half):.3f}, which loses at most "
        f"{largest_neighbour_loss(exact, half):.5f}",
        flush=True,
    )


def make_experts(precision: ExpertPrecision) -> dict[str, Expert]:
    _, plain = make_video()
    return {
        "VIDEO": of_plain(plain, precision),
        "CLIP": ClipExpert(make_plain_clip(), DEVICE, precision=precision),
        "tf_vggish": VggishExpert(VGGish().eval(), DEVICE),
    }


class Timed(Expert):
    """An expert that counts the seconds that its device and the way there take."""

    def __init__(self, expert: Expert) -> None:
        self.expert, self.seconds = expert, 0.0
        self.name, self.spec, self.dim = expert.name, expert.spec, expert.dim
        self.version, self.clips_at_once = expert.version, expert.clips_at_once

    def features(self, clips: np.ndarray) -> np.ndarray:
        started = time.perf_counter()
        features = self.expert.features(clips)
        self.seconds += time.perf_counter() - started
        return features


def extract_all(folder: Path, running: dict[str, Expert], count: int, jobs: int) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        planned = {Path(out) / f"{i}{SUFFIX}": folder / f"{i}.mp4" for i in range(count)}
        for outcome in extract_files(planned, running, jobs=jobs):
            assert outcome.error is None, outcome.error


def by_jobs(folder: Path, seconds: float, precision: ExpertPrecision, counts: list[int]) -> None:
    running = {name: Timed(expert) for name, expert in make_experts(precision).items()}
    extract_all(folder, running, 2, 1)  # warms up
    for jobs in counts:
        for expert in running.values():
            expert.seconds = 0.0
        started = time.perf_counter()
        extract_all(folder, running, VIDEOS_EACH * jobs, jobs)
        took = time.perf_counter() - started
        share = sum(expert.seconds for expert in running.values()) / took
        print(
            f"{precision}, one process with {jobs:2} jobs: "
            f"{VIDEOS_EACH * jobs * seconds / took:6.1f} s of video a second; the experts work "
            f"{share:.0%} of the time",
            flush=True,
        )


def decode(file: Path, ready: Any, go: Any) -> None:
    specs = {one.name: one.spec for one in (VideoExpert, ClipExpert, VggishExpert)}
    in_turn(lambda: [None for _ in read_clips(file, specs)], ready, go)


def extract_here(folder: Path, precision: ExpertPrecision, ready: Any, go: Any) -> None:
    running = make_experts(precision)
    in_turn(lambda: extract_all(folder, running, 1, 1), ready, go)


def in_turn(read: Callable[[], object], ready: Any, go: Any) -> None:
    torch.set_num_threads(1)
    read()
    ready.release()
    go.wait()
    for _ in range(VIDEOS_EACH):
        read()


def by_processes(name: str, work: Callable[..., None], count: int, seconds: float) -> None:
    """Read the files in processes of their own, all of which are ready before the clock starts."""
    spawn = multiprocessing.get_context("spawn")
    ready, go = spawn.Semaphore(0), spawn.Event()
    processes = [spawn.Process(target=work, args=(ready, go)) for _ in range(count)]
    for process in processes:
        process.start()
    assert all(ready.acquire(timeout=START_S) for _ in processes)
    started = time.perf_counter()
    go.set()
    for process in processes:
        process.join()
    took = time.perf_counter() - started
    assert all(process.exitcode == 0 for process in processes)
    speed = count * VIDEOS_EACH * seconds / took
    print(f"{name}, {count:2} processes: {speed:6.1f} s of video a second", flush=True)


def files() -> None:
    video = footage(BIG_BUCK_BUNNY)
    clips = read_clips(video, {"CLIP": ClipExpert.spec})
    seconds = max(clip.end_s for clip in clips)
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(VIDEOS_EACH * min(cores, 8)):
            shutil.copy(video, folder / f"{i}.mp4")
        counts = [n for n in (1, 4, 8) if n <= cores]
        by_jobs(folder, seconds, "float16", counts)
        for count in (1, cores):
            by_processes("decoding alone", partial(decode, video), count, seconds)
        for count in (cores // 2, cores):
            work = partial(extract_here, folder, "float16")
            by_processes("float16, extraction", work, count, seconds)


@torch.inference_mode()
def main() -> None:
    if not torch.cuda.is_available():
        print("there is no CUDA device here, so nothing was measured")
        return
    print(torch.cuda.get_device_name(), describe_machine(torch.get_num_threads()))
    parts = {"networks": networks, "rounding": rounding, "files": files}
    for part in sys.argv[1:] or parts:
        parts[part]()


if __name__ == "__main__":
    main()

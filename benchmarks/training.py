"""A training step beside that of a straightforward loop over `towhee.models`: speed and memory.

python benchmarks/training.py [--batch 16] [--steps 4] [--threads 1] [--whole-run]

The full-size towers with dropout, the max-margin loss and Adam, in float32. The loop pads each
expert to 30 tokens and the texts to the longest one. Each way runs in a process of its own, and
both take a step in turns. Times are of the processor, so that other work does no harm.

With `--whole-run`, a full-size model with random weights takes the steps as `mdmmt train` takes
them: from captions of the length of MSR-VTT's and from feature files of 5 to 30 random features.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from common import describe_machine, make_batch, make_texts
from oracle import text_oracle, video_oracle
from tiny import WORDS, write_vocabulary

from mdmmt.config import RELEASED
from mdmmt.datasets import Caption
from mdmmt.features.files import (
    SUFFIX,
    FeatureFile,
    SourceVideo,
    write_features,
)
from mdmmt.features.tokens import Tokens
from mdmmt.features.types import ExpertFeatures
from mdmmt.towers.text import TextTower
from mdmmt.towers.tokenizer import Tokenizer, load_tokenizer
from mdmmt.towers.video import VideoTower
from mdmmt.training.config import DatasetConfig, TrainingConfig
from mdmmt.training.data import Batch, Sample, Segment
from mdmmt.training.loop import Towers, Trainer, make_optimiser, train
from mdmmt.training.processes import Processes
from mdmmt.training.progress import read_log
from mdmmt.weights.folder import save_model

LOOP, OURS = "towhee.models", "mdmmt"
ALL, TEN, RAGGED = "30 of 30 tokens", "10 of 30 tokens", "ragged 1…30"
VALID = {ALL: 30, TEN: 10, RAGGED: None}
NAMES = tuple(expert.name for expert in RELEASED.video.experts)
CONFIG = TrainingConfig(out="", datasets=(DatasetConfig("", ""),), device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--whole-run", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        be_child(*options.child, options.batch)
        return
    print(json.dumps(describe_machine(options.threads)))
    if options.whole_run:
        run_whole(options.batch, options.steps)
        return
    for case in VALID:
        children = {way: start(way, case, options) for way in (LOOP, OURS)}
        times: dict[str, list[float]] = {way: [] for way in children}
        peaks: dict[str, float] = {}
        for step in range(1 + options.steps):
            for way, child in children.items():
                child.stdin.write("step\n")
                child.stdin.flush()
                cpu_s, peaks[way] = json.loads(child.stdout.readline())
                if step:  # the first one warms up
                    times[way].append(cpu_s)
        base = statistics.median(times[LOOP])
        for way, child in children.items():
            median = statistics.median(times[way])
            print(
                f"batch {options.batch}, {case:16} {way:14} {median:7.2f} s a step "
                f"{base / median:6.2f} x {peaks[way]:7.0f} MB at the peak",
                flush=True,
            )
            child.stdin.close()
            child.wait()


def start(way: str, case: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", __file__, "--child", way, case]
    command += ["--batch", str(options.batch), "--threads", str(options.threads)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def be_child(way: str, case: str, size: int) -> None:
    """Take a step for each line of stdin; print its CPU seconds and the peak memory so far."""
    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary(Path(folder), RELEASED.text.bert.vocab_size)
        tokenizer = load_tokenizer(folder)
    texts = make_texts(size)
    if case == ALL:  # of one length, so that none has padding
        texts = [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(9)) for i in range(size)]
    batch = make_batch(size, VALID[case])
    step = (loop_step if way == LOOP else our_step)(batch, texts, tokenizer)
    for _ in sys.stdin:
        started = time.process_time()
        step()
        cpu_s = time.process_time() - started
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([cpu_s, peak_mb]), flush=True)


def loop_step(batch, texts, tokenizer):
    """What one would write: both models, all scores, the loss without the diagonal, Adam."""
    video, text = (
        video_oracle(RELEASED.video).train(),
        text_oracle(RELEASED.text, tokenizer).train(),
    )
    optimiser = torch.optim.Adam([*video.parameters(), *text.parameters()], lr=5e-5)
    others = ~torch.eye(len(texts), dtype=torch.bool)

    def step() -> None:
        copies = ({name: one.clone() for name, one in part.items()} for part in batch)
        scores = text(texts) @ video(*copies).T
        own = scores.diagonal()
        terms = (0.05 + scores - own[:, None]).relu(), (0.05 + scores - own[None, :]).relu()
        loss = torch.cat([one[others] for one in terms]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()

    return step


def our_step(batch, texts, tokenizer):
    features, times, mask = batch
    videos, samples = [], []
    for row, text in enumerate(texts):
        valid = {name: mask[name][row].bool() for name in NAMES}
        videos.append(
            {name: Tokens(features[name][row][v], times[name][row][v]) for name, v in valid.items()}
        )
        caption = Caption(str(row), 0.0, None, text)
        samples.append(Sample(Segment(0, Path(str(row)), 0.0, None, (caption,)), caption, NAMES))
    towers = Towers(VideoTower(RELEASED.video), TextTower(RELEASED.text)).train()
    model = SimpleNamespace(tokenizer=Tokenizer(tokenizer, RELEASED.text))
    trainer = Trainer(CONFIG, towers, make_optimiser(CONFIG, towers), model, Processes("cpu"))
    ours = Batch(samples, slice(0, len(texts)), videos)
    return lambda: trainer.step(ours, 0, 0)


def run_whole(size: int, steps: int) -> None:
    """Train for some steps of one epoch; print the time, the memory and the loss."""
    with tempfile.TemporaryDirectory() as folder:
        data, weights, out = (Path(folder, name) for name in ("data", "weights", "run"))
        write_pairs(data, count=4 * size)
        write_vocabulary(data, RELEASED.text.bert.vocab_size)
        tokenizer = load_tokenizer(data)
        save_model(
            weights, RELEASED, VideoTower(RELEASED.video), TextTower(RELEASED.text), tokenizer
        )
        config = TrainingConfig(
            out=str(out),
            datasets=(DatasetConfig(str(data / "captions.jsonl"), str(data / "features")),),
            init=str(weights),
            device="cpu",
            epochs=1,
            samples_per_epoch=size * steps,
            batch_size=size,
        )
        started = time.process_time()
        train(config)
        cpu_s = time.process_time() - started
        losses = [line["loss"] for line in read_log(out) if "loss" in line]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    fifth = max(1, steps // 5)
    print(
        f"{steps} steps of {size} pairs: {cpu_s:.0f} s, {peak_mb:.0f} MB at the peak; the mean "
        f"loss of the first {fifth} steps is {statistics.fmean(losses[:fifth]):.4f}, of the last "
        f"{fifth} {statistics.fmean(losses[-fifth:]):.4f}"
    )


def write_pairs(folder: Path, count: int) -> None:
    """Write captions, and features of 5 to 30 seconds for each."""
    rng = np.random.default_rng(0)
    (folder / "features").mkdir(parents=True)
    lines = []
    for number, text in enumerate(make_texts(count)):
        seconds = int(rng.integers(5, 31))
        times_s = np.arange(seconds)[:, None] + [0.0, 1.0]
        features = {
            one.name: ExpertFeatures(
                rng.standard_normal((seconds, one.dim), dtype=np.float32), times_s
            )
            for one in RELEASED.video.experts
        }
        video = f"{number}.mp4"
        versions = dict.fromkeys(features, "drawn")
        file = FeatureFile(features, SourceVideo(video, None, None), versions)
        write_features(folder / "features" / f"{video}{SUFFIX}", file)
        lines.append(json.dumps({"video": video, "caption": text}) + "\n")
    (folder / "captions.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()

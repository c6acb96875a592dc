"""Measure what two processes with the same weights share, as two actors of one machine are.

    python benchmarks/actors.py [--precision int8]

The weights are random ones of the released model's size, in the files that are published. Each
process loads them and computes once with each part. The figures are those of the second one.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import mdmmt
from mdmmt import experts
from mdmmt.config import RELEASED
from mdmmt.experts.ircsn import PublishedIrCSN
from mdmmt.experts.vggish import VGGish
from mdmmt.features import ExpertFeatures
from mdmmt.towers.text import TextTower
from mdmmt.towers.tokenizer import load_tokenizer
from mdmmt.towers.video import VideoTower
from mdmmt.weights.folder import save_model

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
import seeded
from tiny import write_vocabulary

CHILD = "child"  # what a process is told that loads the weights
CLIPS = {  # that each expert looks at once
    "VIDEO": seeded.pictures(0, 32, 224)[None],
    "CLIP": seeded.pictures(0, 1, 228)[:, None],
    "tf_vggish": np.zeros((1, 15600), np.float32),
}


def make_weights(folder: Path) -> dict[str, float]:
    """Write the files of the weights -> the megabytes of each part."""
    write_vocabulary(folder / "vocabulary", RELEASED.text.bert.vocab_size)
    text, video = TextTower(RELEASED.text), VideoTower(RELEASED.video)
    save_model(folder / "model", RELEASED, video, text, load_tokenizer(folder / "vocabulary"))
    place = folder / "experts"
    place.mkdir()
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32))
    clip.save_pretrained(place / "CLIP")
    parts = {"text tower": text, "video tower": video, "CLIP": clip}
    for name, network in (("VIDEO", PublishedIrCSN), ("tf_vggish", VGGish)):
        with torch.device("meta"):
            parts[name] = network()
        shapes = {key: tuple(one.shape) for key, one in parts[name].state_dict().items()}
        torch.save(seeded.state(0, shapes), place / experts.expert_classes([name])[name].files[0])
    return {
        name: sum(one.numel() * one.element_size() for one in part.state_dict().values()) / 1e6
        for name, part in parts.items()
    }


def be_child(folder: Path, precision: str) -> None:
    """Load all parts; print the megabytes that each takes of its own and shared; wait."""
    torch.set_num_threads(1)
    model = mdmmt.load(folder / "model", "cpu", precision=precision)
    running = {}

    def use_expert(name: str) -> None:
        place = folder / "experts"
        running[name] = experts.load([name], place, "cpu", precision=precision)[name]
        running[name].features(CLIPS[name])

    features = {
        expert.name: ExpertFeatures(np.ones((3, expert.dim), np.float32), np.float64([[0, 1]] * 3))
        for expert in RELEASED.video.experts
    }
    uses: dict[str, Callable[[], object]] = {
        "text tower": lambda: model.encode_text("a dog"),
        "video tower": lambda: model.encode_video(features),
        **{name: lambda name=name: use_expert(name) for name in CLIPS},
    }
    figures = {"before": memory_mb()}
    for name, use in uses.items():
        before = memory_mb()
        use()
        gc.collect()
        figures[name] = [now - then for now, then in zip(memory_mb(), before, strict=True)]
    print(json.dumps(figures), flush=True)
    sys.stdin.readline()


def memory_mb() -> list[float]:
    """The megabytes of this process alone, and those that it shares."""
    kinds = {"Private": 0, "Shared": 0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        kind = line.partition("_")[0]
        if kind in kinds and line.split(":")[0].endswith(("_Clean", "_Dirty")):
            kinds[kind] += int(line.split()[1])
    return [kb * 1024 / 1e6 for kb in kinds.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="exact", choices=("exact", "int8"))
    precision = parser.parse_args().precision
    with tempfile.TemporaryDirectory() as folder:
        size = make_weights(Path(folder))
        command = [sys.executable, __file__, CHILD, folder, precision]
        children = []
        for _ in range(2):
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert child.stdout
            children.append(child)
            figures = json.loads(child.stdout.readline())
        for child in children:
            child.communicate("\n")
    print(f"{precision}, torch {torch.__version__}, MB of the second process")
    print(f"{'':<14}{'weights':>9}{'private':>9}{'shared':>9}")
    for name, (private, shared) in figures.items():
        print(f"{name:<14}{size.get(name, 0):>9.0f}{private:>9.0f}{shared:>9.0f}")


if __name__ == "__main__":
    be_child(Path(sys.argv[2]), sys.argv[3]) if sys.argv[1:2] == [CHILD] else main()

"""How fast the pretrained experts are here, by hand: `python tests/bench_experts.py [ROUNDS]`.

VIDEO is measured beside the same network written plainly, and beside the matrix products alone that
such a network consists of (without its depth-wise convolutions), in turns in one run. Both the time
on the clock and the processors' time are given: on a machine that does other things as well, the
latter is the one to compare.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import seeded
import torch
from plain_csn import PlainCSN
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mdmmt.experts.clip import ClipExpert
from mdmmt.experts.vggish import VGGish, VggishExpert
from mdmmt.experts.video import MEAN, STD, IrCSN, Published, VideoExpert

CPU = torch.device("cpu")


def measure(rounds: int, **runs: Callable[[], object]) -> dict[str, float]:
    """Run each in turn; print the medians, and return that of the processors' time."""
    times = {name: [] for name in runs}
    for turn in range(rounds + 1):  # the first one warms up
        for name, run in runs.items():
            clock, work = time.perf_counter(), time.process_time()
            run()
            if turn:
                took = time.perf_counter() - clock, time.process_time() - work
                times[name].append(took)
    medians = {
        name: [statistics.median(t) for t in zip(*times[name], strict=True)] for name in runs
    }
    for name, (clock, work) in medians.items():
        print(f"{name:14} {clock:7.3f} s on the clock {work:7.3f} s of processors", flush=True)
    return {name: work for name, (_, work) in medians.items()}


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


def main(rounds: int) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; a clip is a second")
    with torch.device("meta"):
        plain, published = PlainCSN(), Published()
    shapes = {name: tuple(tensor.shape) for name, tensor in plain.state_dict().items()}
    state = seeded.state(0, shapes)
    plain.load_state_dict(state, assign=True)
    plain.eval()
    published.load_state_dict(state, assign=True)
    video = VideoExpert(IrCSN(published), CPU)
    frames = seeded.pictures(0, 32, 224)[None]
    colours = (torch.from_numpy(frames) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    clip = colours.permute(0, 4, 1, 2, 3).contiguous()
    took = measure(
        rounds,
        plain=lambda: plain(clip),
        VIDEO=lambda: video.features(frames),
        products=products(plain, clip),
    )
    print(
        f"VIDEO: {1 / took['VIDEO']:.2f} clips a processor-second, "
        f"{took['plain'] / took['VIDEO']:.2f} times the plain one, "
        f"{took['products'] / took['VIDEO']:.0%} of the matrix limit"
    )
    clip_expert = ClipExpert(CLIPVisionModelWithProjection(CLIPVisionConfig()), CPU)
    vggish = VggishExpert(VGGish(), CPU)
    pictures = seeded.pictures(0, 16, 228)[:, None]
    windows = seeded.sound(0, 15.6, 16000).reshape(16, 15600).astype("float32")
    took = measure(
        rounds,
        CLIP=lambda: clip_expert.features(pictures),
        tf_vggish=lambda: vggish.features(windows),
    )
    for name, work in took.items():
        print(f"{name}: {16 / work:.1f} clips a processor-second, 16 at a time")


if __name__ == "__main__":
    with torch.inference_mode():
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)

"""The `tf_vggish` expert: VGGish, trained on the sound of YouTube videos, on 0.96 s of sound.

Hershey et al., "CNN Architectures for Large-Scale Audio Classification", 2017, arXiv 1609.09430,
and its release with AudioSet
(https://github.com/tensorflow/models/tree/master/research/audioset/vggish). The features are the
network's output, without that release's PCA and quantisation.

The weights are one of the PyTorch ports, or that release's checkpoint, which needs TensorFlow, or
an .npz file of its variables by name.

Shape notation: k windows.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import WeightsError
from ..kernels import cpu, private
from ..kernels.convolution import PackedConvolution
from ..kernels.linear import float32_linear, take_weight
from ..media.specs import AudioSpec
from ..storage.checkpoint import CheckpointLayout, load_file, load_strict, read_tensors
from .mel import mel_filters
from .pretrained import PretrainedExpert

SAMPLE_RATE_HZ = 16000
FRAME, HOP, FFT_SIZE = 400, 160, 512  # samples
FRAMES = 96  # in a window
WINDOW = (FRAMES - 1) * HOP + FRAME  # samples
BANDS = 64
POOLED = 2  # side of the square of numbers that a pooling makes one number
LOWEST_HZ, HIGHEST_HZ = 125.0, 7500.0
LOG_OFFSET = 0.01

CPU = torch.device("cpu")

LAYOUT = CheckpointLayout(
    renames=(
        (r"^module\.", ""),  # torch.nn.DataParallel
        (r"^features_network\.", "features."),  # torchaudio
        (r"^embedding_network\.", "embeddings."),
    ),
    ignored=(r"^pproc\.", r"^classifier\."),  # later layers that some ports add
)
TENSORFLOW_SCOPE = "vggish/"
TENSORFLOW_NAMES = {  # layer of the checkpoint -> layer of the network
    "vggish/conv1": "features.0",
    "vggish/conv2": "features.3",
    "vggish/conv3/conv3_1": "features.6",
    "vggish/conv3/conv3_2": "features.8",
    "vggish/conv4/conv4_1": "features.11",
    "vggish/conv4/conv4_2": "features.13",
    "vggish/fc1/fc1_1": "embeddings.0",
    "vggish/fc1/fc1_2": "embeddings.2",
    "vggish/fc2": "embeddings.4",
}


class VGGish(nn.Module):
    """Log-mel patches -> features. The layers have the names of the common PyTorch port."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = 1
        for channels in ((64,), (128,), (256, 256), (512, 512)):
            for size in channels:
                layers += [nn.Conv2d(last, size, 3, padding=1), nn.ReLU(inplace=True)]
                last = size
            layers.append(nn.MaxPool2d(POOLED))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(FRAMES // 16 * BANDS // 16 * last, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, 128),
            nn.ReLU(inplace=True),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """[k, 96 frames, 64 bands] -> [k, 128]"""
        x = self.features(patches[:, None])
        return self.embeddings(x.permute(0, 2, 3, 1).flatten(1))  # channels last, as TensorFlow's


class OneDnnVGGish(nn.Module):
    """The same function by oneDNN's convolutions and products, for inference on x86 processors."""

    def __init__(self, published: VGGish) -> None:
        """published: the weights of its linear layers are moved out of it."""
        super().__init__()
        kind, size = float32_linear(CPU), [FRAMES, BANDS]
        self.features: list[Callable[[Tensor], Tensor]] = []
        for layer in published.features:
            if isinstance(layer, nn.Conv2d):
                convolve = PackedConvolution(
                    layer, layer.weight.detach(), _copied_bias(layer), size
                )
                self.features.append(partial(convolve, activation="relu"))
            elif isinstance(layer, nn.MaxPool2d):
                self.features.append(layer)
                size = [side // POOLED for side in size]
        self.embeddings = [
            kind(take_weight(layer), _copied_bias(layer))
            for layer in published.embeddings
            if isinstance(layer, nn.Linear)
        ]

    def forward(self, patches: Tensor) -> Tensor:
        """[k, 96 frames, 64 bands] -> [k, 128]"""
        x = patches[:, None].contiguous(memory_format=torch.channels_last)
        for layer in self.features:
            x = layer(x)
        x = x.permute(0, 2, 3, 1).flatten(1)  # channels last, as TensorFlow's
        for linear in self.embeddings:
            x = linear(x, "relu")
        return x


def _copied_bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """A copy of the bias. The bias itself would keep the whole file of the weights mapped."""
    assert layer.bias is not None
    return layer.bias.detach().clone()


def log_mel(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mono sound [k, 15600 samples] -> [k, 96 frames, 64 bands]"""
    frames = np.lib.stride_tricks.sliding_window_view(windows, FRAME, axis=1)[:, ::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    magnitude = np.abs(np.fft.rfft(frames * hann, n=FFT_SIZE))
    filters = mel_filters(SAMPLE_RATE_HZ, FFT_SIZE, BANDS, LOWEST_HZ, HIGHEST_HZ)
    # Torch multiplies here. The threads of numpy's product stay busy for a while after it, and
    # would take the processor from the network.
    mel = (torch.from_numpy(magnitude) @ torch.tensor(filters)).numpy()
    return np.log(mel + LOG_OFFSET).astype(np.float32)


def from_tensorflow(variables: Mapping[str, NDArray[Any]], source: Path) -> dict[str, Tensor]:
    """Turn the variables of TensorFlow's checkpoint into the state of a `VGGish`.

    Variables outside the scope `vggish/`, such as a step counter, are left out.

    Args:
        variables: by their names in the checkpoint.
        source: the file that error messages name.

    Raises:
        WeightsError: an unknown variable in that scope.
    """
    state = {}
    unknown = []
    for name, array in variables.items():
        layer, _, kind = name.removesuffix(":0").rpartition("/")
        if not name.startswith(TENSORFLOW_SCOPE):
            continue
        if layer not in TENSORFLOW_NAMES or kind not in ("weights", "biases"):
            unknown.append(name)
        elif kind == "biases":
            state[f"{TENSORFLOW_NAMES[layer]}.bias"] = torch.from_numpy(array)
        else:  # (height, width, in, out) or (in, out) -> (out, in, height, width) or (out, in)
            axes = (3, 2, 0, 1) if array.ndim == 4 else (1, 0)
            tensor = torch.from_numpy(array).permute(axes).contiguous()
            state[f"{TENSORFLOW_NAMES[layer]}.weight"] = tensor
    if unknown:
        raise WeightsError(f"{source} has variables unknown to VGGish: {', '.join(unknown)}")
    return state


def _read_npz(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{file} cannot be read as an .npz file: {error}") from error


def _read_checkpoint(file: Path) -> dict[str, NDArray[Any]]:
    try:
        from tensorflow import train
    except ImportError as error:
        raise WeightsError(
            f"{file} is a TensorFlow checkpoint, which needs TensorFlow: pip install tensorflow, "
            "or take one of the PyTorch ports"
        ) from error
    try:
        checkpoint = train.load_checkpoint(str(file).removesuffix(".index"))
        names = checkpoint.get_variable_to_shape_map()
        return {name: checkpoint.get_tensor(name) for name in names}
    except Exception as error:  # TensorFlow has its own classes
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{file} cannot be read as a TensorFlow checkpoint: {reason}") from error


# By the suffix of the file. Newer checkpoints have an index file, with the data beside it.
TENSORFLOW_READERS = {".npz": _read_npz, ".ckpt": _read_checkpoint, ".index": _read_checkpoint}


class VggishExpert(PretrainedExpert):
    """0.96 seconds of sound -> a feature of the kind of sound."""

    name = "tf_vggish"
    dim = 128
    spec = AudioSpec(
        SAMPLE_RATE_HZ, window_s=WINDOW / SAMPLE_RATE_HZ, hop_s=FRAMES * HOP / SAMPLE_RATE_HZ
    )
    files = (
        *("vggish-10086976.pth", "vggish.pt", "vggish_orig.pth"),
        *("vggish_model.npz", "vggish_model.ckpt", "vggish_model.ckpt.index"),
    )
    published = (
        "https://github.com/harritaylor/torchvggish/releases/tag/v0.1, torchaudio's "
        "https://download.pytorch.org/torchaudio/models/vggish.pt, or TensorFlow's "
        "https://storage.googleapis.com/audioset/vggish_model.ckpt (with `pip install tensorflow`)"
    )

    @classmethod
    def read(cls, file: Path) -> VGGish:
        with torch.device("meta"):
            network = VGGish()
        if file.suffix in TENSORFLOW_READERS:  # of a checkpoint, another file holds the numbers
            state = from_tensorflow(TENSORFLOW_READERS[file.suffix](file), file)
            load_strict(network, state, file)
        else:
            load_file(network, file, lambda: read_tensors(file, LAYOUT))
        return network

    def arrange(self, network: nn.Module) -> nn.Module:
        if cpu.has_onednn(self.device) and private.has_packed_convolution():
            assert isinstance(network, VGGish)
            return OneDnnVGGish(network)
        # Channels last, which processors convolve in less time.
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def features(self, clips: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows (k, 15600) float32 -> (k, 128) float32, none below 0."""
        return self.network(torch.from_numpy(log_mel(clips)).to(self.device)).cpu().numpy()

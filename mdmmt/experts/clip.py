"""The `CLIP` expert: the image tower of CLIP ViT-B/32, on one frame a second.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
arXiv 2103.00020, as implemented in `transformers`. The authors of MDMMT cut out the middle
228 x 228 pixels of frames whose short side is 228, and the network saw the upper left 224 x 224 of
those. So does this expert, unlike CLIP's own image processor.

`ClipTower` computes what the tower of `transformers` does, in its last layer for the class token
alone. In float16 the products and the attention are rounded; norms, the sum of all layers and the
projection stay in float32.

Shape notation: k pictures, n tokens of a picture, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ExpertPrecision
from ..errors import WeightsError
from ..kernels.linear import FastLinear, TorchLinearFloat16, float32_linear, take_weight
from ..kernels.transfer import upload
from ..media.specs import FrameSpec
from ..storage.checkpoint import CheckpointLayout, load_file, read_tensors
from .pretrained import MODEL_FILES, PretrainedExpert, normalise

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of RGB from 0 to 1
STD = (0.26862954, 0.26130258, 0.27577711)
INPUT_SIZE = 224  # pixels along each side of the network's input, the upper left of a clip
CONFIG_FILE = "config.json"  # beside the weights
# By their names in configurations: an activation of `FastLinear`, and the factor of its input by
# which its output is divided. CLIP's "quick" GELU, x * sigmoid(1.702 x), is swish(1.702 x) / 1.702.
ACTIVATIONS = {"quick_gelu": ("swish", 1.702), "gelu": ("gelu", 1.0)}

LAYOUT = CheckpointLayout(
    # The text tower, and a buffer of old `transformers` releases that holds no weights.
    ignored=(r"^text_", r"^logit_scale$", r"^vision_model\.embeddings\.position_ids$"),
)


class ClipTower(nn.Module):
    """The image tower with its projection, for inference only."""

    first: Tensor
    positions: Tensor

    def __init__(
        self, published: Any, device: torch.device, precision: ExpertPrecision = "exact"
    ) -> None:
        """
        Args:
            published: a `CLIPVisionModelWithProjection`, whose weights are moved out of it.
            precision: 'float16' is for CUDA.
        """
        super().__init__()
        linear = partial(_linear, precision=precision)
        config, vision = published.config, published.to(device).vision_model
        self.patch_size: int = config.patch_size
        embeddings = vision.embeddings
        positions = embeddings.position_embedding.weight.detach()
        self.register_buffer("first", embeddings.class_embedding.detach() + positions[0])
        self.register_buffer("positions", positions[1:])
        patches = embeddings.patch_embedding.weight.detach().permute(0, 2, 3, 1)
        self.patches = linear(patches.flatten(1))
        self.norm = vision.pre_layrnorm
        self.layers = [
            ClipLayer(layer, config.num_attention_heads, config.hidden_act, linear)
            for layer in vision.encoder.layers
        ]
        self.last_norm = vision.post_layernorm
        self.project = _linear(take_weight(published.visual_projection), precision="exact")

    def forward(self, frames: Tensor) -> Tensor:
        """[k, 224, 224, 3] uint8 -> [k, 512] float32"""
        p, side = self.patch_size, INPUT_SIZE // self.patch_size
        x = normalise(frames[:, : side * p, : side * p], MEAN, STD)
        x = x.view(-1, side, p, side, p, 3).transpose(2, 3).reshape(-1, p * p * 3)
        x = self.patches(x).view(len(frames), side * side, -1) + self.positions
        x = self.norm(torch.cat([self.first.expand(len(x), 1, -1), x], dim=1))
        for layer in self.layers[:-1]:
            x = layer(x, x.shape[1])
        return self.project(self.last_norm(self.layers[-1](x, 1)[:, 0]))


class ClipLayer:
    """A layer of the tower."""

    def __init__(
        self, published: Any, heads: int, activation: str, linear: Callable[..., FastLinear]
    ) -> None:
        """
        Args:
            published: a `CLIPEncoderLayer`, whose weights are moved out of it.
            linear: makes a linear layer of a weight and a bias.
        """
        self.heads = heads
        self.activation, factor = ACTIVATIONS[activation]
        attention, mlp = published.self_attn, published.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        bias = torch.cat([part.bias.detach() for part in parts])
        self.attention_norm = published.layer_norm1
        self.attention_in = linear(torch.cat([take_weight(part) for part in parts]), bias)
        self.attention_out = linear(take_weight(attention.out_proj), attention.out_proj.bias)
        self.norm = published.layer_norm2
        self.up = linear(take_weight(mlp.fc1) * factor, mlp.fc1.bias * factor)
        self.down = linear(take_weight(mlp.fc2) / factor, mlp.fc2.bias)

    def __call__(self, x: Tensor, tokens: int) -> Tensor:
        """[k, n, d] -> [k, tokens, d], the first tokens of the layer's output"""
        k, n, d = x.shape
        y = self.attention_in(self.attention_norm(x).flatten(0, 1))
        q, key, value = y.view(k, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q[:, :, :tokens], key, value)
        y = self.attention_out(y.transpose(1, 2).reshape(-1, d))
        x = x[:, :tokens].reshape(-1, d) + y
        y = self.up(self.norm(x), self.activation)
        return (x + self.down(y)).view(k, tokens, d)


def _linear(
    weight: Tensor, bias: Tensor | None = None, *, precision: ExpertPrecision
) -> FastLinear:
    """A linear layer of a weight [d_out, d_in] on its device."""
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    kind = TorchLinearFloat16 if precision == "float16" else float32_linear(weight.device)
    return kind(weight.contiguous(), bias.contiguous())


class ClipExpert(PretrainedExpert):
    """One frame -> a feature of the things in it."""

    name = "CLIP"
    precisions = ("exact", "float16")
    dim = 512
    spec = FrameSpec(fps=1, short_side=228, crop=228, clip_frames=1)
    files = MODEL_FILES
    published = (
        "https://huggingface.co/openai/clip-vit-base-patch32 (with config.json, as a folder CLIP)"
    )
    repository = "openai/clip-vit-base-patch32"
    companions = (CONFIG_FILE,)

    @classmethod
    def read(cls, file: Path) -> nn.Module:
        # Imported late, since that takes time.
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        if not (file.parent / CONFIG_FILE).is_file():  # transformers would take a default one
            raise WeightsError(f"{file} needs its {CONFIG_FILE} beside it, where there is none")
        config = CLIPVisionConfig.from_pretrained(file.parent)
        if (config.image_size, config.projection_dim) != (INPUT_SIZE, cls.dim):
            raise WeightsError(
                f"{file.parent} holds a CLIP model for {config.image_size} pixels with "
                f"{config.projection_dim} features, expected {INPUT_SIZE} and {cls.dim}"
            )
        if config.hidden_act not in ACTIVATIONS:
            raise WeightsError(
                f"{file.parent} holds a CLIP model with the activation {config.hidden_act!r}, "
                f"expected {' or '.join(ACTIVATIONS)}"
            )
        with torch.device("meta"):
            network = CLIPVisionModelWithProjection(config)
        load_file(network, file, lambda: read_tensors(file, LAYOUT))
        network.vision_model.embeddings.position_ids = None  # in no file
        return network

    def arrange(self, network: nn.Module) -> ClipTower:
        return ClipTower(network, self.device, self.precision)

    @torch.inference_mode()
    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Clips (k, 1, 228, 228, 3) uint8 -> (k, 512) float32, projected and not normalised."""
        frames = torch.from_numpy(clips[:, 0, :INPUT_SIZE, :INPUT_SIZE])
        return self.network(upload(frames, self.device)).cpu().numpy()

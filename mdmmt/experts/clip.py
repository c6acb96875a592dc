"""The `CLIP` expert: the image tower of CLIP ViT-B/32, on one frame a second.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
arXiv 2103.00020, as implemented in `transformers`. The authors of MDMMT cut out the middle
228 x 228 pixels of frames whose short side is 228, and the network saw the upper left 224 x 224 of
those. This expert does the same, which differs from CLIP's own image processor.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import WeightsError
from ..media.specs import FrameSpec
from ..storage.checkpoint import CheckpointLayout, load_file, read_tensors
from .pretrained import MODEL_FILES, PretrainedExpert, normalise

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of RGB from 0 to 1
STD = (0.26862954, 0.26130258, 0.27577711)
INPUT_SIZE = 224  # pixels along each side of the network's input, the upper left of a clip
CONFIG_FILE = "config.json"  # beside the weights

LAYOUT = CheckpointLayout(
    # The text tower, and a buffer of old `transformers` releases that holds no weights.
    ignored=(r"^text_", r"^logit_scale$", r"^vision_model\.embeddings\.position_ids$"),
)


class ClipExpert(PretrainedExpert):
    """One frame -> a feature of the things in it."""

    name = "CLIP"
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
        # Imported late, since that takes time, and the size of a clip is known without.
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        if not (file.parent / CONFIG_FILE).is_file():  # transformers would take a default one
            raise WeightsError(f"{file} needs its {CONFIG_FILE} beside it, where there is none")
        config = CLIPVisionConfig.from_pretrained(file.parent)
        if (config.image_size, config.projection_dim) != (INPUT_SIZE, cls.dim):
            raise WeightsError(
                f"{file.parent} holds a CLIP model for {config.image_size} pixels with "
                f"{config.projection_dim} features, expected {INPUT_SIZE} and {cls.dim}"
            )
        network = CLIPVisionModelWithProjection(config)
        load_file(network, file, lambda: read_tensors(file, LAYOUT))
        return network

    @torch.inference_mode()
    def features(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Clips (k, 1, 228, 228, 3) uint8 -> (k, 512) float32, projected and not normalised."""
        frames = torch.from_numpy(clips[:, 0, :INPUT_SIZE, :INPUT_SIZE]).to(self.device)
        pixels = normalise(frames, MEAN, STD)
        return self.network(pixels.permute(0, 3, 1, 2)).image_embeds.cpu().numpy()

"""Makes `vggish.npz`: the output of torchvggish for seeded sound and weights."""

from __future__ import annotations

import numpy as np
import seeded
import torch
from torchvggish.mel_features import frame, log_mel_spectrogram
from torchvggish.torchvggish import VGG, make_layers


def make() -> dict[str, np.ndarray]:
    network = VGG(make_layers(), postprocess=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(seeded.state(0, shapes))
    mel = log_mel_spectrogram(
        seeded.sound(1, 3.5, 16000),
        audio_sample_rate=16000,
        log_offset=0.01,
        window_length_secs=0.025,
        hop_length_secs=0.010,
        num_mel_bins=64,
        lower_edge_hertz=125,
        upper_edge_hertz=7500,
    )
    patches = frame(mel, 96, 96)
    with torch.inference_mode():
        features = network.eval()(torch.from_numpy(patches)[:, None].float()).numpy()
    log_mel = patches[:, ::12, ::6].astype(np.float32)
    return {"log_mel": log_mel, "features": features}

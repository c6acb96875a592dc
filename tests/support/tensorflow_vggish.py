"""The variables of TensorFlow's VGGish, drawn."""

from __future__ import annotations

import numpy as np


def variables() -> dict[str, np.ndarray]:
    """The variables of TensorFlow's VGGish."""
    random = np.random.default_rng(0)
    sizes = {
        "conv1": (3, 3, 1, 64),
        "conv2": (3, 3, 64, 128),
        "conv3/conv3_1": (3, 3, 128, 256),
        "conv3/conv3_2": (3, 3, 256, 256),
        "conv4/conv4_1": (3, 3, 256, 512),
        "conv4/conv4_2": (3, 3, 512, 512),
        "fc1/fc1_1": (12288, 4096),
        "fc1/fc1_2": (4096, 4096),
        "fc2": (4096, 128),
    }
    result = {}
    for name, size in sizes.items():
        result[f"vggish/{name}/weights"] = random.random(size, np.float32)
        result[f"vggish/{name}/biases"] = random.random(size[-1], np.float32)
    return result | {"global_step": np.array(3)}

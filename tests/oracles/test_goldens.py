"""The goldens equal the output of the independent implementations, here and now.

The ordinary tests compare with the goldens alone, since nobody should need all of torchvision,
torchvggish, resampy and TensorFlow for them. Run as a program, this file makes them anew.
"""

from pathlib import Path

import make_resample
import make_vggish
import make_video
import numpy as np
import pytest

GOLDENS = Path(__file__).parents[2] / "goldens"
MAKERS = {"video": make_video, "vggish": make_vggish, "resample": make_resample}


@pytest.mark.parametrize("name", MAKERS)
def test_goldens_are_reproduced(name):
    golden, made = np.load(GOLDENS / f"{name}.npz"), MAKERS[name].make()
    assert set(golden) == set(made)
    for key in golden:
        scale = np.abs(golden[key]).max()
        np.testing.assert_allclose(made[key], golden[key], rtol=0, atol=1e-5 * scale, err_msg=key)


if __name__ == "__main__":
    for name, maker in MAKERS.items():
        np.savez(GOLDENS / f"{name}.npz", **maker.make())

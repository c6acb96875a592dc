"""The motion expert tells directions, growth and blinking."""

import numpy as np
import pytest
from media import block, moved

from mdmmt.experts.motion import THIRDS, MotionExpert

MOTION = MotionExpert()


# The columns of `motion` that say what it fits over the whole second.
RIGHT, DOWN, GROWTH, FLICKER, DRIFT_RIGHT, DRIFT_DOWN = range(4 * THIRDS, 4 * THIRDS + 6)


@pytest.mark.parametrize("step_x, step_y", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_motion_tells_the_direction(step_x, step_y):
    (features,) = MOTION.features(moved(step_x, step_y)[None])
    along = features[[RIGHT, DOWN]] @ (step_x, step_y)
    across = features[[RIGHT, DOWN]] @ (step_y, step_x)
    assert along > 0.4 and abs(across) < 0.1 and abs(features[GROWTH]) < 0.2
    np.testing.assert_allclose(
        features[[DRIFT_RIGHT, DRIFT_DOWN]] / np.hypot(*features[[DRIFT_RIGHT, DRIFT_DOWN]]),
        (step_x, step_y),
        atol=0.1,
    )


def test_motion_follows_what_blinks_as_it_moves():
    clip = moved(1, 0)
    clip[2:5] = clip[8:10] = 40
    (features,) = MOTION.features(clip[None])
    assert features[DRIFT_RIGHT] > 0.2 and abs(features[DRIFT_DOWN]) < 0.05


def test_motion_tells_growing_and_blinking_from_standing_still():
    still = moved(0, 0)
    grows = np.stack([block(30 - i, 30 - i, side=6 + 2 * i) for i in range(12)])
    blinks = still.copy()
    blinks[3:6] = blinks[9:] = 40
    still, grows, shrinks, blinks = MOTION.features(np.stack([still, grows, grows[::-1], blinks]))
    assert np.abs(still[[RIGHT, DOWN, GROWTH, FLICKER, DRIFT_RIGHT, DRIFT_DOWN]]).max() < 0.01
    assert grows[GROWTH] > 0.2 and shrinks[GROWTH] < -0.2
    assert blinks[FLICKER] > 0.3 and abs(blinks[GROWTH]) < 0.1

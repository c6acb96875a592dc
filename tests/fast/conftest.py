"""Fast towers that several test files share; none of them may be changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache

import pytest

from mdmmt.fast import FastTextTower, FastVideoTower

MIN_TOKENS = 3  # so that even small batches go to several threads


@pytest.fixture(scope="session")
def fast_video(tiny) -> FastVideoTower:
    tower = FastVideoTower.consume(copy.deepcopy(tiny.ours_video))
    tower.min_tokens_per_thread = MIN_TOKENS
    return tower


@pytest.fixture(scope="session")
def fast_text(tiny) -> FastTextTower:
    tower = FastTextTower.consume(copy.deepcopy(tiny.ours_text))
    tower.min_tokens_per_thread = MIN_TOKENS
    return tower


@pytest.fixture(scope="session")
def full_video(full) -> Callable[[str], FastVideoTower]:
    """The full-size video tower in a precision, made once."""
    return lru_cache(lambda precision: FastVideoTower.consume(*copied(full.ours_video, precision)))


@pytest.fixture(scope="session")
def full_text(full) -> Callable[[str], FastTextTower]:
    """The full-size text tower in a precision, made once."""
    return lru_cache(lambda precision: FastTextTower.consume(*copied(full.ours_text, precision)))


def copied(tower, precision):
    return copy.deepcopy(tower), precision

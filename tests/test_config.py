"""Configurations: the released numbers and config.json."""

from __future__ import annotations

import json

import pytest
from tiny import TINY

from mdmmt.config import RELEASED, EncoderConfig, from_dict, to_dict
from mdmmt.errors import InputError


def test_released_embedding_dim_is_1536():
    assert RELEASED.video.embedding_dim == RELEASED.text.embedding_dim == 1536


@pytest.mark.parametrize("config", [RELEASED, TINY], ids=["released", "tiny"])
def test_from_dict_inverts_to_dict(config):
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_from_dict_refuses_unknown_names():
    for change in (
        lambda c: c.update(model_type="bert"),
        lambda c: c.update(more=1),
        lambda c: c["video"].update(more=1),
        lambda c: c["video"]["experts"][0].update(more=1),
        lambda c: c["text"]["bert"].update(more=1),
    ):
        values = json.loads(json.dumps(to_dict(TINY)))
        change(values)
        with pytest.raises(InputError):
            from_dict(values)


def test_configurations_are_frozen():
    with pytest.raises(AttributeError):
        RELEASED.video.same_dim = 3
    assert EncoderConfig(8, 1, 2, 8, 8, 2) == EncoderConfig(8, 1, 2, 8, 8, 2)

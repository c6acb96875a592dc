"""The transformer that both towers share, in a video tower."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracle import random_batch, run_video, video_oracle
from torch.nn import functional as F

from mdmmt.config import RELEASED
from mdmmt.towers.video import VideoTower


def test_init_weights_and_dropout_are_the_published_ones():
    encoder = RELEASED.video.encoder
    tower = VideoTower(replace(RELEASED.video, encoder=replace(encoder, num_hidden_layers=1)))
    assert tower.vid_bert.embeddings.dropout.p == 0.2
    assert tower.vid_bert.encoder.layer[0].attention.self.dropout_p == 0.2
    weight = tower.vid_bert.encoder.layer[0].intermediate.dense.weight
    assert abs(weight.std().item() - 0.02) < 1e-3
    features, times, mask = random_batch(RELEASED.video.experts, 1, 3)
    mask = {name: one.bool() for name, one in mask.items()}
    assert not torch.equal(tower(features, times, mask), tower(features, times, mask))
    tower.eval()
    assert torch.equal(tower(features, times, mask), tower(features, times, mask))


def test_encoder_has_the_activations_of_upstream(tiny, assert_parity):
    for activation in ("gelu", "relu", "swish"):
        encoder = replace(tiny.config.video.encoder, hidden_act=activation)
        config = replace(tiny.config.video, encoder=encoder)
        theirs = video_oracle(config)
        ours = VideoTower(config).eval()
        ours.load_state_dict(theirs.state_dict())
        features, times, mask = random_batch(config.experts, 2, 5)
        with torch.inference_mode():
            got = ours(features, times, {name: one.bool() for name, one in mask.items()})
        assert_parity(got, run_video(theirs, features, times, mask), f"video, tiny, {activation}")
    assert F.gelu(torch.tensor(1.0)).item() == pytest.approx(0.8413447)  # erf, not tanh

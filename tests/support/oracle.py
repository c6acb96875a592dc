"""The oracle: `towhee.models` 1.1.3, and what it takes to run it beside our own towers."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import torch
from torch.nn import functional as F
from towhee.models.mdmmt.mmt import MMTTXT, MMTVID
from transformers import BertConfig, BertModel

from mdmmt.config import ExpertConfig, TextConfig, VideoConfig


def video_oracle(config: VideoConfig, seed: int = 0) -> MMTVID:
    torch.manual_seed(seed)
    encoder = vars(config.encoder).copy()
    encoder.pop("vocab_size")
    oracle = MMTVID(
        expert_dims={
            e.name: {"dim": e.dim, "idx": e.type_id, "max_tok": e.max_tokens}
            for e in config.experts
        },
        vid_bert_config=SimpleNamespace(vocab_size_or_config_json_file=10, **encoder),
        same_dim=config.same_dim,
        hidden_size=config.encoder.hidden_size,
    )
    return spread(oracle).eval()


def text_oracle(config: TextConfig, tokenizer, seed: int = 0) -> MMTTXT:
    torch.manual_seed(seed)
    oracle = MMTTXT(
        txt_bert=BertModel(BertConfig(**vars(config.bert))),
        tokenizer=tokenizer,
        max_length=config.max_length,
        modalities=list(config.experts),
        add_special_tokens=config.add_special_tokens,
        add_dot=config.add_dot,
        same_dim=config.same_dim,
        dout_prob=config.dropout,
    )
    return spread(oracle).eval()


def block_cosines(a: torch.Tensor, b: torch.Tensor, width: int) -> torch.Tensor:
    """Of each expert's block of two embeddings [b, m * width] the cosine, [b, m]."""
    return F.cosine_similarity(*(x.unflatten(1, (-1, width)) for x in (a, b)), dim=-1)


@torch.no_grad()
def spread(module: torch.nn.Module) -> torch.nn.Module:
    """Random values of a size at which every tensor matters.

    A fresh BERT hardly sees its input: its weights are so small that the residual path is nearly
    all of the output, and its biases and norms are constants.
    """
    for part in module.modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Embedding):
            part.weight.normal_(0.0, part.weight.shape[1] ** -0.5)
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean.normal_(0.0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
        if isinstance(part, torch.nn.LayerNorm | torch.nn.BatchNorm1d):
            part.weight.uniform_(0.5, 1.5)
        if isinstance(part, torch.nn.Linear | torch.nn.LayerNorm | torch.nn.BatchNorm1d):
            part.bias.normal_(0.0, 0.1)
    return module


def run_video(oracle: MMTVID, features, times, mask) -> torch.Tensor:
    """The oracle on tensors [b, n, ...]; it writes to its arguments, hence the copies."""
    with torch.no_grad():
        return oracle(*copy.deepcopy((features, times, mask)))


def random_batch(
    experts: tuple[ExpertConfig, ...], batch: int, n: int, seed: int = 0
) -> tuple[dict, dict, dict]:
    """Features, times within a minute, and masks of ones."""
    generator = torch.Generator().manual_seed(seed)
    names = [e.name for e in experts]
    features = {e.name: torch.randn(batch, n, e.dim, generator=generator) for e in experts}
    times = {name: torch.rand(batch, n, generator=generator) * 30 + 2 for name in names}
    return features, times, {name: torch.ones(batch, n) for name in names}

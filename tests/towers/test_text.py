"""The text tower and its text preparation against the oracle, tiny and full size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracle import text_oracle

from mdmmt.sample.batches import pad_texts
from mdmmt.towers.text import TextTower
from mdmmt.towers.tokenizer import Tokenizer

LONG = "a man and a dog and a cat and a ball " * 5
CASES = {
    "dot": ["Hello world."],
    "no dot": ["Hello world"],
    "other ends": ["is the dog red?", "the dog is red!", "the dog is red,", "  red ball \n"],
    "cased": ["Hello hello HELLO"],
    "unknown": ["☃ é ü video"],
    "long": [LONG],
    "one letter": ["a"],
    "mixed lengths": ["a", "Hello world.", LONG, "the man is playing"],
    "32 texts": [" ".join(LONG.split()[: 1 + i]) for i in range(32)],
}


def differ(pair, texts, device="cpu"):
    """Ours and the oracle's embeddings of some texts."""
    tokenizer = Tokenizer(pair.tokenizer, pair.config.text)
    ids, mask = pad_texts(tokenizer(texts), tokenizer)
    with torch.inference_mode():
        return pair.ours_text(ids.to(device), mask.to(device)), pair.theirs_text(texts)


@pytest.mark.parametrize("texts", CASES.values(), ids=CASES)
def test_text_tower_equals_the_oracle(texts, tiny, assert_parity):
    assert_parity(*differ(tiny, texts), "text, tiny")


@pytest.mark.slow
@pytest.mark.parametrize("texts", CASES.values(), ids=CASES)
def test_text_tower_equals_the_oracle_at_full_size(texts, full, assert_parity):
    assert_parity(*differ(full, texts), "text, full size")


@pytest.mark.slow
@pytest.mark.cuda
def test_text_tower_equals_the_oracle_on_cuda(full, assert_parity, cuda_without_tf32):
    full.ours_text.to("cuda")
    full.theirs_text.to("cuda")
    try:
        for texts in CASES.values():
            assert_parity(*differ(full, texts, "cuda"), "text, full size, CUDA", atol=1e-4)
    finally:
        full.ours_text.to("cpu")
        full.theirs_text.to("cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"add_dot": False},
        {"add_special_tokens": False},
        {"max_length": 8},
        {"same_dim": 10},
        {"experts": ("wide",)},
        {"experts": ("middle", "wide")},
    ],
    ids=str,
)
def test_text_tower_equals_the_oracle_in_other_configurations(changes, tiny, assert_parity):
    config = replace(tiny.config, text=replace(tiny.config.text, **changes))
    theirs = text_oracle(config.text, tiny.tokenizer)
    ours = TextTower(config.text).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    pair = replace(tiny, config=config, theirs_text=theirs, ours_text=ours)
    assert_parity(*differ(pair, CASES["mixed lengths"]), "text, tiny, other configurations")


def test_text_tower_depends_on_the_preparation_of_texts(tiny):
    def embed(text):
        return differ(tiny, [text])[0]

    assert torch.equal(embed("Hello world"), embed("  Hello world.\n"))
    assert torch.equal(embed(LONG), embed(LONG + "ball"))
    for other in ("hello world", "Hello world!", "Hello"):
        assert (embed("Hello world") - embed(other)).abs().max() > 1e-3


def test_text_tower_ignores_padding(tiny, assert_parity):
    together = differ(tiny, ["a", LONG])[0]
    alone = torch.cat([differ(tiny, [text])[0] for text in ("a", LONG)])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("size", ["tiny", pytest.param("full", marks=pytest.mark.slow)])
def test_text_tower_has_the_names_of_the_oracle(size, request):
    pair = request.getfixturevalue(size)
    assert set(pair.ours_text.state_dict()) == set(pair.theirs_text.state_dict())


def test_text_tower_gives_the_oracle_its_weights(tiny):
    fresh = text_oracle(tiny.config.text, tiny.tokenizer, seed=1)
    fresh.load_state_dict(tiny.ours_text.state_dict(), strict=True)
    with torch.inference_mode():
        assert torch.equal(fresh(["a dog"]), tiny.theirs_text(["a dog"]))


def test_text_tower_weights_unit_blocks_to_a_sum_of_one(tiny):
    weights = differ(tiny, CASES["mixed lengths"])[0].unflatten(1, (3, 24)).norm(dim=-1)
    assert torch.allclose(weights.sum(dim=1), torch.ones(4))
    assert (weights > 0).all()

"""The card tells data, metrics, settings and versions."""

from __future__ import annotations

from mdmmt.evaluation.metrics import METRICS
from mdmmt.training.card import model_card
from mdmmt.training.config import DatasetConfig, TrainingConfig
from mdmmt.version import VERSION

CONFIG = TrainingConfig(
    out="run",
    datasets=(DatasetConfig("a.jsonl", "a", val="v.jsonl", weight=2), DatasetConfig("b.csv", "b")),
    margin=0.07,
)


def test_a_card_tells_how_the_model_was_made():
    numbers = dict(zip(METRICS, (11.25, 20, 30, 40, 5, 6.5), strict=True))
    card = model_card(
        CONFIG,
        "mdmmt_3mod.pth",
        [(4, 12), (5, 5)],
        3,
        {"v.jsonl": {"t2v": numbers, "v2t": numbers}},
        {},
    )
    assert "| a.jsonl | 4 | 12 | 2 |" in card
    assert "| b.csv | 5 | 5 | 1 |" in card
    assert "After epoch 3." in card
    assert "| v.jsonl | t2v | 11.25 | 20.00 | 30.00 | 40.00 | 5.00 | 6.50 |" in card
    assert '"margin": 0.07' in card
    assert "began with mdmmt_3mod.pth" in card
    assert f"mdmmt {VERSION}" in card and "torch" in card


def test_a_card_without_validation_has_no_table_of_metrics():
    assert "validation |" not in model_card(CONFIG, "x", [(4, 12), (5, 5)], 3, {}, {})

"""The operator's `on_error`: a bad item is left out, or ends the pipeline."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from towhee import ops, pipe

import mdmmt
from mdmmt.errors import InputError, WeightsError

BAD_TEXTS = ["", " \n", None, 3, "\ud800"]


def operator(modality="text", **options):
    options = {"weight_path": "sample", "device": "cpu", "on_error": "none", **options}
    return mdmmt.operator.MDMMT(modality, **options)


@pytest.mark.parametrize("bad", [*BAD_TEXTS, []])
def test_on_error_none_gives_none_for_a_bad_text(bad, caplog):
    assert operator()(bad) is None
    assert [r.levelno for r in caplog.records if r.name == "mdmmt.operator"] == [logging.ERROR]


def test_on_error_none_gives_rows_of_nan_in_a_list(caplog):
    embed = operator()
    vectors = embed(["a ball", *BAD_TEXTS, "a star"])
    assert np.isnan(vectors[1:-1]).all()
    np.testing.assert_allclose(vectors[[0, -1]], embed(["a ball", "a star"]), atol=1e-6)
    assert "text 1: text is ''" in caplog.text
    assert np.isnan(embed(["", " "])).all()


def test_on_error_none_leaves_bad_videos_out(sample_clips, tmp_path, caplog):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    bad = [tmp_path / "bad.mp4", tmp_path / "missing.mp4", {"a": 1}, 7]
    good = sample_clips(1, 0)[0].path
    embed, cut = operator("video"), operator("video", segments="windows")
    for one in bad:
        assert embed(one) is None
        assert cut(one) == []
        assert operator("features")(one) is None
    vectors = embed([*bad, good])
    assert np.isnan(vectors[:-1]).all()
    np.testing.assert_allclose(vectors[-1], embed(good), atol=1e-6)


def test_on_error_none_still_raises_missing_weights(tmp_path, monkeypatch):
    embed = operator()

    def missing(*_):
        raise WeightsError("the weights are gone")

    monkeypatch.setattr(embed.model, "encode_text", missing)
    with pytest.raises(WeightsError):
        embed("a ball")
    with pytest.raises(WeightsError):
        embed(["a ball", "a star"])


def test_on_error_refuses_another_word():
    with pytest.raises(InputError, match="on_error is 'ignore', expected 'raise' or 'none'"):
        operator(on_error="ignore")


@pytest.mark.towhee
def test_on_error_in_pipelines(caplog):
    def embed(on_error):
        one = ops.video_text_embedding.mdmmt(
            modality="text", weight_path="sample", device="cpu", on_error=on_error
        )
        return pipe.input("t").map("t", "v", one).output("v")

    results = embed("none").batch(["a ball", "", "a star"])
    # Towhee gives None for a row that holds nothing else.
    assert [result.get() is None for result in results] == [False, True, False]
    caplog.clear()
    with pytest.raises(RuntimeError, match="expected some words"):
        embed("raise")("")
    records = [r for r in caplog.records if r.name == "mdmmt.operator"]
    assert "expected some words" in records[0].getMessage()

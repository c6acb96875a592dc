"""Many texts or videos to rows of embeddings."""

from __future__ import annotations

import numpy as np
import pytest

import mdmmt
from mdmmt.batch import embed
from mdmmt.batch.embed import embed_texts, embed_videos, embed_windows
from mdmmt.cli import main
from mdmmt.features import ExpertFeatures, FeatureFile, SourceVideo, write_features

TEXTS = ["a dog", " ", "a red ball", "\ud800", "hello world"]


@pytest.fixture
def feature_files(tiny_model, tmp_path, monkeypatch):
    """Four feature files of the tiny model's experts; the third is damaged."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(4):
        features = {
            expert.name: ExpertFeatures(
                rng.standard_normal((3, expert.dim)), np.arange(6).reshape(3, 2)
            )
            for expert in tiny_model.config.video.experts
        }
        path = tmp_path / f"{i}.mp4.safetensors"
        content = FeatureFile(
            features, SourceVideo(path.name, 1, "0"), dict.fromkeys(features, "1")
        )
        write_features(path, content)
        paths.append(str(path))
    (tmp_path / "2.mp4.safetensors").write_bytes(b"damaged")
    return paths


def test_embed_texts_keeps_the_order_and_names_errors(tiny_model):
    rows = list(embed_texts(tiny_model, TEXTS))
    assert [row.name for row in rows] == TEXTS
    assert [row.error is None for row in rows] == [True, False, True, False, True]
    assert "expected some words" in rows[1].error and "surrogate" in rows[3].error
    for row in (rows[0], rows[2], rows[4]):
        np.testing.assert_allclose(row.vector, tiny_model.encode_text(row.name), atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 128])
def test_embed_videos_keeps_the_order_and_names_errors(
    tiny_model, feature_files, size, monkeypatch
):
    monkeypatch.setattr(embed, "VIDEOS_AT_ONCE", size)
    rows = list(embed_videos(tiny_model, feature_files))
    assert [row.name for row in rows] == feature_files
    assert [row.vector is None for row in rows] == [False, False, True, False]
    assert "not a readable feature file" in rows[2].error
    np.testing.assert_allclose(rows[3].vector, tiny_model.encode_video(feature_files[3]), atol=1e-6)


def test_an_unforeseen_error_of_one_item_stops_no_other(tiny_model, monkeypatch):
    encode = tiny_model.encode_text

    def broken(texts):
        if "a red ball" in texts:
            raise RecursionError("unforeseen")
        return encode(texts)

    monkeypatch.setattr(tiny_model, "encode_text", broken)
    rows = list(embed_texts(tiny_model, ["a dog", "a red ball", "hello"]))
    assert [row.error for row in rows] == [None, "RecursionError: unforeseen", None]


def test_embed_windows_gives_spans(feature_files, tiny_model):
    rows = list(embed_windows(tiny_model, feature_files[1:3], 2.0, 2.0))
    assert [row.span_s for row in rows] == [(0.0, 2.0), (2.0, 4.0), (4.0, 5.0), None]
    assert [row.name for row in rows] == [feature_files[1]] * 3 + [feature_files[2]]
    assert rows[-1].vector is None and rows[-1].error


@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_embed_keeps_what_is_done_when_it_is_interrupted(tmp_path, monkeypatch, capsys, suffix):
    monkeypatch.setattr(embed, "BATCH_SIZE", 1)

    def interrupted(model, texts):
        yield from embed_texts(model, texts[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr("mdmmt.batch.embed.embed_texts", interrupted)
    out = tmp_path / f"a{suffix}"
    texts = [f"--text={text}" for text in ("a red ball", "a star", "a square")]
    assert main(["embed", *texts, "--weights=sample", f"--out={out}"]) == 130
    assert "2 of 3 embedded" in capsys.readouterr().out
    if suffix == ".npy":
        assert np.isnan(np.load(out)).any(axis=1).tolist() == [False, False, True]
    else:
        assert len(out.read_text().splitlines()) == 2


def test_embed_texts_goes_on_after_a_refused_text(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mdmmt.load("sample", "cpu")
    texts = [f"a red ball {i}" for i in range(64)]
    expected = model.encode_text(texts)
    texts[5], texts[40] = " ", ""
    passes, encode = [], model.encode_text
    monkeypatch.setattr(model, "encode_text", lambda given: passes.append(given) or encode(given))
    rows = list(embed_texts(model, texts))
    assert [row.name for row in rows] == texts
    assert {i: row.error for i, row in enumerate(rows) if row.error} == {
        5: "text is ' ', expected some words",
        40: "text is '', expected some words",
    }
    for i in (0, 4, 6, 63):
        np.testing.assert_allclose(rows[i].vector, expected[i], atol=1e-5)
    assert len(passes) < 30  # not each by itself


def test_embed_videos_embeds_what_was_read_before_an_interruption(
    tiny_model, feature_files, monkeypatch
):
    read = tiny_model.read_tokens

    def interrupted(path):
        if path == feature_files[2]:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(tiny_model, "read_tokens", interrupted)
    rows = embed_videos(tiny_model, feature_files)
    done = [next(rows), next(rows)]
    assert [row.name for row in done] == feature_files[:2]
    assert all(row.vector is not None for row in done)
    with pytest.raises(KeyboardInterrupt):
        next(rows)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_embed_videos_embeds_again_what_an_interruption_would_lose(
    tiny_model, feature_files, monkeypatch, times
):
    encode, left = tiny_model.encode_tokens, [KeyboardInterrupt()] * times

    def interrupted(videos):
        if left:
            raise left.pop()
        return encode(videos)

    monkeypatch.setattr(tiny_model, "encode_tokens", interrupted)
    done = []
    with pytest.raises(KeyboardInterrupt):
        for row in embed_videos(tiny_model, feature_files):
            done.append(row)
    assert len(done) == (0 if times == 2 else 4)
    assert [row.name for row in done if row.vector is not None] == [
        path for path in feature_files if times == 1 and not path.endswith("2.mp4.safetensors")
    ]


@pytest.mark.slow
def test_videos_give_the_same_bits_and_warnings_for_any_number_of_jobs(long, short, tmp_path):
    model = mdmmt.load("sample", "cpu")
    (tmp_path / "broken.mp4").write_bytes(b"this is no video" * 100)
    paths = [str(path) for path in (long, short, tmp_path / "broken.mp4", long, short, short)]
    results = []
    for jobs in (1, 2, 3):
        with pytest.warns(UserWarning, match="takes all of it") as caught:
            rows = list(embed_videos(model, paths, jobs))
        assert {one.filename for one in caught} == {__file__} and len(caught) == 2
        rows += embed_windows(model, paths, 2.0, 1.0, jobs)
        results.append(
            [(row.name, row.vector is not None and row.vector.tobytes(), row.error) for row in rows]
        )
    assert results[0] == results[1] == results[2]
    assert [row[0] for row in results[0][:6]] == paths and results[0][2][2]

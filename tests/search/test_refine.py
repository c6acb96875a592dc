"""Narrower times of hits, from kept features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from index_windows import MODEL, segments

import mdmmt
import mdmmt.experts
from mdmmt.features import ExpertFeatures, FeatureFolder, duration_s, extract
from mdmmt.features.files import FeatureFile, SourceVideo, versions_of, write_features
from mdmmt.sample.captions import caption
from mdmmt.search import Index, index_file, refine_hits
from mdmmt.search import refine as refine_module
from mdmmt.search.index import Hit

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")
EXPERTS = ["frame", "motion", "sound"]


@pytest.fixture(scope="module")
def model():
    return mdmmt.load("sample", "cpu")


@pytest.fixture(scope="module")
def film(sample_clips, model):
    """The features of six clips, one after the other, where each is, and a caption of each."""
    experts = mdmmt.experts.load(EXPERTS)
    parts: dict[str, list[ExpertFeatures]] = {name: [] for name in EXPERTS}
    spans, captions, start_s = [], [], 0.0
    for clip in sample_clips(6, 7):
        features = extract(clip.path, experts)
        for name, one in features.items():
            parts[name].append(ExpertFeatures(one.values, one.times_s + start_s))
        end_s = start_s + duration_s(features)
        spans.append((start_s, end_s))
        captions.append(caption(clip.combination, np.random.default_rng(7)))
        start_s = end_s
    whole = {
        name: ExpertFeatures(
            np.concatenate([one.values for one in some]),
            np.concatenate([one.times_s for one in some]),
        )
        for name, some in parts.items()
    }
    return (
        FeatureFile(whole, SourceVideo("film.mp4", 1, None), versions_of(experts)),
        spans,
        captions,
    )


def shared(hit: Hit, span: tuple[float, float]) -> float:
    """The time that a hit and a clip share, as a part of the time of both."""
    together = min(hit.end_s, span[1]) - max(hit.start_s, span[0])
    return max(together, 0) / (max(hit.end_s, span[1]) - min(hit.start_s, span[0]))


@pytest.mark.slow
def test_refine_hits_narrows_the_times_to_the_clip(film, model, tmp_path, monkeypatch):
    content, spans, captions = film
    path = tmp_path / "film.mp4.safetensors"
    write_features(path, content)
    with Index.open(tmp_path / "library.db", model) as index:
        index_file(index, model, str(path), window_s=6.0, stride_s=3.0)
        before, after = [], []
        for span, query in zip(spans, model.encode_text(captions), strict=True):
            hits = index.find_moments(query, 3)
            refined, without = refine_hits(index, model, query, hits)
            assert without == []
            for hit, narrow in zip(hits, refined, strict=True):
                assert hit.start_s <= narrow.start_s < narrow.end_s <= hit.end_s
                assert narrow.start_s <= narrow.best_s[0] < narrow.best_s[1] <= narrow.end_s
                assert (hit.id, hit.score) == (narrow.id, narrow.score)
                assert narrow.vector is hit.vector
            before.append(shared(hits[0], span))
            after.append(shared(refined[0], span))
        assert np.mean(before) < 0.5 and np.mean(after) > 0.65
        # However long a hit is, the work is bounded.
        monkeypatch.setattr(refine_module, "MOST_STEPS", 4)
        pieces: list[list[tuple[float, float]]] = []
        embed = model.encode_segments
        monkeypatch.setattr(
            model, "encode_segments", lambda f, spans: pieces.append(spans) or embed(f, spans)
        )
        refine_hits(index, model, query, hits)
        for hit, spans in zip(hits, pieces, strict=True):
            assert len(spans) <= 4 and (spans[0][0], spans[-1][1]) == (hit.start_s, hit.end_s)
        write_features(path, replace(content, source=SourceVideo("another.mp4", 1, None)))
        assert refine_hits(index, model, query, hits) == (hits, [str(path)])


@pytest.mark.slow
def test_refine_hits_reads_the_features_of_the_same_video(film, model, tmp_path):
    content, _, captions = film
    video = tmp_path / "film.mp4"
    video.write_bytes(b"the content is compared, and not decoded")
    content = replace(content, source=SourceVideo.of(video))
    good = tmp_path / "features"
    good.mkdir()
    write_features(good / "film.mp4.safetensors", content)
    (query,) = model.encode_text(captions[:1])
    with Index.open(tmp_path / "library.db", model) as index:
        file = good / "film.mp4.safetensors"
        index_file(index, model, str(video), 6.0, 3.0, feature_files=[file])
        index.add("other.mp4", index.segments(str(video)))  # by another program
        hits = index.find_moments(query, 2)
        mine, other = sorted(hits, key=lambda hit: hit.path == "other.mp4")
        narrow, without = refine_hits(index, model, query, [mine, other], FeatureFolder(good))
        assert narrow[0].end_s - narrow[0].start_s < mine.end_s - mine.start_s
        assert narrow[1] == other and without == ["other.mp4"]
        assert refine_hits(index, model, query, [mine, mine]) == ([mine, mine], [str(video)])
        versions = {**content.versions, "frame": "another"}
        for number, wrong in enumerate(
            (
                replace(content, versions=versions),
                replace(content, clock="track"),
                replace(content, source=replace(content.source, sha256="0" * 64)),
            )
        ):
            folder = tmp_path / f"wrong {number}"
            folder.mkdir()
            write_features(folder / "film.mp4.safetensors", wrong)
            kept = refine_hits(index, model, query, [mine], FeatureFolder(folder))
            assert kept == ([mine], [str(video)])


def test_refine_hits_takes_no_hits(model, tmp_path):
    with Index.open(tmp_path / "library.db", MODEL) as index:
        index.add("a.mp4", segments(1))
        assert refine_hits(index, model, segments(1).vectors[0], []) == ([], [])

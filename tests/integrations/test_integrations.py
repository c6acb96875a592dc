"""The examples of docs/integrations.md find what `Index.search` finds, with the same scores.

Run by `make test` in an environment of its own (see the Makefile), without Towhee.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fresh import Guard
from pages import ROOT, RUN_APART, run_blocks

import mdmmt
from mdmmt.sample.clips import CLIPS, SEED, choose, draw_library
from mdmmt.search import Index, index_files

# Long and short ones, since the norms of their embeddings differ.
QUERIES = ["A cyan star stands still with a falling tone.", "something red", "a beep", "a dog"]

Ranking = list[tuple[str, float]]  # the names of files, best first, with the inner products


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the code of the page has defined."""
    home = tmp_path_factory.mktemp("integrations")
    draw_library(home / "demo" / "clips", choose(np.random.default_rng(SEED)))
    guard = Guard(pip=False)
    sys.addaudithook(guard)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        yield run_blocks(ROOT / "docs" / "integrations.md", RUN_APART)
    assert not guard.offences  # nothing has tried to reach the network


def test_towhee_is_not_here() -> None:
    assert importlib.util.find_spec("towhee") is None


@pytest.fixture(scope="module")
def index(names, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Our index of the same clips."""
    model = mdmmt.load("sample")
    with Index.open(tmp_path_factory.mktemp("index") / "library.db", model) as index:
        assert [outcome.error for outcome in index_files(index, model, names["clips"])] == (
            [None] * CLIPS
        )
        yield index


def by_langchain(names: dict[str, Any], query: str) -> Ranking:
    hits = names["store"].similarity_search_with_score(query, k=CLIPS)
    return [(document.page_content, score * names["VIDEO_NORM"]) for document, score in hits]


def by_llamaindex(names: dict[str, Any], query: str) -> Ranking:
    hits = names["index"].as_retriever(similarity_top_k=CLIPS).retrieve(query)
    return [(hit.text, hit.score * names["VIDEO_NORM"]) for hit in hits]


def by_sentence_transformers(names: dict[str, Any], query: str) -> Ranking:
    util, torch = names["util"], names["torch"]
    texts = torch.from_numpy(names["model"].encode_text([query]))
    (hits,) = util.semantic_search(
        texts, names["videos"], top_k=CLIPS, score_function=util.dot_score
    )
    return [(names["clips"][hit["corpus_id"]], hit["score"]) for hit in hits]


def check(found: Ranking, index: Index, vector: np.ndarray) -> None:
    wanted = [(Path(hit.path).name, hit.score) for hit in index.search(vector, k=len(found))]
    assert [Path(name).name for name, _ in found] == [name for name, _ in wanted]
    scores = [[score for _, score in ranking] for ranking in (found, wanted)]
    np.testing.assert_allclose(*scores, atol=1e-5)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("search", [by_langchain, by_llamaindex, by_sentence_transformers])
def test_ranking_is_that_of_our_index(
    search: Callable[[dict[str, Any], str], Ranking],
    query: str,
    names: dict[str, Any],
    index: Index,
) -> None:
    found = search(names, query)
    assert len(found) == CLIPS
    check(found, index, names["model"].encode_text(query))


def test_page_shows_the_best_hits(names: dict[str, Any], index: Index) -> None:
    """The examples of the page itself, with their own query."""
    vector = names["model"].encode_text(names["query"])
    found = [(names["clips"][hit["corpus_id"]], hit["score"]) for hit in names["found"]]
    check(found, index, vector)
    first = names["model"].encode_video(names["clips"][0])
    like_first = [(document.page_content, 3 * score) for document, score in names["like_first"]]
    check(like_first, index, first)


def test_scores_of_several_texts_can_be_compared(names: dict[str, Any]) -> None:
    """A video finds texts by the inner product too: their norms in the store are equal."""
    texts, videos = names["embed_texts"](QUERIES), names["embed_videos"](names["clips"])
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(videos, axis=1), names["VIDEO_NORM"], atol=1e-5)
    wanted = names["model"].similarity(QUERIES, names["videos"].numpy()).score
    np.testing.assert_allclose(np.array(texts) @ np.array(videos).T, wanted, atol=1e-5)

"""Names in the metadata as filters spell them, and lists beside other values."""

import json

import numpy as np
import pytest

from mdmmt.errors import InputError
from mdmmt.model import Segments
from mdmmt.search.filters import fields_of, spell_name
from mdmmt.search.index import Index
from mdmmt.weights.identity import Identity

pytest.importorskip("milvus_lite", reason="the extra `index` is not installed")

NAMES = ["year", "my-name", "like", "LIKE", "Not", "true", "exists", "iso", "a b", "1st", "a.b"]
NAMES += [
    "\u00fcn\u00ef",
    'q"u',
    "x'y",
    "back\\s",
    "line\nbreak",
    "tab\t",
    "_seq",
    "",
    "json_contains",
]
NAMES += ["array_length", "St_Contains", "score", "count", "a\0b", "\u65e5\u672c"]
ONE = Segments(np.ones((1, 4), np.float32), np.array([[0.0, 1.0]]))


@pytest.fixture(scope="module")
def open_index(new_database):
    with Index.open(new_database(), Identity("ours", "0" * 64, 4)) as index:
        for number, name in enumerate(NAMES):
            index.add(f"{number}.mp4", ONE, metadata={name: number})
        index.add("lists.mp4", ONE, metadata={name: [1, 2] for name in NAMES})
        index.add("objects.mp4", ONE, metadata={name: {"a": [1]} for name in NAMES})
        yield index


def paths(index: Index, filter: str) -> set[str]:
    return {hit.path for hit in index.search(np.ones(4, np.float32), 100, filter)}


@pytest.mark.parametrize("flushed", [False, True])
def test_spell_name_gives_what_a_filter_understands(open_index, flushed):
    if flushed:
        open_index._flush()
    for number, name in enumerate(NAMES):
        spelled = spell_name(name, number)
        if name in ("", "a\0b") and not open_index._local:
            continue  # Milvus 2.3 has no filter for such a name
        assert paths(open_index, f"{spelled} == {number}") == {f"{number}.mp4"}, name
        spelled = spell_name(name, [])
        assert paths(open_index, f"array_contains({spelled}, 2)") == {"lists.mp4"}, name
        assert paths(open_index, f'{spelled}["a"][0] == 1') == {"objects.mp4"}, name


def test_spell_name_leaves_a_plain_word_as_it_is():
    assert spell_name("year", 3) == "year" and spell_name("liked", "x") == "liked"
    assert spell_name("like", 3) == 'metadata["like"]'
    assert spell_name("year", [3]) == 'metadata["year"]'


def test_metadata_names_are_spelled(open_index):
    names = open_index.metadata_names()
    assert {"year", 'metadata["year"]', 'metadata["my-name"]', 'metadata["like"]'} <= {*names}
    assert names == sorted({*names}) and "like" not in names


@pytest.mark.parametrize("odd", [[1, 2], [], {"a": 1}, [[2020]], "2020", True, None, 2020.5])
def test_search_filters_beside_another_type_of_value(databases, odd):
    with Index.open(databases("library"), Identity("ours", "0" * 64, 4)) as index:
        for path, year in (("a", 2020), ("b", 1999), ("odd", odd)):
            index.add(path, ONE, metadata={"year": year})
        index.add("none", ONE)
        for _ in range(2):
            assert paths(index, "year in [2020, 2021]") == {"a"}
            assert paths(index, "year not in [1999]") - {"odd", "none"} == {"a"}
            assert paths(index, "year == 2020") == {"a"}
            assert paths(index, "year > 2000 and year < 2020.2") == {"a"}
            assert index.metadata("odd") == {"year": odd}
            index._flush()


def test_fields_of_leaves_lists_and_objects_out():
    metadata = {"year": 2020, "by": "Ann", "tags": ["a"], "deep": {"er": 1}, "none": None}
    assert fields_of(metadata) == {"year": 2020, "by": "Ann", "none": None}


@pytest.mark.parametrize("name", ["[", "{"])
@pytest.mark.parametrize("depth", [101, 900, 100_000])
def test_add_refuses_deep_metadata(open_index, name, depth):
    value: object = 1
    for _ in range(depth):
        value = [value] if name == "[" else {"a": value}
    with pytest.raises(InputError, match="nested more than 100 levels"):
        open_index.add("deep.mp4", ONE, metadata={"x": value})


def test_add_takes_metadata_of_the_greatest_depth(open_index):
    value = json.loads("[" * 99 + "]" * 99)
    open_index.add("deep.mp4", ONE, metadata={"x": value})
    open_index._flush()
    assert open_index.metadata("deep.mp4") == {"x": value}
    open_index.delete("deep.mp4")

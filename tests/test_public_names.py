"""The public names of the package: what is not listed here may change in any release."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

PUBLIC = {
    "mdmmt": """
        MDMMT InputError InputTypeError MdmmtError MissingDependency Model Segments Similarity
        WeightsError __version__ load mdmmt
    """,
    "mdmmt.evaluation": """
        Caption CaptionIndex Difference Galleries IndexedCaption PROTOCOLS Ranks Result
        ablate check_plot compare compare_results comparison_table evaluate intervals
        make_galleries plot ranks read_caption_indexes read_captions read_results summary table
        write_results
    """,
    "mdmmt.experts": """
        AudioSpec Expert ExpertPrecision FrameSpec LIGHT_EXPERTS PRETRAINED_EXPERTS WeightsSource
        expert_classes
        load
    """,
    "mdmmt.features": """
        ExpertFeatures FeatureFile FeatureFolder FeatureHeader InputDict SourceVideo Span Tokens
        VideoFeatures VideoInput VideoTokens duration_s extract find_videos_or_features
        overlaps read_features select windows write_features
    """,
    "mdmmt.training": """
        BatchTexts DatasetConfig Loss MakeTexts Sample Segment TrainingConfig TrainingResult
        read_recipe train
    """,
    "mdmmt.search": """
        FileEntry Hit Identity Index IndexedFile Outcome Refined Transferred
        export_index import_index index_file index_files read_metadata refine_hits write_page
    """,
}
# What a model is made of, to be passed on and not to be looked into.
INSIDE = {
    *("FastTextTower", "FastVideoTower", "ModelConfig", "TextTower", "Tokenizer", "VideoTower"),
}


@pytest.fixture(params=PUBLIC)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_public_names_are_those_listed(module: ModuleType) -> None:
    assert sorted(module.__all__) == sorted(PUBLIC[module.__name__].split())


def test_public_names_are_all_that_a_package_defines(module: ModuleType) -> None:
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert defined - {"Any", "TYPE_CHECKING", "annotations"} <= set(module.__all__)


def test_public_names_are_documented(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__.startswith("mdmmt.")
            assert inspect.getdoc(value), name


def test_public_names_use_no_other_types_of_the_package(module: ModuleType) -> None:
    modules = map(importlib.import_module, PUBLIC)
    public = {id(getattr(one, name)) for one in modules for name in one.__all__}
    for name in module.__all__:
        for function in functions_of(getattr(module, name)):
            hints = get_type_hints(function, localns={"MilvusClient": object})
            for used in classes_in(*hints.values()):
                is_ours = used.__module__.startswith("mdmmt.")
                assert not is_ours or id(used) in public or used.__name__ in INSIDE, (name, used)


def test_public_functions_take_paths_as_strings_too(module: ModuleType) -> None:
    for name in module.__all__:
        for function in functions_of(getattr(module, name)):
            if inspect.isclass(function) or function.__name__ == "__init__":
                continue  # the package itself makes those that hold a path, such as a `Model`
            hints = get_type_hints(function, localns={"MilvusClient": object})
            for parameter, hint in hints.items():
                kinds = [hint, *get_args(hint)]
                assert parameter == "return" or Path not in kinds or str in kinds, (name, parameter)


def functions_of(value: Any) -> Iterator[Callable[..., Any]]:
    """A function itself; a class with its public methods and properties."""
    if inspect.isfunction(value):
        yield value
    elif inspect.isclass(value):
        yield value
        for name, member in vars(value).items():
            member = getattr(member, "fget", getattr(member, "__func__", member))
            if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
                yield member


def classes_in(*hints: Any) -> Iterator[type]:
    for hint in hints:
        hint_or_origin = get_origin(hint) or hint
        if inspect.isclass(hint_or_origin):
            yield hint_or_origin
        yield from classes_in(*(one for one in get_args(hint) if not isinstance(one, list)))

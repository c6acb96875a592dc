"""The public names of the package: what is not listed here may change in any release."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest

PUBLIC = {
    "mdmmt": """
        MDMMT InputError InputTypeError MdmmtError MissingDependency Model Segments Similarity
        WeightsError __version__ load mdmmt
    """,
    "mdmmt.evaluation": """
        Caption CaptionIndex Difference Galleries PROTOCOLS Ranks Result ablate check_plot compare
        compare_results comparison_table evaluate intervals make_galleries plot ranks
        read_caption_indexes read_captions read_results summary table write_results
    """,
    "mdmmt.experts": """
        AudioSpec Expert FrameSpec LIGHT_EXPERTS PRETRAINED_EXPERTS WeightsSource expert_classes
        load
    """,
    "mdmmt.features": """
        ExpertFeatures FeatureFile FeatureFolder SourceVideo VideoFeatures duration_s extract
        overlaps read_features select windows write_features
    """,
    "mdmmt.search": """
        Hit Identity Index index_file index_files read_metadata write_page
    """,
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

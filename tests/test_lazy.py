"""Names that a package imports late: they are there, are listed, and no other names are."""

from __future__ import annotations

from importlib import import_module

import pytest

PACKAGES = {
    "mdmmt": ("load", "MDMMT", "search", "evaluation"),
    "mdmmt.datasets": ("CaptionIndex", "caption_indexes"),
    "mdmmt.evaluation": ("ablate", "CaptionIndex", "runs"),
    "mdmmt.search": ("write_page", "page"),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_names_of_gives_and_lists_late_names(package: str) -> None:
    module = import_module(package)
    for name in PACKAGES[package]:
        value = vars(module)["__getattr__"](name)
        assert name in (value.__name__, value.__name__.rpartition(".")[2])
        assert getattr(module, name) is value and name in dir(module)
    assert {*module.__all__, "__doc__"} <= set(dir(module))


@pytest.mark.parametrize("package", PACKAGES)
def test_names_of_refuses_other_names(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'lod'"):
        import_module(package).lod  # noqa: B018

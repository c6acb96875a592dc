"""Experts by name: which there are, and when their modules are imported."""

import subprocess
import sys

import pytest

from mdmmt.errors import InputError
from mdmmt.experts import LIGHT_EXPERTS, PRETRAINED_EXPERTS, expert_classes, load


def imported_modules(code: str) -> set[str]:
    """The modules of this package, and PyAV, that a fresh process has imported after `code`."""
    program = f"{code}\nimport sys\nprint(*(name for name in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True
    )
    return {name for name in result.stdout.split() if name == "av" or name.startswith("mdmmt")}


def test_registry_lists_every_expert_by_its_own_name():
    classes = expert_classes(LIGHT_EXPERTS + PRETRAINED_EXPERTS)
    assert [expert.name for expert in classes.values()] == list(classes)
    assert len(classes) == len(LIGHT_EXPERTS) + len(PRETRAINED_EXPERTS)


def test_load_gives_experts_in_the_order_of_the_names():
    running = load(["sound", "frame"])
    assert [type(expert) for expert in running.values()] == [
        *expert_classes(["sound", "frame"]).values()
    ]


@pytest.mark.parametrize("function", [load, expert_classes])
def test_registry_refuses_an_unknown_expert_by_name(function):
    with pytest.raises(InputError, match=r"speech.*frame, motion, sound"):
        function(["frame", "speech"])


TEXT_OPERATOR = "import mdmmt; mdmmt.MDMMT('text', 'sample', 'cpu')('a red ball')"


@pytest.mark.slow
@pytest.mark.parametrize("code", ["import mdmmt, mdmmt.experts", TEXT_OPERATOR])
def test_text_operator_imports_no_expert(code):
    imported = imported_modules(code)
    experts = {c.__module__ for c in expert_classes(LIGHT_EXPERTS + PRETRAINED_EXPERTS).values()}
    assert "mdmmt.experts.registry" in imported
    assert not imported & {*experts, "mdmmt.experts.pretrained", "av"}


@pytest.mark.slow
def test_expert_classes_imports_only_the_named_experts():
    imported = imported_modules("import mdmmt.experts; mdmmt.experts.expert_classes(['CLIP'])")
    assert "mdmmt.experts.clip" in imported
    assert not imported & {"mdmmt.experts.ircsn", "mdmmt.experts.vggish", "av"}

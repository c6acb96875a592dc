"""The operator in Towhee's registry, in whichever order a program imports the two packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
from towhee.runtime.operator_manager.operator_registry import OperatorRegistry
from towhee import runtime
import inspect, mdmmt
assert OperatorRegistry.resolve("video-text-embedding/mdmmt") is mdmmt.MDMMT
assert "register" in inspect.getsource(runtime)  # Towhee's own loader is still there
"""
ALONE = """
import sys, mdmmt
assert not {"torch", "towhee", "numpy"} & set(sys.modules)
"""


@pytest.mark.slow
@pytest.mark.towhee
@pytest.mark.parametrize(
    "program",
    [
        ALONE + LOOK,
        "import mdmmt, towhee" + LOOK,
        "import towhee, mdmmt" + LOOK,
        "from towhee.runtime import ops; from mdmmt import load" + LOOK,
        "import mdmmt.operator" + LOOK,
        ALONE + "from mdmmt import *" + LOOK,
    ],
)
def test_register_with_towhee_waits_for_towhee(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)

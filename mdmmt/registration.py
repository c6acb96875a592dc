"""Registers the operator with Towhee once a program has imported both, in either order.

So `import mdmmt` itself imports neither Towhee nor torch, and the commands start at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

TOWHEE = "towhee.runtime"  # holds the registry; `import towhee` imports it
OPERATOR = f"{__package__}.operator"  # registers its class when it is imported


def register_with_towhee() -> None:
    """Import the operator now if Towhee is there already, else right after Towhee."""
    if TOWHEE in sys.modules:
        import_module(OPERATOR)
    else:
        sys.meta_path.insert(0, _TowheeFinder())


class _TowheeFinder(MetaPathFinder):
    """Finds Towhee where Python does, and lets its loader import the operator at the end."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TOWHEE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                import_module(OPERATOR)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec

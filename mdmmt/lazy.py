"""Names of a package whose modules are imported when such a name is first used.

So a program waits for torch and other large packages only if it uses them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def names_of(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and the `__dir__` of a package.

    A type checker must not see the first, or it would take any name for one of the package.

    Args:
        package: its full name.
        modules: the modules that are imported late, by their names relative to the package, such
            as `.runs`, each with the names that it gives to the package.
    """
    own = [module[1:] for module in modules if not module.startswith("..")]
    module_of = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name in own:
            return import_module(f".{name}", package)
        if name in module_of:
            return getattr(import_module(module_of[name], package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of, *own})

    return get, names

"""Names of a package that are imported when they are asked for (PEP 562): what only reads results never loads torch."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def from_homes(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`, of each public name and the module below the package that defines it.

    Errors: AttributeError of an unknown name, as modules raise it.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    def known() -> list[str]:
        return sorted({*vars(import_module(package)), *homes})

    return load, known

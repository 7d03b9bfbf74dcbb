"""Dotted names -> what they resolve to, walked through real modules of allowed packages alone. No torch at import.

`torch.os.system` and `torch.nn.modules.module.torch.os.system` resolve in Python, because a module's imports are
attributes of it. Here every part before the last must be a submodule that lies in its package's own folder, so that
neither of them does; and nothing outside the packages is imported to find out.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import Any


def parts_of(name: object) -> tuple[str, ...]:
    """The parts of a dotted name; () of what is none, as one with a colon.

    Example:
        >>> parts_of("torch.nn.Linear"), parts_of("hw1.runs:os.system"), parts_of("torch..nn")
        (('torch', 'nn', 'Linear'), (), ())
    """
    parts = tuple(name.split(".")) if isinstance(name, str) else ()
    return parts if parts and all(part.isidentifier() for part in parts) else ()


def lies_in(name: object, packages: Sequence[str]) -> bool:
    """Whether a dotted name is one of the packages, or within one, compared part by part.

    Example:
        >>> lies_in("torch.nn.Linear", ["torch"]), lies_in("torchevil.nn", ["torch"]), lies_in("torch_nn", ["torch"])
        (True, False, False)
    """
    parts = parts_of(name)
    return any(parts[: len(own)] == own for own in map(parts_of, packages) if own)


def found(name: str, packages: Sequence[str]) -> Any:
    """The object at a dotted name within packages; None where there is none that lies there by modules alone.

    Args:
        name: `package.module.Class`.
        packages: those that may be imported.
    """
    parts = parts_of(name)
    if len(parts) < 2 or not lies_in(name, packages):
        return None
    module = _module(parts[:-1])
    if module is None:
        return None
    try:
        made = getattr(module, parts[-1], None)
    except ImportError:  # of a package's door, behind which something is missing
        return None
    return None if made is None or inspect.ismodule(made) else made


def home_of(made: Any) -> str:
    """The module in which a class or function was written; "" where it says none."""
    home = getattr(made, "__module__", None)
    return home if isinstance(home, str) else ""


def full_name(made: Any) -> str:
    """Where a class or function was written, and its name there."""
    return f"{home_of(made)}.{getattr(made, '__qualname__', '')}"


def _module(parts: tuple[str, ...]) -> Any:
    """The module at a path, each part a submodule that lies in its package's folder."""
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if end > 1 and not _is_submodule(sys.modules[".".join(parts[: end - 1])], name):
            return None
        try:
            module = importlib.import_module(name)
        except ImportError:
            return None
        if getattr(module, "__name__", None) != name or sys.modules.get(name) is not module:
            return None
    return module


def _is_submodule(package: Any, name: str) -> bool:
    places = getattr(package, "__path__", None)
    return places is not None and PathFinder.find_spec(name, list(places)) is not None

"""Which source of the user's own a config node runs: hashes of its modules, found without importing any. No torch.

A module counts where it is neither the standard library's, nor installed, nor hw1's: those have versions, which are
recorded with a run. What is installed in editable mode is the user's own. Not seen is what is imported by a name made
at run time (`importlib.import_module(name)`), what lies in a zip archive, and what a data file holds.

A process imports a module once, whatever becomes of its file: here, too, what was read first stays for the process.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from pathlib import Path, PurePath
from typing import Any

from hw1.settings.identity import WITHOUT_EFFECT, Settings, without

_OWN = ("hw1", "hydra_plugins.hw1_sweeper")
_STANDARD = os.path.dirname(os.__file__)


def code_of(settings: Settings) -> dict[str, str]:
    """The user's modules that can change a run's weights or what it records while training, as `code_of_node`.

    Left out are the groups that its key leaves out: measures and the study, whose code counts where they are
    remembered, loggers, and a budget, which works through the settings that it changes.

    Args:
        settings: of the run, resolved.
    """
    return code_of_node(without(settings, WITHOUT_EFFECT))


def code_of_node(node: Any) -> dict[str, str]:
    """{module: hash} of the user's modules that a node's `_target_`s import, at any depth, and those that these import.

    The hash is 16 hexadecimal digits of SHA-256 of the syntax tree, without comments, positions and strings that stand
    by themselves, as docstrings do; Python 3.11 to 3.13 give the same (but for bugs of 3.12.1 in f-strings). Of what is
    no Python source that parses, an extension module say, it is that of the bytes: any change of it could be one of the
    run. Modules that are not found are left out, and so are namespace packages, which hold no code.

    Example:
        >>> code_of_node({"_target_": "hw1.models.Mlp", "parts": [{"_target_": "torch.nn.ReLU"}]})
        {}
    """
    return dict(_code_of_targets(tuple(dict.fromkeys(_targets(node))), tuple(sys.path), os.getcwd()))


@functools.lru_cache(maxsize=256)  # the runs of a sweep name the same
def _code_of_targets(targets: tuple[str, ...], path: tuple[str, ...], folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    waiting = [name for target in targets for name in _modules(target.replace(":", "."))]
    while waiting:
        name = waiting.pop()
        if name not in found and (file := source_of(name)):
            found[name], imported = _read(file)
            waiting += [module for dotted in _absolute(name, imported) for module in _modules(dotted)]
    return dict(sorted(found.items()))


def source_of(name: str) -> Path | None:
    """The file of one of the user's modules; None where there is none, or it is not the user's own."""
    spec = _find(name)
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def code_of_module(name: str, folder: Path) -> str | None:
    """The hash of a module that lies in a folder, imported or not; None where there is none."""
    base = folder.joinpath(*name.split("."))
    file = next((one for one in (base / "__init__.py", base.with_suffix(".py")) if one.is_file()), None)
    return None if file is None else _read(file)[0]


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict | Mapping):
        if isinstance(target := node.get("_target_"), str):
            yield target
        node = list(node.values())
    for inner in node if isinstance(node, list | tuple) else ():
        yield from _targets(inner)


def _modules(dotted: str) -> Iterator[str]:
    """The modules that importing a dotted name runs: its packages, outermost first, and itself if it is one."""
    parts = dotted.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        spec = _find(name)
        if spec is None:
            return
        yield name
        if spec.submodule_search_locations is None:
            return


def _absolute(name: str, imported: tuple[tuple[int, str], ...]) -> Iterator[str]:
    """Dotted names of a module's imports, of which some have a level, as in `from ..a import b`."""
    spec = _find(name)
    package = name if spec and spec.submodule_search_locations is not None else name.rpartition(".")[0]
    for level, dotted in imported:
        parts = package.split(".")
        if level <= len(parts):
            yield ".".join([*parts[: len(parts) - level + 1], dotted]) if level else dotted


def _find(name: str) -> ModuleSpec | None:
    """Where one of the user's own modules stands; None where nothing does, or somebody else's."""
    parent, _, own = name.rpartition(".")
    if not own.isidentifier():  # `*`, or a slip
        return None
    if not parent:
        return _located(name, tuple(sys.path))
    spec = _find(parent)
    places = spec.submodule_search_locations if spec else None
    return None if places is None else _located(name, tuple(places))


@functools.cache
def _located(name: str, places: tuple[str, ...]) -> ModuleSpec | None:
    spec = _spec(name, places)
    if spec is None or name in _OWN:
        return None
    if spec.has_location and (file := spec.origin):
        installed = {"site-packages", "dist-packages"} & set(PurePath(file).parts)
        return None if installed or file.startswith(_STANDARD + os.sep) or not os.path.isfile(file) else spec
    return spec if spec.submodule_search_locations is not None else None


def _spec(name: str, places: tuple[str, ...]) -> ModuleSpec | None:
    """As Python's own search, but for a package it needs no imported parent, only the places of its submodules."""
    standard = (BuiltinImporter, FrozenImporter)
    if any(finder.find_spec(name) for finder in standard):
        return None
    portions: list[str] = []
    for place in places:
        finder = pkgutil.get_importer(place or os.getcwd())
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations if spec else None) or []
    if portions:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = portions
        return spec
    others = [finder for finder in sys.meta_path if finder not in (*standard, PathFinder)]  # of editable installs
    path = places if "." in name else None
    found = (finder.find_spec(name, path) for finder in others if hasattr(finder, "find_spec"))
    return next((spec for spec in found if spec is not None), None)


@functools.cache
def _read(file: Path) -> tuple[str, tuple[tuple[int, str], ...]]:
    """(hash, imports as (level, dotted name)) of a module."""
    content = file.read_bytes()
    imported: list[tuple[int, str]] = []
    try:
        tree = ast.parse(content)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported += [(0, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = f"{node.module}." if node.module else ""
                imported += [(node.level, base + alias.name) for alias in node.names]
        content = _shape(tree).encode()
    except (SyntaxError, ValueError, RecursionError):  # no source, or deeper than the interpreter follows
        pass
    return hashlib.sha256(content).hexdigest()[:16], tuple(imported)


def _shape(node: Any) -> str:
    """A syntax tree as text; empty fields are left out, as later versions of Python have more of them."""
    if isinstance(node, list):
        return f"[{', '.join(_shape(item) for item in node if not _is_remark(item))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = ((name, _shape(value)) for name, value in ast.iter_fields(node))
    filled = [f"{name}={text}" for name, text in fields if text not in ("None", "[]")]
    return f"{type(node).__name__}({', '.join(filled)})"


def _is_remark(node: Any) -> bool:
    """Whether a statement is a string by itself: a docstring, or a note below an attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

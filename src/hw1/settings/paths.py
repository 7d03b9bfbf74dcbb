"""Dotted keys of nested settings: all of them, those of values, and what a mistyped one is meant to be. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any


def paths(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all settings, groups too.

    Example:
        >>> list(paths({"seed": 1, "model": {"width": 2}}))
        ['seed', 'model', 'model.width']
    """
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from paths(value, f"{prefix}{name}.")


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all settings that are no group.

    Example:
        >>> list(leaves({"seed": 1, "model": {"hidden": [2, 3], "more": {}}}))
        [('seed', 1), ('model.hidden', [2, 3])]
    """
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def meant(key: str, known: Collection[str]) -> str:
    """The known key that a mistyped one is meant to be; "" for none. The last part says most: `lr` is `optimizer.lr`.

    Example:
        >>> meant("lr", ["seed", "optimizer.lr"]), meant("modle.width", ["model.width"]), meant("x", ["seed"])
        ('optimizer.lr', 'model.width', '')
    """
    ends = [one for one in known if one.endswith(f".{key}")]
    return next(iter(ends or difflib.get_close_matches(key, known, 1)), "")

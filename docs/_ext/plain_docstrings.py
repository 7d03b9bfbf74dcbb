"""Docstrings of hw1 are plain text with `names` quoted: what reStructuredText would read into them is escaped."""

import re

from sphinx.application import Sphinx

# Literals stay; outside them a star, a bar or a trailing underscore is itself, and no emphasis, substitution or link.
_QUOTED = re.compile(r"(``.+?``|`[^`]+`)")
_MARKS = re.compile(r"[*|\\]|(?<=\w)_(?!\w)")


def _escape(line: str) -> str:
    parts = _QUOTED.split(line)
    return "".join(part if part.startswith("`") else _MARKS.sub(r"\\\g<0>", part) for part in parts)


def plain(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Escape the lines of a docstring in place; the lines of examples stay."""
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            lines[number] = _escape(line)


def whole(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep napoleon from reading the words before a colon in a property's sentence as its type."""
    if what == "property" and isinstance(doc := getattr(thing, "__doc__", None), str) and "\n" not in doc:
        lines[:] = [_escape(doc), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Before napoleon, which reads the sections, and after it."""
    app.connect("autodoc-process-docstring", plain, priority=100)
    app.connect("autodoc-process-docstring", whole, priority=900)
    return {"parallel_read_safe": True}

"""YAML that somebody may have written: the one way in which files of settings are read. No torch.

A file is gone through as events first, which take no memory of what they claim: how deep it is, how large with its
aliases written out, whether it names tags or a key twice. Only then are values made of it, as OmegaConf makes them:
`1e-3` is a number, a date is text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hw1.bounds import DEPTH, YAML_BYTES, YAML_NODES, content_of
from hw1.records import DamagedError

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}
_NUMBER = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |\.[0-9_]+(?:[eE][-+][0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_INTEGER = next(pattern for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers["1"] if tag.endswith(":int"))
_DIGITS = 40  # of an integer


class _Loader(_BASE):  # type: ignore[misc]
    """Plain values alone."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))


def read_yaml(file: Path) -> Any:
    """The value of a file of settings: mappings, lists, text, numbers, truths and null.

    Raises:
        OSError: it is not there, or not to be read.
        DamagedError: it is no such YAML, or no file at all; larger, deeper, or with its aliases longer than it may be;
            names a tag, an alias inside of what it stands for, or a key twice. One line that names the file.
    """
    try:
        return from_yaml(content_of(file, YAML_BYTES).decode())
    except ValueError as error:
        raise DamagedError(f"{file}: {error}") from error


def from_yaml(text: str) -> Any:
    """The value that a text is, see `read_yaml`.

    Raises:
        ValueError: it is none; says why in one line.
    """
    try:
        _look_through(text)
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ValueError(f"got no YAML ({where}{said})") from error
    except RecursionError as error:
        raise ValueError("got values nested too deep") from error


class _Open:
    """A mapping or list whose end has not come."""

    def __init__(self, anchor: str | None, is_mapping: bool) -> None:
        self.anchor, self.is_mapping = anchor, is_mapping
        self.nodes = 1
        self.keys: set[str] = set()
        self.at_key = is_mapping


def _look_through(text: str) -> None:
    """Raise what is wrong with a text before any of it is built."""
    opened = [_Open(None, False)]
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, _Loader):
        line = f" (line {event.start_mark.line + 1})"  # type: ignore[union-attr]
        inside = opened[-1]
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(
                    f"got the alias *{event.anchor}, expected one of something that has ended before{line}"
                )
            _add(inside, sizes[event.anchor], line)
        elif isinstance(event, yaml.ScalarEvent):
            _refuse_tag(event.tag, line)
            if len(event.value) > _DIGITS and _is_integer(event):
                raise ValueError(f"got an integer of {len(event.value)} digits, expected at most {_DIGITS}{line}")
            if inside.at_key and event.value != "<<":
                if event.value in inside.keys:
                    raise ValueError(f"got the key {event.value[:60]!r} twice, expected each once{line}")
                inside.keys.add(event.value)
            _add(inside, 1, line)
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            _refuse_tag(event.tag, line)
            if inside.at_key:
                raise ValueError(f"got a key that is no text, expected text{line}")
            if problem := DEPTH.problem(len(opened)):
                raise ValueError(f"{problem}{line}")
            opened.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = opened.pop()
            _add(opened[-1], ended.nodes, line)
            if ended.anchor:
                sizes[ended.anchor] = ended.nodes
        elif isinstance(event, yaml.DocumentStartEvent) and inside.nodes > 1:
            raise ValueError(f"got a second document, expected one{line}")


def _add(inside: _Open, nodes: int, line: str) -> None:
    inside.nodes += nodes
    if inside.is_mapping:
        inside.at_key = not inside.at_key
    if problem := YAML_NODES.problem(inside.nodes):
        raise ValueError(f"{problem}{line}")


def _is_integer(event: yaml.ScalarEvent) -> bool:
    """Whether an integer is made of a scalar: of decimal, hexadecimal, octal, binary digits, or of base 60."""
    if event.tag is not None and event.tag != "!":
        return str(event.tag) == "tag:yaml.org,2002:int"
    plain = event.tag == "!" or not event.style  # `! "1"` is taken for plain
    return plain and bool(_INTEGER.match(event.value))


def _refuse_tag(tag: str | None, line: str) -> None:
    if tag is not None and tag not in _PLAIN and tag != "!":
        raise ValueError(f"got the tag {tag[:80]}, expected plain values{line}")

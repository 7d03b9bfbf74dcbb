"""Stored settings that name others of themselves, as `${seed}`: resolved here, and nothing else is asked. No torch.

What stands in a file may be a stranger's, so no resolver is called: `${oc.env:TOKEN}` would put what the reader's
environment holds into tables and pages. Where a run's paths and loggers came from the environment, its files hold the
variable's name, as that text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hw1.settings.identity import ConfigError

LONGEST = 100_000  # characters and values that references may make of settings, all together
_PLACES = ("output", "sweep", "measured_sweep", "hydra", "logger", "adopted.folder", "dataset.root")
_DEEPEST = 50  # references that lead to each other
_ONE = re.compile(r"(?<!\\)(\\*)\$\{([^{}]*)\}")
_NAMED = re.compile(r"\$\{oc\.env:([A-Za-z_]\w*)\}")
_ABSENT = object()


def env_name(name: str) -> str:
    """How the value of an environment variable stands in a stored file: by the variable's name.

    Example:
        >>> env_name("SCRATCH")
        '${oc.env:SCRATCH}'
    """
    return f"${{oc.env:{name}}}"


def here(text: Any) -> Any:
    """A stored path of the user's own with what her environment holds now; anything else as it is.

    Args:
        text: whose file carries her signature.
    """
    return _NAMED.sub(lambda found: os.environ.get(found[1], found[0]), text) if isinstance(text, str) else text


def is_place(path: str) -> bool:
    """Whether a setting is where something is, or a logger's: its value from the environment is stored by name.

    Example:
        >>> is_place("logger.wandb.project"), is_place("optimizer.lr")
        (True, False)
    """
    return any(path == other or path.startswith(f"{other}.") for other in _PLACES)


def as_literal(node: Any) -> Any:
    """Plain containers in which `${` is no more than text to OmegaConf."""
    if isinstance(node, Mapping):
        return {name: as_literal(value) for name, value in node.items()}
    if isinstance(node, list):
        return [as_literal(value) for value in node]
    return re.sub(r"(?<!\\)(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node


def refuse_resolvers(settings: Mapping[str, Any], source: object) -> None:
    """Refuse stored settings that ask for anything but settings.

    Args:
        settings: nested, as they were stored.
        source: the file, for the message.

    Raises:
        ConfigError: one does; it was not asked.
    """
    if _refers(settings):
        for path, text in _texts(settings):
            if ":" in text and "${" in text:
                _checked(path, text, source)


def resolved(settings: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Stored settings, what refers to others of them resolved.

    Args:
        settings: nested, as they were stored.
        source: the file, for messages.

    Raises:
        ConfigError: a reference asks for anything but a setting, or for one that is not there, leads to itself, or
            makes more of the settings than `LONGEST`.
    """
    made = _Resolver(settings, source).whole()
    assert isinstance(made, dict)
    return made


class _Resolver:
    def __init__(self, settings: Mapping[str, Any], source: object) -> None:
        self._settings, self._source = settings, source
        self._open: list[tuple[str, ...]] = []
        self._size = 0

    def whole(self) -> Any:
        return self._value(self._settings, ())

    def _value(self, node: Any, at: tuple[str, ...]) -> Any:
        self._size += 1
        if isinstance(node, Mapping):
            return {str(name): self._value(value, (*at, str(name))) for name, value in node.items()}
        if isinstance(node, list):
            return [self._value(value, (*at, str(i))) for i, value in enumerate(node)]
        if not isinstance(node, str) or "${" not in node:
            return self._counted(node, at)
        path = ".".join(at)
        if not _checked(path, node, self._source):
            return self._counted(node, at)
        if at in self._open or len(self._open) >= _DEEPEST:
            raise ConfigError(f"{self._source}: {path}: got {_cut(node)}, which leads to itself; expected a value")
        self._open.append(at)
        try:
            alone = _ONE.fullmatch(node)
            if alone and not alone[1]:
                return self._asked(alone[2], at, node)
            text = _ONE.sub(
                lambda found: (
                    found[0].replace("\\$", "$", 1)
                    if len(found[1]) % 2
                    else f"{found[1]}{self._asked(found[2], at, node)}"
                ),
                node,
            )
            return self._counted(text, at)
        finally:
            self._open.pop()

    def _asked(self, reference: str, at: tuple[str, ...], text: str) -> Any:
        """What a reference of a setting at a place names."""
        name = reference.strip()
        ups = len(name) - len(name.lstrip("."))
        start = at[: len(at) - ups] if ups else ()
        keys = re.findall(r"[^.\[\]]+", name)
        node: Any = self._settings
        place: tuple[str, ...] = ()
        for key in (*start, *keys):
            node, place = _child(node, key), (*place, key)
            if isinstance(node, str) and "${" in node and len(place) < len(start) + len(keys):
                node = self._value(node, place)  # a group that is itself another's
        if node is _ABSENT or not keys or ups > len(at):
            raise ConfigError(
                f"{self._source}: {'.'.join(at)}: got {_cut(text)}, which names no setting; expected a value, or one "
                "of the settings in this file"
            )
        return self._value(node, place)

    def _counted(self, value: Any, at: tuple[str, ...]) -> Any:
        self._size += len(value) if isinstance(value, str) else 0
        if self._size > LONGEST:
            raise ConfigError(
                f"{self._source}: {'.'.join(at)}: got references that make more than {LONGEST:,} characters of the "
                "settings; expected values in their place"
            )
        return value


def _child(node: Any, key: str) -> Any:
    if isinstance(node, Mapping):
        return node.get(key, _ABSENT)
    if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
        return node[int(key)]
    return _ABSENT


def _checked(path: str, text: str, source: object) -> bool:
    """Whether a text refers to settings; False where it only names variables, as where a run's results stand.

    Raises:
        ConfigError: it asks for something else.
    """
    left = text
    if is_place(path):
        left = _NAMED.sub("", text)
        if left != text and "${" not in left:
            return False
    inner = [found[2] for found in _ONE.finditer(left) if not len(found[1]) % 2]
    rest = _ONE.sub("", left)
    if any(":" in one for one in inner) or "${" in rest:
        raise ConfigError(
            f"{source}: {path}: got {_cut(text)}, which asks for more than the settings of this file; expected the "
            "value itself: it is not asked"
        )
    return True


def _texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, Mapping | list):
        items = node.items() if isinstance(node, Mapping) else enumerate(node)
        for name, value in items:
            yield from _texts(value, f"{path}.{name}" if path else str(name))


def _refers(settings: Any) -> bool:
    """Whether any text has a `${`: of thousands of runs, hardly one has, and none is then looked at closely."""
    left = [settings]
    while left:
        node = left.pop()
        if isinstance(node, str):
            if "${" in node:
                return True
        elif isinstance(node, dict | Mapping):
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)
    return False


def _cut(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")

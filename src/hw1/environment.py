"""What of a command's settings came from the environment: files hold the variable's name, or refuse it. No torch."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from hw1.settings import ConfigError
from hw1.settings.interpolation import env_name, is_place

_SECRET = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|APIKEY|(^|_)(KEY|KEYS|AUTH)(_|$)", re.IGNORECASE
)
_SHORTEST = 3  # characters of a value that is looked for in texts


def stored_settings(config: Any) -> dict[str, Any]:
    """The settings of a run as its files hold them.

    What its key is made of is resolved; of paths and loggers that came from the environment the variable's name stands
    there.

    Args:
        config: of the run, not resolved; without `hydra`.

    Raises:
        ConfigError: see `refuse_secrets`.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    found = _from_environment(config)
    _refuse(found)
    for path, (names, text) in found.items():
        dotted = ".".join(map(str, path))
        if names and is_place(dotted):
            _put(plain, path, text)
    values = _values({name for names, _ in found.values() for name in names})
    if isinstance(plain.get("sweep"), str):  # the path of the command's record, below `output`
        plain["sweep"] = hidden(plain["sweep"], values)
    return dict(plain)


def refuse_secrets(config: Any) -> None:
    """Refuse a variable that looks like a secret where a run would store its value.

    Args:
        config: of a command, not resolved.

    Raises:
        ConfigError: a setting that a key is made of comes from one.
    """
    _refuse(_from_environment(config))


def hidden(node: Any, values: Mapping[str, str]) -> Any:
    """Plain containers in whose texts the values of variables stand by the variables' names.

    Args:
        node: mappings, lists and values.
        values: {name: value}.
    """
    if isinstance(node, Mapping):
        return {name: hidden(value, values) for name, value in node.items()}
    if isinstance(node, list):
        return [hidden(value, values) for value in node]
    if isinstance(node, str):
        for name, value in values.items():
            node = node.replace(value, env_name(name))
    return node


def asked_for(config: Any) -> dict[str, str]:
    """{name: value} of the variables that settings ask for, the longest value first.

    Args:
        config: not resolved.
    """
    return _values({name for names, _ in _from_environment(config).values() for name in names})


def _values(names: set[str]) -> dict[str, str]:
    values = {name: os.environ[name] for name in names if len(os.environ.get(name, "")) >= _SHORTEST}
    return dict(sorted(values.items(), key=lambda item: -len(item[1])))


def _refuse(found: Mapping[tuple[Any, ...], tuple[list[str], str]]) -> None:
    for path, (names, _) in found.items():
        dotted = ".".join(map(str, path))
        for name in names:
            if not is_place(dotted) and _SECRET.search(name):
                raise ConfigError(
                    f"{dotted}: got {env_name(name)}, whose name looks like a secret; expected a value, or a variable "
                    "of another name: a run's files hold the values of all settings that can change its result"
                )


def _from_environment(config: Any) -> dict[tuple[Any, ...], tuple[list[str], str]]:
    """{where: (names of variables, text with those names)} of the settings that came from the environment."""
    raw: Any = OmegaConf.to_container(config, resolve=False)
    found = {}
    with _names_for_values() as asked:
        for path in _interpolated(raw):
            asked.clear()
            try:
                text = str(_resolved(config, path))
            except Exception:  # a resolver that needs the value, as of a number: the setting stands as it was written
                text = str(_raw(raw, path))
            names = list(dict.fromkeys(asked.values()))
            for token, name in asked.items():
                text = text.replace(token, env_name(name))
            if names:
                found[path] = names, text
    return found


@contextmanager
def _names_for_values() -> Iterator[dict[str, str]]:
    """Inside, `oc.env` gives a word that stands for the variable; yields {word: name} of those that were asked for."""
    asked: dict[str, str] = {}
    salt = secrets.token_hex(8)

    def word(name: str, default: Any = None) -> str:
        made = f"env{salt}{name.encode().hex()}end"
        asked[made] = name
        return made

    OmegaConf.register_new_resolver("oc.env", word, replace=True)
    try:
        yield asked
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _resolved(config: Any, path: tuple[Any, ...]) -> Any:
    node = config
    for name in path:
        node = node[name]
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _raw(node: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        node = node[name]
    return node


def _put(node: Any, path: tuple[Any, ...], value: Any) -> None:
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value


def _interpolated(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, Mapping | list):
        for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _interpolated(value, (*path, name))
    elif isinstance(node, str) and "${" in node:
        yield path

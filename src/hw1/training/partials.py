"""A node that names a function whose arguments come later: the function with its settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from hw1.settings import ConfigError
from hw1.settings.construct import call, is_node, target_of


def partial_of(node: Mapping[str, Any], key: str, leading: int, **given: Any) -> Callable[..., Any]:
    """The function that a node names, with the node's settings as keywords.

    Args:
        node: {"_target_": "package.function", setting: value, ...}; nested nodes are built.
        key: where the node stands in the config, for messages.
        leading: number of arguments that it gets when it is called.
        **given: values for keywords that the node does not set.

    Raises:
        ConfigError: it takes fewer arguments, has no such setting, or needs another one.
    """
    function, name = target_of(node, key), node["_target_"]
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < leading and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise ConfigError(f"{key}: got {name}{inspect.signature(function)}, expected {leading} arguments or more")
    settings = {p.name: p for p in parameters if p.name not in positional[:leading]}
    values = {
        setting: call(value, f"{key}.{setting}") if is_node(value) else value
        for setting, value in node.items()
        if setting != "_target_"
    }
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if unknown := [setting for setting in values if setting not in settings and not open_ended]:
        known = ", ".join(name for name, p in settings.items() if name not in given) or "none"
        raise ConfigError(f"{key}.{unknown[0]}: no such setting of {name}; expected one of: {known}")
    values |= {setting: value for setting, value in given.items() if setting not in values}
    for setting, parameter in settings.items():
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variable and setting not in values:
            raise ConfigError(f"{key}.{setting}: missing; {name} needs it")
    return functools.partial(function, **values) if values else function


def wanted(
    target: Callable[..., Any], node: Mapping[str, Any], known: Mapping[str, Callable[[], Any]]
) -> dict[str, Any]:
    """What hw1 knows and a callable asks for: arguments without a default, or with None, that the node does not set.

    Args:
        target: the callable.
        node: its settings.
        known: name of an argument -> () -> its value.
    """
    parameters = inspect.signature(target).parameters
    return {
        name: value()
        for name, value in known.items()
        if name in parameters and name not in node and parameters[name].default in (inspect.Parameter.empty, None)
    }

"""Config nodes -> objects. Every value is checked here once, against the signature of what it goes to. No torch."""

from __future__ import annotations

import functools
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from hw1.settings.identity import ConfigError

_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def call(node: Mapping[str, Any], key: str, /, **given: Any) -> Any:
    """Call `_target_` of a config node with its other values and `given`; nested nodes with a `_target_` first.

    A value that holds nothing but nodes, by name, becomes a dict of objects.

    Args:
        node: {"_target_": "package.callable", setting: value, ...}.
        key: where the node stands in the config, for messages.
        **given: arguments that are no settings.

    Raises:
        ConfigError: an unknown setting, a value of the wrong type, or one that the callable refuses.
    """
    target = target_of(node, key)
    values = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
    for name, value in values.items():
        if is_node(value):
            values[name] = call(value, f"{key}.{name}")
        elif isinstance(value, Mapping) and value and all(is_node(node) for node in value.values()):
            values[name] = {inner: call(node, f"{key}.{name}.{inner}") for inner, node in value.items()}
    signature = inspect.signature(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    hints = _type_hints(target)
    for name, value in values.items():
        if name in given:
            raise ConfigError(f"{key}.{name}: got {value!r}, but hw1 sets it itself; remove it")
        if name not in signature.parameters and not open_ended:
            known = ", ".join(p for p in signature.parameters if p not in given and p != "self")
            raise ConfigError(f"{key}.{name}: no such setting of {node['_target_']}; expected one of: {known}")
        if name in hints:
            check_setting(f"{key}.{name}", value, hints[name])
    required = [p for p in signature.parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    for parameter in required:
        missing = parameter.name not in values and parameter.name not in given
        if missing and parameter.kind is not parameter.VAR_POSITIONAL:
            raise ConfigError(f"{key}.{parameter.name}: missing; {node['_target_']} needs it")
    if node.get("_partial_"):
        return functools.partial(target, **values, **given)
    with naming(key, values):
        return target(**values, **given)


def is_node(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value of the settings is a node, something to construct."""
    return isinstance(value, Mapping) and "_target_" in value


class naming:
    """Errors of a constructor, which name an argument, become errors that name the config key."""

    def __init__(self, key: str, values: Mapping[str, Any] | None = None) -> None:
        self.key, self.values = key, values or {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None or isinstance(error, ConfigError):
            return
        refused = isinstance(error, ValueError | TypeError | OSError)
        if not refused and type(error).__name__ != "MisconfigurationException":  # Lightning's
            return
        message = " ".join(str(error).split())
        argument = message.partition(":")[0]
        if argument.isidentifier() or argument.partition(".")[0] in self.values:
            raise ConfigError(f"{self.key}.{message}") from error
        got = ", ".join(f"{name}={value}" for name, value in self.values.items())
        raise ConfigError(f"{self.key}: {message}" + (f" (got {got})" if got else "")) from error


def target_of(node: Mapping[str, Any], key: str) -> Callable[..., Any]:
    """The callable that a node names.

    Raises:
        ConfigError: the node names none, or it cannot be imported.
    """
    path = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(path, str):
        raise ConfigError(f"{key}: got {node!r}, expected a group option with a _target_")
    try:
        target: object = pkgutil.resolve_name(path)
    except Exception as error:  # whatever importing the module raised
        reason = " ".join(str(error).split())
        raise ConfigError(f"{key}._target_: got {path}, which cannot be imported: {reason}") from error
    if not callable(target):
        raise ConfigError(
            f"{key}._target_: got {path}, which is a {type(target).__name__}; expected a class or function"
        )
    return target


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except NameError:  # annotations under `if TYPE_CHECKING` of some library: nothing to check against
        return {}


def check_setting(key: str, value: Any, hint: Any) -> None:
    """Refuse a value of another type than its annotation.

    Raises:
        ConfigError: the key, what was got and what is expected.
    """
    from typeguard import CollectionCheckStrategy, TypeCheckError, check_type  # the Task, say, checks no settings

    try:
        if _stray_bool(value, hint):
            raise TypeCheckError("a truth value where a number is expected")
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        raise ConfigError(f"{key}: got {value!r}, expected {_describe(hint)}") from None


def _stray_bool(value: Any, hint: Any) -> bool:
    """Whether `value` holds a bool where `hint` has a number: to Python True is an integer, to a user it is a slip."""
    inside = typing.get_args(hint)
    if isinstance(value, bool):
        return hint in (int, float) or (bool not in inside and bool({int, float} & set(inside)))
    if isinstance(value, list | tuple) and typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return any(_stray_bool(item, part) for item in value for part in inside[:1])
    return any(_stray_bool(value, part) for part in inside) if isinstance(value, list | tuple) else False


def _describe(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        words = [_describe(part) for part in arguments if getattr(part, "__name__", "") != "Tensor"]
        return " or ".join(dict.fromkeys(words))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if typing.get_origin(hint) in (list, tuple, Sequence):
        return "a list"
    return getattr(hint, "__name__", str(hint))

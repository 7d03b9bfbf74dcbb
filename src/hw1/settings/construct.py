"""Config nodes -> objects. Every value is checked here once, against the signature of what it goes to. No torch."""

from __future__ import annotations

import difflib
import enum
import functools
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from hw1.settings.identity import ConfigError

_OWN = ("_target_", "_partial_", "_args_")  # of a node: no settings of what it names
_FEW = 8  # settings, among which a slip is seen at once
_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def call(node: Mapping[str, Any], key: str, /, **given: Any) -> Any:
    """Call `_target_` of a config node with its other values and `given`; nodes inside these, at any depth, first.

    `_args_` is a list of arguments without names, as nn.Sequential's; with `_partial_: true` the callable is made ready
    and not called.

    Args:
        node: {"_target_": "package.callable", setting: value, ...}.
        key: where the node stands in the config, for messages.
        **given: arguments that are no settings.

    Raises:
        ConfigError: an unknown setting, a value of the wrong type, or one that the callable refuses.
    """
    target = target_of(node, key)
    values = {name: built(value, f"{key}.{name}") for name, value in node.items() if name not in _OWN}
    unnamed = _unnamed(node, key)
    parameters = parameters_of(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _type_hints(target)
    unknown = ""
    for name, value in values.items():
        if name in given:
            raise ConfigError(f"{key}.{name}: got {value!r}, but hw1 sets it itself; remove it")
        if name not in parameters and not open_ended:
            known = [p for p in parameters if p not in given and p != "self"]
            close = difflib.get_close_matches(name, known, 1) if len(known) > _FEW else []
            those = f"one of: {', '.join(known)}" if known else "none"
            unknown = f"{key}.{name}: no such setting of {node['_target_']}; expected {those}"
            unknown += f" (did you mean {close[0]}?)" if close else ""
            if not _is_decorated(target):
                raise ConfigError(unknown)
        # A partial stands for what it will make, and libraries take an enumeration's members by name.
        if name in hints and not isinstance(value, functools.partial) and not _is_member(value, hints[name]):
            check_setting(f"{key}.{name}", value, hints[name])
    if node.get("_partial_"):
        return functools.partial(target, *unnamed, **values, **given)
    named = [p for p in parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for parameter in named[len(unnamed) :]:
        if parameter.default is parameter.empty and parameter.name not in values and parameter.name not in given:
            raise ConfigError(f"{key}.{parameter.name}: missing; {node['_target_']} needs it")
    try:
        with naming(key, values):
            return target(*unnamed, **values, **given)
    except ConfigError as error:
        if unknown:
            raise ConfigError(unknown) from error
        raise


def built(value: Any, key: str) -> Any:
    """A value of the settings with every node in it, in lists and mappings too, in place of what it constructs."""
    if is_node(value):
        return call(value, key)
    if isinstance(value, Mapping):
        return {name: built(inner, f"{key}.{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [built(inner, f"{key}.{number}") for number, inner in enumerate(value)]
    return value


def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters that a callable's signature names; of one that tells none, as some written in C, any by name."""
    try:
        return inspect.signature(target).parameters
    except ValueError:
        return {"settings": inspect.Parameter("settings", inspect.Parameter.VAR_KEYWORD)}


def _is_decorated(target: Callable[..., Any]) -> bool:
    """Whether a decorator may take more than the callable itself, as HuggingFace's of its configs: calling it tells."""
    return hasattr(target.__init__ if inspect.isclass(target) else target, "__wrapped__")


def takes(target: Callable[..., Any], name: str) -> bool:
    """Whether a callable's signature names an argument, which `**kwargs` does not.

    Example:
        >>> takes(lambda hidden, **others: None, "hidden"), takes(lambda hidden, **others: None, "others")
        (True, False)
    """
    parameter = parameters_of(target).get(name)
    return parameter is not None and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _unnamed(node: Mapping[str, Any], key: str) -> list[Any]:
    """The arguments without names."""
    arguments = node.get("_args_", [])
    if not isinstance(arguments, list | tuple):
        raise ConfigError(f"{key}._args_: got {arguments!r}, expected a list of arguments")
    return [built(value, f"{key}._args_.{number}") for number, value in enumerate(arguments)]


def is_node(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value of the settings is a node, something to construct."""
    return isinstance(value, Mapping) and "_target_" in value


# What a class of the user's own refuses with; of other kinds a bug is one, which keeps its traceback.
_OF_CODE = (RuntimeError, NotImplementedError)


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
        message = " ".join(str(error).split())
        if type(error) in _OF_CODE:  # itself, not a kind of it: what ran out of memory, say, is no slip
            raise ConfigError(
                f"{self.key}: got {type(error).__name__}: {message}; expected code that makes it of "
                + (", ".join(f"{name}={value}" for name, value in self.values.items()) or "these settings")
            ) from error
        if not refused and type(error).__name__ != "MisconfigurationException":  # Lightning's
            return
        if (unknown := re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", message)) and (
            unknown[2] in self.values  # which **kwargs handed on
        ):
            close = difflib.get_close_matches(unknown[2], _parameters_inside(error, unknown[1]), 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            remedy = f"no such setting of {unknown[1]}; expected one that it takes{hint}"
            raise ConfigError(f"{self.key}.{unknown[2]}: {remedy}") from error
        argument = message.partition(":")[0]
        if argument.isidentifier() or argument.partition(".")[0] in self.values:
            raise ConfigError(f"{self.key}.{message}") from error
        got = ", ".join(f"{name}={value}" for name, value in self.values.items())
        raise ConfigError(f"{self.key}: {message}" + (f" (got {got})" if got else "")) from error


def _parameters_inside(error: BaseException, name: str) -> list[str]:
    """The parameters of what a call inside of a constructor named wrongly, as far as the calling frame knows it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    known = {**trace.tb_frame.f_globals, **trace.tb_frame.f_locals} if trace else {}
    called = next((one for one in known.values() if callable(one) and getattr(one, "__name__", "") == name), None)
    return [] if called is None else [one for one in parameters_of(called) if one != "self"]


def target_of(node: Mapping[str, Any], key: str) -> Callable[..., Any]:
    """The callable that a node names.

    Raises:
        ConfigError: the node names none, or it cannot be imported.
    """
    path = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(path, str):
        wanted = (
            f"'{key}={{_target_: {node}}}'"
            if isinstance(node, str) and "." in node
            else "a group option with a _target_"
        )
        raise ConfigError(f"{key}: got {node!r}, expected {wanted}")
    try:
        target: object = pkgutil.resolve_name(path)
        if inspect.ismodule(target) and "." in path:  # a function of its module's name: torchvision's googlenet
            above, _, name = path.rpartition(".")
            target = getattr(pkgutil.resolve_name(above), name)
    except Exception as error:  # whatever importing the module raised
        reason = " ".join(str(error).split())
        wanted = "" if "pip install" in reason else "; expected module.Class, installed or in the current folder"
        raise ConfigError(f"{key}._target_: got {path}, which cannot be imported: {reason}{wanted}") from error
    if not callable(target):
        raise ConfigError(
            f"{key}._target_: got {path}, which is of type {type(target).__name__}; expected a class or function"
        )
    return target


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # annotations of some library that mean nothing at run time
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


def _is_member(value: Any, hint: Any) -> bool:
    """Whether a text names a member of an enumeration, one of what is annotated."""
    classes = [part for part in (hint, *typing.get_args(hint)) if isinstance(part, enum.EnumMeta)]
    return isinstance(value, str) and any(value.rpartition(".")[2] in part.__members__ for part in classes)


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

"""A stranger's settings, judged node by node before anything is called. No torch until a node is judged."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hw1.trust.error import TrustError
from hw1.trust.names import found, full_name, home_of, lies_in, parts_of
from hw1.trust.places import NEVER, PLACES, Place

_NODES = "_target_"
_WEIGHTS = ("weights", "pretrained")  # what arguments of torchvision's builders that load some begin with
_MODELS = "torchvision.models"
_NOBODYS = ("hw1", "torch", "torchvision", "torchmetrics", "lightning")


def judge_settings(settings: Mapping[str, Any], trusted: Sequence[str] = (), whose: str = "") -> None:
    """Refuse a stranger's settings of a run that name anything but what their places need; nothing is called.

    Args:
        settings: all of them, as plain containers.
        trusted: modules of the user's that are hers to trust.
        whose: why they are a stranger's, and the remedy, see `hw1.trust.owner`.

    Raises:
        TrustError: one line, by the key.
    """
    for key, value in settings.items():
        if key != "hydra":  # where conf/ says how a command is launched: never built from a run
            place = PLACES.get(str(key))
            _judge(str(key), value, [place] if place else [], trusted, whose)


def judge_measures(nodes: Mapping[str, Any], trusted: Sequence[str] = (), whose: str = "") -> None:
    """As `judge_settings`, of measures by name.

    Raises:
        TrustError: one is none of hw1's.
    """
    _judge("measures", nodes, [PLACES["measures"]], trusted, whose)


def judge_study(node: Any, trusted: Sequence[str] = (), whose: str = "") -> None:
    """As `judge_settings`, of the study in a sweep's record.

    Raises:
        TrustError: it is none of hw1's.
    """
    _judge("study", node, [PLACES["study"]], trusted, whose)


def targets(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """(key, what is named) of every node at any depth of plain containers."""
    if isinstance(value, Mapping):
        if _NODES in value:
            yield key, value[_NODES]
        value = {f"{key}.{name}": inner for name, inner in value.items()}.items()
    elif isinstance(value, list | tuple):
        value = [(f"{key}[{number}]", inner) for number, inner in enumerate(value)]
    else:
        return
    for name, inner in value:
        yield from targets(inner, name)


def _judge(key: str, value: Any, places: Sequence[Place], trusted: Sequence[str], whose: str) -> None:
    """A value of the settings, and all inside it, outermost first."""
    if isinstance(value, Mapping):
        if _NODES in value:
            place = _judge_node(key, value, places, trusted, whose)
            if place is not None and place.inside is not None:
                places = [PLACES[inner] for inner in place.inside]
        for name, inner in value.items():
            _judge(f"{key}.{name}", inner, places, trusted, whose)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _judge(f"{key}[{number}]", inner, places, trusted, whose)


def _judge_node(
    key: str, node: Mapping[str, Any], places: Sequence[Place], trusted: Sequence[str], whose: str
) -> Place | None:
    """The place that a node is of; None of what the user trusts."""
    name = node[_NODES]
    for place in places:
        if _is_allowed(name, place):
            return place
        if place.builders and (builder := _builder(name)):
            _refuse_weights(key, node, builder, whose)
            return place
    if trusted and lies_in(name, trusted):
        _judge_trusted(key, str(name), trusted, whose)
        return None
    expected = " or ".join(place.expected for place in places) or "nothing that is called"
    raise TrustError(f"{key}.{_NODES}: got {name!r}, expected {expected}: {_remedy(whose, name)}")


def _is_allowed(name: Any, place: Place) -> bool:
    """Whether a name is of a constructor of hw1's, or resolves to a class of the kind of a place."""
    if name in place.constructors:
        return True
    if lies_in(name, NEVER) or not (lies_in(name, place.packages) or ".".join(parts_of(name)[:-1]) in place.doors):
        return False
    made = found(name, [*place.packages, *place.doors])
    if not inspect.isclass(made) or lies_in(full_name(made), NEVER) or not lies_in(home_of(made), place.packages):
        return False
    return issubclass(made, _kind(place.kind)) if place.kind else all(hasattr(made, name) for name in place.methods)


def _kind(name: str) -> type:
    module, _, own = name.rpartition(".")
    kind: type = getattr(importlib.import_module(module), own)
    return kind


def _builder(name: Any) -> Any:
    """The function that torchvision registers for one of its models, where a name resolves to it; else None."""
    if not lies_in(name, [_MODELS]):
        return None
    try:
        from torchvision.models import get_model_builder, list_models
    except ImportError:
        return None
    made = found(str(name), [_MODELS])
    own = getattr(made, "__name__", "")
    registered = {get_model_builder(known) for known in list_models() if known.rpartition("/")[2] == own.lower()}
    return made if made is not None and made in registered else None


def _refuse_weights(key: str, node: Mapping[str, Any], builder: Any, whose: str) -> None:
    """Refuse a builder that would download weights: by a setting, by a default, or by arguments without names."""
    defaults = {name: one.default for name, one in inspect.signature(builder).parameters.items()}
    given = {**defaults, **node}
    for name, value in given.items():
        if name.startswith(_WEIGHTS) and value is not None and value is not False:
            if value is inspect.Parameter.empty or name not in node:
                value = "its default, which downloads some"
            raise TrustError(f"{key}.{name}: got {value!s}, expected null: {_remedy(whose, node[_NODES])}")
    if node.get("_args_"):
        raise TrustError(f"{key}._args_: got arguments without names, expected none: {_remedy(whose, node[_NODES])}")


def _judge_trusted(key: str, name: str, trusted: Sequence[str], whose: str) -> None:
    """What a module that the user trusts has made itself; what it has only imported is another module's."""
    made = found(name, trusted)
    if made is None:
        raise TrustError(
            f"{key}.{_NODES}: got {name!r}, expected a class of {', '.join(trusted)} that is found here: name the "
            "folder of its module in PYTHONPATH, or give the command where it lies"
        )
    if not lies_in(home_of(made), trusted):
        raise TrustError(
            f"{key}.{_NODES}: got {name!r}, which is {home_of(made) or 'no module'}'s, expected what "
            f"{', '.join(trusted)} itself defines: {_remedy(whose, home_of(made))}"
        )


def _remedy(whose: str, name: Any) -> str:
    """What to do about it; of what is nobody's own module, that it is asked for is no reason to trust it."""
    top = (parts_of(name) or ("",))[0]
    own = top and top not in _NOBODYS and top not in sys.stdlib_module_names
    words = [whose, f"trust=[{top}] if you trust that module" if own else ""]
    return ", or ".join(word for word in words if word) or "it is not run for a stranger"

"""The optimizer of a run: parameters with names, groups of them with settings of their own, `fused` where it works."""

from __future__ import annotations

import fnmatch
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from hw1.models import Members
from hw1.settings import ConfigError, RunSettings
from hw1.settings.construct import call, target_of

log = logging.getLogger(__name__)

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

OWN = ("no_decay", "groups")  # of the node `optimizer`: hw1's, not the class's
WORDS = ("norm", "bias", "embedding")
_NAMED = ("torch.optim", "hw1.optim")  # whose optimizers take (name, parameter); others may sort parameters, say
_LISTED = 6

_said: set[str] = set()


@dataclass(frozen=True)
class Slot:
    """A parameter and what settings find it by.

    Attributes:
        name: in the network.
        member_name: in one member, by which patterns find it.
        words: which of `WORDS` it is.
        parameter: itself.
    """

    name: str
    member_name: str
    words: frozenset[str]
    parameter: nn.Parameter

    def found_by(self, pattern: str) -> bool:
        """Whether it is of that word, or its name fits the pattern."""
        return pattern in self.words if pattern in WORDS else fnmatch.fnmatchcase(self.member_name, pattern)


def slots_of(net: nn.Module) -> list[Slot]:
    """The parameters of a network, in its order.

    A norm is what a layer holds whose class is called so (BatchNorm2d, LlamaRMSNorm); a bias, what is called so itself
    (`bias`, `in_proj_bias`, `bias_ih_l0`); an embedding, what a layer called so holds.
    """
    one = net.member(0) if isinstance(net, Members) else net
    words = {name: frozenset(_words(one, name)) for name, _ in one.named_parameters()}
    named = list(net.named_parameters())
    names = net.member_names() if isinstance(net, Members) else list(words)
    return [
        Slot(name, own, words[own], parameter)
        for (name, parameter), own in zip(named, names * (len(named) // max(1, len(names))), strict=True)
    ]


def _words(net: nn.Module, name: str) -> Iterator[str]:
    path, _, last = name.rpartition(".")
    layer = type(net.get_submodule(path)).__name__.lower()
    if "bias" in last:
        yield "bias"
    if "norm" in layer:
        yield "norm"
    if "embedding" in layer:
        yield "embedding"


def optimizer_of(settings: RunSettings, net: nn.Module) -> Optimizer:
    """Parameters of `net` -> the optimizer of a run's settings.

    `optimizer.no_decay` lists what gets no weight decay, `optimizer.groups` settings of what they `match` (the first
    that does): words (norm, bias, embedding) or patterns of names. A `fused` that does not work here is turned off.
    """
    slots = {id(slot.parameter): slot for slot in slots_of(net)}

    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return _made(settings, [slots[id(parameter)] for parameter in parameters])

    return make


def trial_optimizer(settings: RunSettings, net: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of parameters of one element each, with a network's names and dimensions, which may be on meta.

    Raises:
        ConfigError: a setting is refused.
    """
    return _made(
        settings,
        [
            replace(slot, parameter=nn.Parameter(torch.zeros([1] * slot.parameter.ndim), slot.parameter.requires_grad))
            for slot in slots_of(net)
        ],
    )


def _made(settings: RunSettings, slots: Sequence[Slot]) -> torch.optim.Optimizer:
    node = {key: value for key, value in settings.optimizer.items() if key not in OWN}
    target = target_of(node, "optimizer")
    named = target.__module__.startswith(_NAMED) if hasattr(target, "__module__") else False
    takes = inspect.signature(target).parameters
    given = "params" if "params" in takes or not takes else next(iter(takes))
    groups = _groups(settings, target, slots)
    parameters: list[Any] = []
    for own, members in groups:
        found = [(slot.name, slot.parameter) if named else slot.parameter for slot in members]
        parameters += [{"params": found, **own}] if len(groups) > 1 or own else found
    if "fused" in node and node["fused"] and (why := _not_fused(settings, target, slots)):
        node = {key: value for key, value in node.items() if key != "fused"}
        if "fused" in takes:
            node["fused"] = False
        _say(f"optimizer.fused: true is taken as false: {why}")
    elif "fused" in node and "fused" not in takes and not node["fused"]:
        del node["fused"]  # off is what it is
    made: torch.optim.Optimizer = call(node, "optimizer", **{given: parameters})
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer._target_: got {node['_target_']}, which makes a {type(made).__name__}; expected a "
            "torch.optim.Optimizer"
        )
    return made


# Parameter groups


def _groups(
    settings: RunSettings, target: Callable[..., Any], slots: Sequence[Slot]
) -> list[tuple[dict[str, Any], list[Slot]]]:
    """[(settings of its own, parameters)], those without any first."""
    no_decay, groups = settings.optimizer.get("no_decay") or [], settings.optimizer.get("groups") or []
    if not isinstance(no_decay, list | tuple) or not all(isinstance(word, str) for word in no_decay):
        raise ConfigError(f"optimizer.no_decay: got {no_decay!r}, expected a list as [norm,bias,'*.head.*']")
    if not isinstance(groups, list | tuple):
        raise ConfigError(f"optimizer.groups: got {groups!r}, expected a list as [{{match: '*bias*', lr: 1e-4}}]")
    known = [name for name in inspect.signature(target).parameters if name not in ("params", "fused", "foreach")]
    if no_decay and "weight_decay" not in known:
        raise ConfigError(
            f"optimizer.no_decay: got {no_decay} with {settings.optimizer['_target_']}, which has no weight_decay; "
            "expected null"
        )
    patterns = [(f"optimizer.no_decay.{number}", word) for number, word in enumerate(no_decay)]
    own: list[tuple[list[str], dict[str, Any]]] = []
    for number, group in enumerate(groups):
        key = f"optimizer.groups.{number}"
        match, settings_of = _group(key, group, known, settings)
        own.append((match, settings_of))
        patterns += [(f"{key}.match", pattern) for pattern in match]
    for key, pattern in patterns:
        if pattern not in WORDS and not any(slot.found_by(pattern) for slot in slots):
            names = list(dict.fromkeys(slot.member_name for slot in slots))
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            raise ConfigError(
                f"{key}: got {pattern}, which no parameter is called; expected {', '.join(WORDS)} or a pattern of "
                f"{', '.join(names[:_LISTED])}{more}"
            )
    found: list[tuple[dict[str, Any], list[Slot]]] = [({}, [])]
    for slot in slots:
        values = next((dict(values) for match, values in own if any(map(slot.found_by, match))), {})
        if any(map(slot.found_by, no_decay)):
            values["weight_decay"] = 0.0
        at = next((members for same, members in found if same == values), None)
        if at is None:
            at = []
            found.append((values, at))
        at.append(slot)
    return [(values, members) for values, members in found if members]


def _group(key: str, group: Any, known: Sequence[str], settings: RunSettings) -> tuple[list[str], dict[str, Any]]:
    """What a group matches, and its settings, which the optimizer takes."""
    if not isinstance(group, Mapping) or "match" not in group or len(group) < 2:
        raise ConfigError(f"{key}: got {group!r}, expected match and settings, as {{match: '*bias*', weight_decay: 0}}")
    match = [group["match"]] if isinstance(group["match"], str) else group["match"]
    if not isinstance(match, list | tuple) or not match or not all(isinstance(pattern, str) for pattern in match):
        raise ConfigError(f"{key}.match: got {group['match']!r}, expected a word or pattern, or a list of them")
    values = {name: value for name, value in group.items() if name != "match"}
    for name in values:
        if name not in known:
            raise ConfigError(
                f"{key}.{name}: no such setting of {settings.optimizer['_target_']}; expected some of: "
                f"{', '.join(known)}"
            )
    # The class looks at the values of its arguments, not at those of groups.
    node = {name: value for name, value in settings.optimizer.items() if name not in (*OWN, "fused")}
    call({**node, **values}, key, params=[nn.Parameter(torch.zeros(1, 1))])
    return list(match), values


# One kernel for all parameters


def _not_fused(settings: RunSettings, target: Callable[..., Any], slots: Sequence[Slot]) -> str:
    """Why `fused` does not work here; "" where it does."""
    name = getattr(target, "__name__", str(target))
    if "fused" not in inspect.signature(target).parameters:
        return f"{name} has no such setting"
    if settings.trainer.get("gradient_clip_val") and str(settings.trainer.get("precision")).endswith("-mixed"):
        return "with trainer.precision=" + str(settings.trainer["precision"]) + " gradients are clipped between steps"
    odd = next((slot for slot in slots if not slot.parameter.is_floating_point()), None)
    if odd is not None:
        return f"{odd.name} is {odd.parameter.dtype}"
    from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

    devices = {slot.parameter.device.type for slot in slots}
    if lacking := devices - set(_get_fused_kernels_supported_devices()):
        return f"not on {', '.join(sorted(lacking))}"
    return ""


def _say(line: str) -> None:
    if line not in _said:
        _said.add(line)
        log.info(line)

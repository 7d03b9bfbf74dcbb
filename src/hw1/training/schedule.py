"""The learning-rate schedule of a run: per step or per epoch, its length filled in from the trainer's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau, SequentialLR

from hw1.settings import ConfigError, RunSettings
from hw1.settings.construct import call, is_node, target_of
from hw1.training.partials import partial_of

OWN = ("interval", "frequency", "monitor")  # of the node `scheduler`: hw1's, as Lightning calls them
INTERVALS = ("epoch", "step")
_LENGTHS = ("total_steps", "T_max", "total_iters")


@dataclass(frozen=True)
class Length:
    """How long a run trains.

    Attributes:
        steps: () -> optimizer steps.
        epochs: () -> epochs; an unfinished one counts.
    """

    steps: Callable[[], int]
    epochs: Callable[[], int]


@dataclass(frozen=True)
class Schedule:
    """A scheduler and when it steps.

    Attributes:
        scheduler: of torch.
        interval: "epoch" or "step".
        frequency: of these between two steps.
        monitor: the metric that a ReduceLROnPlateau reads at the end of an epoch; None for any other.
    """

    scheduler: LRScheduler
    interval: str = "epoch"
    frequency: int = 1
    monitor: str | None = None


Scheduler = Callable[[torch.optim.Optimizer, Length], Schedule]


def scheduler_of(settings: RunSettings) -> Scheduler | None:
    """(optimizer, length of the training) -> its schedule; None for none.

    `interval` and `frequency` say when it steps (every epoch, unless said), `monitor` what a plateau is one of. Nodes
    in lists and mappings are schedulers of their own, functions (LambdaLR's) are taken as they are. A length that is
    null, or that a class needs and the setting has not got, is that of the training; inside a SequentialLR it is that
    of the part. Milestones below 1 are shares of it.
    """
    if settings.scheduler is None:
        return None
    return functools.partial(_schedule, settings.scheduler)


def _schedule(node: Mapping[str, Any], optimizer: torch.optim.Optimizer, length: Length) -> Schedule:
    interval, frequency = node.get("interval", INTERVALS[0]), node.get("frequency", 1)
    if interval not in INTERVALS:
        raise ConfigError(f"scheduler.interval: got {interval!r}, expected {' or '.join(INTERVALS)}")
    if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
        raise ConfigError(f"scheduler.frequency: got {frequency!r}, expected a positive integer")

    def total() -> int:
        return -(-(length.steps() if interval == "step" else length.epochs()) // frequency)

    own = {key: value for key, value in node.items() if key not in OWN}
    target = target_of(node, "scheduler")
    if inspect.isclass(target) and not issubclass(target, LRScheduler):
        raise ConfigError(
            f"scheduler._target_: got {node['_target_']}, expected a torch.optim.lr_scheduler, or a function of the "
            "optimizer that makes one"
        )
    made = _made(own, "scheduler", optimizer, total)
    if not isinstance(made, LRScheduler):
        raise ConfigError(
            f"scheduler._target_: got {node['_target_']}, which makes a {type(made).__name__}, expected a "
            "torch.optim.lr_scheduler: a function of the optimizer names it so"
        )
    plateau = isinstance(made, ReduceLROnPlateau)
    if plateau and interval != "epoch":
        raise ConfigError("scheduler.interval: got step, expected epoch: a plateau is one of evaluations of whole sets")
    if plateau != ("monitor" in node):
        raise ConfigError(
            "scheduler.monitor: missing; ReduceLROnPlateau needs it, as scheduler.monitor=train/loss"
            if plateau
            else f"scheduler.monitor: got {node['monitor']}, expected none: {node['_target_']} reads no metric"
        )
    if isinstance(made, OneCycleLR) and made.total_steps < total():
        raise ConfigError(
            f"scheduler.total_steps: got {made.total_steps}, expected at least {total()}, the {interval}s of the "
            "training, or null"
        )
    return Schedule(made, interval, frequency, node.get("monitor"))


def _made(node: Mapping[str, Any], key: str, optimizer: torch.optim.Optimizer, total: Callable[[], int]) -> Any:
    """The scheduler of a node; of a function that takes no optimizer, the function with its settings."""
    target = target_of(node, key)
    parameters = inspect.signature(target).parameters
    if not inspect.isclass(target) and "optimizer" not in parameters:
        return partial_of(node, key, 1)
    values = {name: value for name, value in node.items() if name != "_target_"}
    spans: list[Callable[[], int]] = []
    if target is SequentialLR:
        values["milestones"] = _milestones(values.get("milestones"), f"{key}.milestones", total)
        spans = _spans(values["milestones"], total)
    for name, value in values.items():
        if is_node(value):
            values[name] = _made(value, f"{key}.{name}", optimizer, total)
        elif isinstance(value, list | tuple) and any(map(is_node, value)):
            own = spans if len(spans) == len(value) else [total] * len(value)
            values[name] = [
                _made(inner, f"{key}.{name}.{number}", optimizer, own[number]) if is_node(inner) else inner
                for number, inner in enumerate(value)
            ]
    for name in _LENGTHS:
        if name not in parameters:
            continue
        needed = parameters[name].default is inspect.Parameter.empty and name not in values
        # OneCycleLR has two ways to say it, and null for neither.
        silent = target is OneCycleLR and values.get("epochs") is None and values.get(name) is None
        if needed or silent or (name in values and values[name] is None and target is not OneCycleLR):
            values[name] = max(1, total())
    for name in ("step_size", "T_max"):  # which torch divides by, in the first epoch
        if isinstance(value := values.get(name), int | float) and value <= 0:
            raise ConfigError(f"{key}.{name}: got {value}, expected a positive number of steps of the scheduler")
    given = {"optimizer": optimizer} if "optimizer" in parameters else {}
    return call({"_target_": node["_target_"], **values}, key, **given)


def _milestones(value: Any, key: str, total: Callable[[], int]) -> list[int]:
    """Of a SequentialLR, in steps."""
    if not isinstance(value, list | tuple) or not all(isinstance(one, int | float) and one > 0 for one in value):
        raise ConfigError(f"{key}: got {value!r}, expected a list of numbers, below 1 as shares of the training")
    return [round(one * total()) if one < 1 else int(one) for one in value]


def _spans(milestones: Sequence[int], total: Callable[[], int]) -> list[Callable[[], int]]:
    starts = [0, *milestones]
    inner = [functools.partial(int, end - start) for start, end in zip(starts, milestones, strict=False)]
    return [*inner, lambda: total() - starts[-1]]


def check_schedule(settings: RunSettings, schedule: Schedule, evaluated: Sequence[str]) -> None:
    """Refuse what a plateau cannot read.

    Args:
        settings: of the run.
        schedule: of the run.
        evaluated: the metrics that are known at the end of an epoch.

    Raises:
        ConfigError: it monitors another metric, or those of several members.
    """
    if schedule.monitor is None:
        return
    if settings.members > 1:
        raise ConfigError(
            f"scheduler.monitor: got {schedule.monitor} with replicas={settings.members}, whose members share one "
            "learning rate; expected single runs (replicas=1 seed=0,1,2)"
        )
    if schedule.monitor not in evaluated:
        more = "" if any(name.startswith("val/") for name in evaluated) else "; val/loss with dataset.val_fraction=0.1"
        raise ConfigError(f"scheduler.monitor: got {schedule.monitor}, expected one of {', '.join(evaluated)}{more}")

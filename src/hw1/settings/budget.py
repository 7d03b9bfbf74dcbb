"""What a budget makes of an experiment: limits on its settings, and settings of the experiment's own. No torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hw1.settings.construct import is_node, target_of
from hw1.settings.identity import ConfigError, Settings, added, select, without
from hw1.settings.paths import leaves

# Settings that count epochs, by the end of their name: they shrink with max_epochs, so that a run takes as many
# snapshots, evaluates as often and changes its objective as early as in the full experiment, relative to its length.
_EPOCHS = ("every_n_epochs", "check_val_every_n_epoch", "objective.after")
# Of a schedule that is stepped once an epoch, as torch calls them.
_OF_SCHEDULES = ("step_size", "milestones", "patience", "T_max", "T_0", "total_iters", "total_steps", "warmup")

_LIMITS = ("train_size", "epochs", "updates", "steps", "members", "seeds", "measured", "source")


def budget_name(settings: Settings) -> str:
    """The budget that a run's settings were made under."""
    return str(added(settings, "budget")["name"])


def budget_words(settings: Settings) -> list[str]:
    """The experiment's own settings under its budget, as words of a command: weaker than what is typed.

    Raises:
        ConfigError: a setting is not written with its dotted key.

    Example:
        >>> budget_words({"budget": {"name": "quick", "settings": {"replicas": 3, "seed": "0,1", "model.width": None}}})
        ['replicas=3', 'seed=0,1', 'model.width=null']
    """
    words = {True: "true", False: "false", None: "null"}
    own = added(settings, "budget").get("settings") or {}
    for key, value in own.items():
        if isinstance(value, Mapping):
            raise ConfigError(
                f"quick.{key}: got a group of settings, expected dotted keys, as {key}.{next(iter(value), 'lr')}: ..."
            )
    picked = settings.get("measures")  # settings of measures that a command does not ask for are not its concern
    if picked is not None:
        measures = [name for name, node in picked.items() if is_node(node)]
        own = {key: v for key, v in own.items() if not key.startswith("measures.") or key.split(".")[1] in measures}
    return [f"{key}={words[v] if v is None or isinstance(v, bool) else v}" for key, v in own.items()]


def limited(settings: Settings, given: Collection[str]) -> dict[str, Any]:
    """What the budget's limits change in a run's settings: new value by dotted key.

    The class of a data source says whether it is `large` (of others, only a `train_size` that is set is limited), and
    that of a measure which of its settings are bounded by which limit, as `limits = {"examples": "measured"}`.

    Args:
        settings: the resolved settings of one run.
        given: keys that were typed or swept, or that the budget sets itself: they stay.

    Raises:
        ConfigError: there is no limit of that name, it is no number, or a class whose limits matter cannot be imported.

    Example:
        >>> settings = {"trainer": {"max_epochs": 50, "check_val_every_n_epoch": 5}, "dataset": {"batch_size": 8}}
        >>> limited({**settings, "budget": {"name": "quick", "limits": {"epochs": 10}}}, [])
        {'trainer.max_epochs': 10, 'trainer.check_val_every_n_epoch': 1}
    """
    limits = added(settings, "budget").get("limits") or {}
    if unknown := [name for name in limits if name not in _LIMITS]:
        raise ConfigError(f"budget.limits.{unknown[0]}: no such limit; expected one of: {', '.join(_LIMITS)}")
    for name, most in limits.items():
        number = isinstance(most, int) and not isinstance(most, bool) and most > 0
        if most is not None and not (isinstance(most, str) if name == "source" else number):
            expected = "the name of a source" if name == "source" else "a positive integer"
            raise ConfigError(f"budget.limits.{name}: got {most!r}, expected {expected}, or null for no limit")
    changed: dict[str, Any] = {}

    def limit(key: str, most: int | None, null_is_all: bool = False) -> None:
        value = select(settings, key)
        if most is not None and (null_is_all if value is None else isinstance(value, int) and value > most):
            changed[key] = most

    if limits.get("train_size"):  # else the class of the data is not imported
        all_of_many = select(settings, "dataset.train_size") is None and _large(settings)
        limit("dataset.train_size", limits["train_size"], null_is_all=all_of_many)
    if limits.get("source") and select(settings, "dataset.source") == "auto":
        changed["dataset.source"] = limits["source"]
    if any(limits.values()):
        for key, name in _bounded(settings):
            limit(key, limits.get(name), null_is_all=True)
    limit("replicas", limits.get("members"))
    full_batch = select(settings, "dataset.batch_size") is None
    endless = select(settings, "trainer.max_epochs") == -1
    if endless:  # steps alone end it
        limit("trainer.max_steps", limits.get("steps"))
    limit("trainer.max_epochs", limits.get("steps" if full_batch else "epochs"))
    if not (full_batch or endless) and (least := _epochs_of(limits, settings, changed)) is not None:
        changed["trainer.max_epochs"] = least
    if "trainer.max_epochs" in changed and "trainer.max_epochs" not in given:
        share = changed["trainer.max_epochs"] / select(settings, "trainer.max_epochs")
        for key, value in leaves(without(settings, ["budget", "quick"])):
            if key.endswith(_EPOCHS) and isinstance(value, int) and value > 0:
                changed[key] = max(1, round(value * share))
        changed |= _sooner(settings.get("scheduler"), share)
    return {key: value for key, value in changed.items() if key not in given and value != select(settings, key)}


def _sooner(node: Any, share: float) -> dict[str, Any]:
    """The settings of a schedule that count epochs, shrunk: else it would begin to act when the run is over."""
    if not isinstance(node, Mapping) or node.get("interval", "epoch") != "epoch":
        return {}

    def shrunk(value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0  # below 1 it is a share already
        return max(1, round(value * share)) if whole else value

    found = {name: node[name] for name in _OF_SCHEDULES if name in node}
    return {
        f"scheduler.{name}": [shrunk(one) for one in value] if isinstance(value, list) else shrunk(value)
        for name, value in found.items()
    }


def _epochs_of(limits: Mapping[str, Any], settings: Settings, changed: Mapping[str, Any]) -> int | None:
    """Epochs that make as many optimizer steps as a shorter training must, of a training set that was made smaller.

    None where its epochs are enough: few large batches an epoch would else leave a network untrained.
    """
    size, batch, least = (
        changed.get("dataset.train_size"),
        select(settings, "dataset.batch_size"),
        limits.get("updates"),
    )
    if least is None or size is None or not isinstance(batch, int):
        return None
    epochs = changed.get("trainer.max_epochs", select(settings, "trainer.max_epochs"))
    wanted = math.ceil(least / math.ceil(size / batch))
    return wanted if isinstance(epochs, int) and wanted > epochs else None


def _large(settings: Settings) -> bool:
    node = settings.get("dataset")
    return is_node(node) and bool(getattr(target_of(node, "dataset"), "large", False))


def _bounded(settings: Settings) -> Iterator[tuple[str, str]]:
    """(dotted key, name of the limit) of what the run's measures let a budget limit; at the end, and while training."""
    groups = {"measures": settings.get("measures")}
    groups |= {
        f"callbacks.{name}.measure": select(settings, f"callbacks.{name}.measure")
        for name in settings.get("callbacks") or {}
    }
    for group, nodes in groups.items():
        for name, node in nodes.items() if isinstance(nodes, Mapping) else ():
            if is_node(node):
                bounds: Mapping[str, str] = getattr(target_of(node, f"{group}.{name}"), "limits", {})
                yield from ((f"{group}.{name}.{key}", limit) for key, limit in bounds.items() if key in node)

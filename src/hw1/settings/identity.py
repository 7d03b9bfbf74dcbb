"""What makes a run that run: its key and its seeds, from the resolved settings alone. Imports no torch."""

import copy
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from hw1.seeds import digest, mixed

Settings = Mapping[str, Any]
Init = Literal["shared", "independent"]

# Settings that cannot change a run's result, as dotted paths.
WITHOUT_EFFECT = (
    "study",
    "name",
    "output",
    "sweep",
    "logger",
    "measures",
    "measured_sweep",
    "hydra",
    "adopted.folder",
    "dataset.root",
    "dataset.workers",
    "dataset.eval_batch_size",
    "trainer.progress",
    "trainer.checkpoint_seconds",
    # Limits and settings of a budget work through the settings that they change.
    "budget.limits",
    "budget.settings",
    "quick",
    "about",
)

# Settings added since the first release, with the value under which older runs were made: at that value they are
# left out of the key, so that old keys stay what they are.
ADDED: dict[str, Any] = {
    "replicas": 1,
    "objective": {"minimise": "loss", "after": 0},
    "budget": {"name": "full"},
    "loss": None,
    "metrics": None,
    "optimizer.no_decay": None,
    "optimizer.groups": None,
    "adopted": None,
    "task": None,
    "transform": None,
    "weights": "last",
    "trainer.num_nodes": 1,
}

# What a run with `init: independent` derives its weights and data order from, besides the seed. Training longer or
# measuring more does not change the start.
_LEARNING = ("dataset", "model", "optimizer", "scheduler")

_MAPPINGS = (dict, Mapping)  # the first is found ten times as fast
_PLAIN = (str, int, float, bool, type(None))

# Copies of `seed` inside the groups.
_SEEDS = ("dataset.seed", "dataset.noise_seed")


class ConfigError(ValueError):
    """A setting that cannot be used. The message is one line a problem: the key, what was got, what is expected."""


def without(settings: Settings, paths: Iterable[str]) -> dict[str, Any]:
    """A copy of nested `settings` without the dotted `paths`."""
    drop = _by_group(tuple(paths))
    kept = {}
    for name, value in settings.items():
        inside = drop.get(name)
        if inside is None:
            kept[name] = value
        elif "" not in inside:
            kept[name] = without(value, inside) if isinstance(value, Mapping) else value
    return kept


@functools.lru_cache(maxsize=256)
def _by_group(paths: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """{first part: the rest of each dotted path that begins with it}."""
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(path.partition(".")[0], []).append(path.partition(".")[2])
    return {name: tuple(inside) for name, inside in found.items()}


def copied(node: Any) -> Any:
    """A copy of plain containers, in a fifth of the time that copy.deepcopy takes; of anything else, its own.

    Example:
        >>> one = {"model": {"hidden": [2, 3]}}
        >>> two = copied(one)
        >>> two == one, two["model"]["hidden"] is one["model"]["hidden"]
        (True, False)
    """
    kind = type(node)
    if kind is dict:
        return {name: copied(value) for name, value in node.items()}
    if kind is list:
        return [copied(value) for value in node]
    return node if kind in _PLAIN else copy.deepcopy(node)


def select(settings: Settings, path: str, default: Any = None) -> Any:
    """The value at a dotted path, or `default`."""
    node: Any = settings
    for part in path.split("."):
        if not isinstance(node, _MAPPINGS) or part not in node:
            return default
        node = node[part]
    return node


def put(settings: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path, whose groups are there."""
    group, _, name = path.rpartition(".")
    (select(settings, group) if group else settings)[name] = value


def added(settings: Settings, path: str) -> Any:
    """A setting that runs of an earlier version do not have."""
    return select(settings, path, ADDED[path])


def run_key(settings: Settings) -> str:
    """The run's key: 10 hexadecimal digits that change with every setting that can change its result."""
    missing = object()
    at_old_value = [path for path, value in ADDED.items() if select(settings, path, missing) == value]
    return digest(without(settings, [*WITHOUT_EFFECT, *at_old_value]))[:10]


def run_seed(settings: Settings, member: int = 0) -> int:
    """The 32-bit seed of a run's initial weights, data order and dropout.

    Member r of several gets what a single run with `seed + r` gets.

    Raises:
        ConfigError: `init` or `seed` is neither of what it can be.
    """
    check_seed(settings)
    own = None
    if settings["init"] == "independent":
        learning = {group: settings.get(group) for group in _LEARNING}
        if (loss := settings.get("loss")) is not None:
            learning["loss"] = loss
        at_old_value = [path for path, value in ADDED.items() if select(settings, path) == value]
        own = without(learning, [*WITHOUT_EFFECT, *_SEEDS, *at_old_value])
    return mixed(settings["seed"] + member, own)


def check_seed(settings: Settings) -> None:
    """Refuse what `run_seed` would, without the seed.

    Raises:
        ConfigError: `init` or `seed` is neither of what it can be.
    """
    seed, init = settings.get("seed"), settings.get("init")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed: got {seed!r}, expected an integer of at least 0")
    if seed >= 2**63:  # records hold integers of 64 bits
        raise ConfigError(f"seed: got an integer of {len(str(seed))} digits, expected one below 2^63")
    if init not in ("shared", "independent"):
        raise ConfigError(f"init: got {init!r}, expected shared or independent")


def deciding(settings: Settings) -> dict[str, Any]:
    """The settings that tell runs apart for a reader: those that can change a result, without copies of the seed.

    One that was added as null is left out where it is null: a run of before it has none.
    """
    absent = [path for path, value in ADDED.items() if value is None and select(settings, path) is None]
    return without(settings, [*WITHOUT_EFFECT, *_SEEDS, *absent])

"""A run's settings, checked once at the door and read-only from there on. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hw1.bounds import MEMBERS, THREADS
from hw1.settings.construct import check_setting
from hw1.settings.identity import ConfigError, Init, added, check_seed, copied, run_key, run_seed, select

Node = Mapping[str, Any]  # a `_target_` and its settings

LOSS, SQUARED_GRADIENT_NORM = OBJECTIVES = ("loss", "squared_gradient_norm")
LAST, BEST, AVERAGED = WEIGHTS = ("last", "best", "averaged")

# Settings of conf/trainer that are hw1's, not lightning.Trainer's.
OWN_TRAINER_SETTINGS = {"threads": int, "checkpoint_seconds": float, "progress": bool}

# Every key that may stand at the top of a run's settings.
TOP = (
    *(
        "name",
        "output",
        "seed",
        "init",
        "replicas",
        "objective",
        "loss",
        "metrics",
        "scheduler",
        "about",
        "quick",
        "study",
        "sweep",
        "budget",
        "adopted",
        "task",
        "weights",
    ),
    *("trainer", "dataset", "model", "optimizer", "callbacks", "measures", "measured_sweep", "logger"),
    "transform",
)


@dataclass(frozen=True)
class Objective:
    """What training minimises.

    Attributes:
        minimise: one of `OBJECTIVES`.
        after: epochs on the loss before that.
    """

    minimise: str = LOSS
    after: int = 0

    def phase(self, completed: float) -> str:
        """What had moved the weights last: `training` (the loss) or `gradient_norm`.

        Args:
            completed: epochs; within the fourth, more than 3.

        Example:
            >>> objective = Objective(SQUARED_GRADIENT_NORM, after=3)
            >>> objective.phase(3), objective.phase(3.1)
            ('training', 'gradient_norm')
        """
        return "gradient_norm" if self.minimise == SQUARED_GRADIENT_NORM and completed > self.after else "training"


@dataclass(frozen=True)
class RunSettings:
    """The resolved settings of one run. Made by `check`; values of nodes are checked by what they construct.

    Attributes:
        plain: all of them as plain containers; a copy of what was checked.
        name: of the experiment, hence the folder below the output.
        seed: of the run; member r has the start of `seed + r`.
        init: "shared" or "independent" starts.
        members: R, networks trained side by side (the setting `replicas`).
        objective: what is minimised.
        weights: which weights the run is, one of `WEIGHTS`.
        max_epochs: of the training; -1 where `max_steps` alone ends it.
        max_steps: optimizer steps of the training at most; None where epochs alone end it.
        threads: torch's threads.
        checkpoint_seconds: least time between two checkpoints.
        progress: whether a terminal shows a bar.
        trainer: the arguments of lightning.Trainer, with its `_target_`.
        dataset, model, optimizer, loss, scheduler: nodes; no scheduler is None, and so is the data's own loss.
        callbacks, measures, metrics, logger: nodes by name.
        budget: name, limits and settings of the budget.
        transform: of training inputs: a node, several ones by name, or a list of them; None for none.
        stored: `plain` as a run's files hold it, where paths and loggers came from the environment by name alone.
    """

    plain: Node
    name: str
    seed: int
    init: Init
    members: int
    objective: Objective
    weights: str
    max_epochs: int
    max_steps: int | None
    threads: int
    checkpoint_seconds: float
    progress: bool
    trainer: Node
    dataset: Node
    model: Node
    optimizer: Node
    loss: Node | None
    scheduler: Node | None
    metrics: Mapping[str, Node]
    callbacks: Mapping[str, Node]
    measures: Mapping[str, Node]
    logger: Mapping[str, Node]
    budget: Node
    transform: Node | Sequence[Node] | None
    stored: Node

    @classmethod
    def check(cls, settings: Mapping[str, Any], stored: Mapping[str, Any] | None = None) -> RunSettings:
        """The settings of a run from plain containers.

        Args:
            settings: all of them, resolved.
            stored: as its files are to hold them; as they are, unless said.

        Keys that nothing reads are let through: a stored run may have been made by a later version, see
        `refuse_unknown`.

        Raises:
            ConfigError: a value is not one that it can have; the message names its key.
        """
        settings = copied(dict(settings))  # what changes there later does not change a run
        if settings.get("transform") == {}:  # what transform=none leaves
            settings = {**settings, "transform": None}
        check_seed(settings)
        trainer = _mapping(settings, "trainer")
        epochs, steps = _length(trainer)
        for name, kind in OWN_TRAINER_SETTINGS.items():
            if type(trainer.get(name)) not in (kind, *((int,) if kind is float else ())):  # most are: no need to ask
                check_setting(f"trainer.{name}", trainer.get(name), kind)
        if trainer["threads"] < 1:
            raise ConfigError(f"trainer.threads: got {trainer['threads']}, expected a positive integer")
        if problem := THREADS.problem(trainer["threads"]):  # torch would end the process
            raise ConfigError(f"trainer.threads: {problem}")
        if trainer["checkpoint_seconds"] < 0:
            raise ConfigError(f"trainer.checkpoint_seconds: got {trainer['checkpoint_seconds']}, expected at least 0")
        return cls(
            plain=settings,
            name=_name(settings),
            seed=settings["seed"],
            init=settings["init"],
            members=_members(settings),
            objective=_objective(settings),
            weights=_weights(settings),
            max_epochs=epochs,
            max_steps=steps,
            threads=trainer["threads"],
            checkpoint_seconds=trainer["checkpoint_seconds"],
            progress=trainer["progress"],
            trainer={key: value for key, value in trainer.items() if key not in OWN_TRAINER_SETTINGS},
            dataset=_mapping(settings, "dataset"),
            model=_mapping(settings, "model"),
            optimizer=_mapping(settings, "optimizer"),
            loss=_optional(settings, "loss"),
            scheduler=_optional(settings, "scheduler"),
            metrics=_nodes(settings, "metrics"),
            callbacks=_nodes(settings, "callbacks"),
            measures=_nodes(settings, "measures"),
            logger=_nodes(settings, "logger"),
            budget=_budget(settings),
            transform=added(settings, "transform"),
            stored=settings if stored is None else copied(dict(stored)),
        )

    @cached_property
    def key(self) -> str:
        """The run's key, see `hw1.settings.identity.run_key`."""
        return run_key(self.plain)

    def epochs_of(self, steps: int) -> int:
        """Epochs that it trains at most, the last of which may break off.

        Args:
            steps: optimizer steps of one epoch.
        """
        if self.max_steps is None:
            return self.max_epochs
        wanted = -(-self.max_steps // steps)
        return wanted if self.max_epochs < 0 else min(wanted, self.max_epochs)

    @property
    def member_seeds(self) -> list[int]:
        """32-bit seeds of the members' weights, data order and dropout."""
        return [run_seed(self.plain, member) for member in range(self.members)]

    def value(self, path: str, default: Any = None) -> Any:
        """The setting at a dotted path, or `default`."""
        return select(self.plain, path, default)


def refuse_unknown(settings: Mapping[str, Any]) -> None:
    """Refuse a key at the top that nothing reads.

    Raises:
        ConfigError: there is one.
    """
    if unknown := [name for name in settings if name not in TOP]:
        raise ConfigError(f"{unknown[0]}: no such setting; expected one of: {', '.join(sorted(TOP))}")


def _mapping(settings: Mapping[str, Any], key: str) -> Node:
    node = settings.get(key)
    if not isinstance(node, Mapping):
        raise ConfigError(f"{key}: got {node!r}, expected a group option with a _target_")
    return node


def _optional(settings: Mapping[str, Any], key: str) -> Node | None:
    node = settings.get(key) or None
    if node is not None and not isinstance(node, Mapping | str):  # of text, what it is meant to be is said elsewhere
        raise ConfigError(f"{key}: got {node!r}, expected a group option with a _target_, or null")
    return node  # type: ignore[return-value]


def _name(settings: Mapping[str, Any]) -> str:
    name = settings.get("name")
    if not isinstance(name, str | int | float):
        raise ConfigError(f"name: got {name!r}, expected the name of an experiment")
    return str(name)


def _budget(settings: Mapping[str, Any]) -> Node:
    node = added(settings, "budget")
    if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
        raise ConfigError(f"budget: got {node!r}, expected an option of the group, as full or quick")
    return node


def _nodes(settings: Mapping[str, Any], key: str) -> Mapping[str, Node]:
    nodes = settings.get(key) or {}
    if not isinstance(nodes, Mapping):
        raise ConfigError(f"{key}: got {nodes!r}, expected options by name, each with a _target_")
    return nodes


def _length(trainer: Node) -> tuple[int, int | None]:
    """trainer.max_epochs, -1 for no limit, and trainer.max_steps, None for none."""
    epochs: Any = trainer.get("max_epochs")
    steps: Any = trainer.get("max_steps", -1)
    for name, value in (("max_epochs", epochs), ("max_steps", steps)):
        if isinstance(value, bool) or not isinstance(value, int) or not (value == -1 or value > 0):
            or_none = ", or -1 for no limit" if name == "max_steps" else ""
            raise ConfigError(f"trainer.{name}: got {value!r}, expected a positive integer{or_none}")
    if epochs == steps == -1:
        raise ConfigError("trainer.max_epochs: got -1, expected a positive integer, or +trainer.max_steps beside it")
    return epochs, None if steps == -1 else steps


def _weights(settings: Mapping[str, Any]) -> str:
    weights = added(settings, "weights")
    if weights not in WEIGHTS:
        raise ConfigError(f"weights: got {weights!r}, expected {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}")
    return str(weights)


def _members(settings: Mapping[str, Any]) -> int:
    number = added(settings, "replicas")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigError(f"replicas: got {number!r}, expected a positive integer")
    if problem := MEMBERS.problem(number):
        raise ConfigError(f"replicas: {problem}")
    return number


def _objective(settings: Mapping[str, Any]) -> Objective:
    node = added(settings, "objective")
    if not isinstance(node, Mapping) or set(node) != {"minimise", "after"}:
        raise ConfigError(f"objective: got {node!r}, expected objective.minimise and objective.after")
    minimise, after = node["minimise"], node["after"]
    if minimise not in OBJECTIVES:
        raise ConfigError(f"objective.minimise: got {minimise!r}, expected {' or '.join(OBJECTIVES)}")
    if isinstance(after, bool) or not isinstance(after, int) or after < 0:
        raise ConfigError(f"objective.after: got {after!r}, expected a number of epochs, 0 or more")
    if minimise == LOSS and after:
        raise ConfigError(f"objective.after: got {after}, expected 0 where objective.minimise is the loss throughout")
    epochs = select(settings, "trainer.max_epochs")
    if minimise != LOSS and isinstance(epochs, int) and 0 < epochs <= after:
        raise ConfigError(
            f"objective.after: got {after}, expected less than trainer.max_epochs={epochs}, "
            f"or objective.minimise={LOSS}"
        )
    return Objective(minimise, after)

"""The runs that a command asks for, composed and checked before any folder is made.

Hydra imports this file at every start: it stays free of torch.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hw1.explaining import explain
from hw1.replaced import drop, leftovers
from hw1.runs import runs_by_key, slug_of
from hw1.settings import ConfigError, RunSettings
from hw1.settings.budget import limited
from hw1.settings.construct import is_node, target_of
from hw1.settings.identity import WITHOUT_EFFECT, put, select
from hw1.settings.local import local_keys, passed_over
from hw1.settings.run_settings import refuse_unknown
from hw1.stages import through
from hw1.training.weights_file import identity
from hw1.typed import program
from hydra_plugins.hw1_sweeper.composing import Composer
from hydra_plugins.hw1_sweeper.options import Lacking


@dataclass
class Job:
    """One run of the sweep, before it is launched.

    Attributes:
        overrides: the words that tell it from the sweep's other runs, and those that all share.
        settings: resolved.
        folder: where it stands, or will.
        pins: words that the command decided for it.
    """

    overrides: list[str]
    settings: RunSettings
    folder: Path
    pins: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The run's key."""
        return self.settings.key


def jobs_of(
    combinations: Sequence[list[str]],
    compose: Composer,
    pins: "Pins",
    readable: Sequence[str],
    base: Path,
    loader: Any,
) -> list[Job]:
    """Every run of a sweep.

    Args:
        combinations: the words of each.
        compose: words -> settings.
        pins: what is decided once a command.
        readable: keys that a folder's name is made of, in this order.
        base: `multirun/<name>`.
        loader: Hydra's, to explain errors with.

    Raises:
        ConfigError: one line a distinct problem: a run cannot be composed, a value is refused, a run is named twice.
    """
    problems: dict[str, None] = {}
    jobs, lacking, local = [], Lacking(), local_keys()
    for overrides in through(combinations, len(combinations)):
        try:
            plain = compose(overrides)
        except Exception as error:  # explained in one line; each distinct one once, below
            said = explain(error, loader)
            if not lacking.note(overrides, error, said):
                problems[said] = None
            continue
        try:
            refuse_unknown(plain)
            dropped = drop(plain, leftovers(plain, overrides, compose.shared))
            if local:
                dropped += drop(plain, list(passed_over(plain, overrides, local, compose.shared("dataset"))))
            # An experiment has settings of measures that a command may not ask for.
            plain["measures"] = {name: node for name, node in plain["measures"].items() if is_node(node)}
            pinned = [*dropped, *pins(plain)]
            settings = RunSettings.check(plain)
        except ConfigError as error:
            problems[str(error)] = None
            continue
        folder = base / "runs" / f"{_slug(readable, overrides, plain)}-{settings.key}"
        jobs.append(Job(overrides, settings, folder, pinned))
    if found := [*problems, *lacking.lines(combinations)]:
        raise ConfigError("\n".join(found))
    seen: set[str] = set()
    there = runs_by_key(base / "runs")
    for job in jobs:
        if job.key in seen:
            raise ConfigError(f"{' '.join(job.overrides)}: the sweep names this run twice; remove one of them")
        seen.add(job.key)
        job.folder = there.get(job.key, job.folder)
    return jobs


class Pins:
    """Decides what a budget limits and, once per command, what is `auto`; writes it into settings and overrides.

    Args:
        given: keys that the command sets or sweeps: a budget does not limit them.
    """

    def __init__(self, given: set[str]) -> None:
        self._given = given
        self._decided: dict[Any, str] = {}

    def __call__(self, settings: dict[str, Any]) -> list[str]:
        """The words that were decided for these settings, which are changed in place."""
        limits = limited(settings, self._given)
        for key, value in limits.items():
            put(settings, key, value)
        return [*(f"{key}={value}" for key, value in limits.items()), *self._source(settings), *_weights(settings)]

    def _source(self, settings: dict[str, Any]) -> list[str]:
        if select(settings, "dataset.source") != "auto":
            return []
        choose = getattr(target_of(settings["dataset"], "dataset"), "choose_source", None)
        if choose is None:
            return []
        root = select(settings, "dataset.root")
        if (choose, root) not in self._decided:
            try:
                self._decided[choose, root] = choose(root, "auto")
            except (ValueError, OSError) as error:
                raise ConfigError(f"dataset.{error}" if str(error).startswith("root:") else str(error)) from error
        settings["dataset"]["source"] = self._decided[choose, root]
        return [f"dataset.source={settings['dataset']['source']}"]


def _weights(settings: dict[str, Any]) -> list[str]:
    """The hash of the weights file that a run adopts."""
    node = settings.get("adopted")
    if not node:
        return []
    if not isinstance(node, dict) or not {"folder", "file"} <= set(node):
        raise ConfigError(f"adopted: got {node!r}, expected it from {program()} adopt weights=...")
    node["sha256"] = identity(Path(node["folder"]) / node["file"])
    return [f"adopted.sha256={node['sha256']}"]


def _slug(names: Iterable[str], overrides: Iterable[str], settings: dict[str, Any]) -> str:
    """A readable folder name: swept settings first, then the command's others that can change the result."""
    typed = {word.lstrip("+").partition("=")[0]: word.partition("=")[2] for word in overrides}
    parts = []
    for name in dict.fromkeys(names):
        if name in typed and not _is_silent(name) and name != "adopted":
            value = select(settings, name, typed[name])
            if name.endswith("._target_"):  # a class says enough by its own name
                parts.append(f"{name.removesuffix('._target_')}={str(value).rpartition('.')[2]}")
                continue
            parts.append(f"{name}={_name(value, typed[name]) if isinstance(value, dict) else _short(value)}")
    return slug_of(parts)


@functools.cache
def _is_silent(name: str) -> bool:
    """Whether a setting cannot change a result."""
    return any(name == path or name.startswith(f"{path}.") for path in (*WITHOUT_EFFECT, "experiment"))


def _name(node: dict[str, Any], typed: str) -> str:
    """A node by its class where that was typed, or by the option that it is."""
    return str(node["_target_"]).rpartition(".")[2] if typed.startswith("{") and "_target_" in node else typed


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)

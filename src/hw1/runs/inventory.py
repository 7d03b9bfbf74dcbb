"""What stands below a folder of results: experiments, their sweeps, and all their runs. No torch."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from hw1.inside import refuse_linked_parts
from hw1.runs.standing import INTERRUPTED, RUNNING, STATES, Standing, SweepStanding, standing, sweep_standing
from hw1.runs.submitted import queue_of, submitted_below
from hw1.settings import ConfigError
from hw1.settings.identity import select
from hw1.settings.paths import leaves, meant, paths

_MISSING = object()


@dataclass(frozen=True)
class Experiment:
    """The folder of an experiment.

    Attributes:
        folder: `multirun/<name>`.
        sweeps: its sweeps, the oldest first.
        runs: its runs: those that a sweep names, in the order of the sweeps, then those that none does.
        nameless: folders of sweeps without a sweep.json.
    """

    folder: Path
    sweeps: Sequence[SweepStanding]
    runs: Sequence[Standing]
    nameless: Sequence[Path] = ()

    def of(self, sweep: SweepStanding) -> list[Standing]:
        """The runs of one of its sweeps."""
        places = {self._places[folder] for folder in sweep.folders if folder in self._places}
        return [self.runs[place] for place in sorted(places)]

    @cached_property
    def _places(self) -> dict[Path, int]:
        """Where each run stands among them: there may be as many sweeps as runs."""
        return {run.folder: place for place, run in enumerate(self.runs)}


def inventory(path: Path) -> list[Experiment]:
    """What stands below a folder of results, an experiment, a sweep (with its runs alone) or a run.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    path = path.parent if path.name == "sweep.json" else path
    base = path.absolute().parent.parent
    if (path / "sweep.json").is_file():
        whole = _experiment(base)
        sweeps = [sweep for sweep in whole.sweeps if sweep.folder.name == path.absolute().name]
        return [Experiment(base, sweeps, [run for sweep in sweeps for run in whole.of(sweep)])]
    if path.absolute().parent.name == "runs" and path.is_dir():
        runs = [run for run in _experiment(base).runs if run.folder.name == path.absolute().name]
        return [Experiment(base, [], runs)]
    if _is_experiment(path):
        return [_experiment(path.absolute())]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder; expected a run, a sweep, an experiment or a folder of them")
    return [_experiment(folder) for folder in sorted(path.absolute().glob("*/")) if _is_experiment(folder)]


def _is_experiment(folder: Path) -> bool:
    return (folder / "runs").is_dir() or (folder / "sweeps").is_dir()


def _experiment(folder: Path) -> Experiment:
    refuse_linked_parts(folder)
    every = sorted(path for path in folder.glob("sweeps/*/") if path.is_dir())
    queue = queue_of(submitted_below(folder))
    queued = {job.file.parent for job, place in queue.values() if place.live}
    sweeps = [sweep_standing(path) for path in every if (path / "sweep.json").is_file()]
    sweeps = [
        replace(sweep, status=RUNNING) if sweep.status == INTERRUPTED and sweep.folder in queued else sweep
        for sweep in sweeps
    ]
    named: dict[Path, list[SweepStanding]] = {}
    for sweep in sweeps:
        for run in sweep.folders:
            named.setdefault(run, []).append(sweep)
    for run in _folders(folder / "runs"):
        named.setdefault(run, [])
    measured = {sweep.folder for sweep in sweeps if next(sweep.folder.glob("measuring-*.json"), None)}
    runs = [
        standing(
            run,
            expected=any(sweep.status == RUNNING for sweep in asked),
            busy=any(sweep.folder in measured for sweep in asked),
            words=asked[-1].words[run.name] if asked else (),
            sweeps=tuple(sweep.folder.name for sweep in asked),
            job=queue.get(run.name),
        )
        for run, asked in named.items()
    ]
    nameless = [path for path in every if not (path / "sweep.json").is_file()]
    return Experiment(folder, sweeps, runs, nameless)


def _folders(base: Path) -> list[Path]:
    """The folders in one, in order."""
    if not base.is_dir():
        return []
    with os.scandir(base) as entries:
        return [base / name for name in sorted(entry.name for entry in entries if entry.is_dir())]


@dataclass(frozen=True)
class Filter:
    """A word `key=value[,value...]` that some runs fulfil.

    Attributes:
        key: `status`, `experiment`, `sweep`, or a dotted setting or group of a run.
        values: of which a run has one.
    """

    key: str
    values: tuple[str, ...]

    @classmethod
    def of(cls, word: str) -> Filter:
        """The filter that a word is.

        Raises:
            ConfigError: it is none, or asks for a status that there is not.

        Example:
            >>> Filter.of("optimizer.lr=0.1,0.01")
            Filter(key='optimizer.lr', values=('0.1', '0.01'))
        """
        key, equals, text = word.partition("=")
        if not equals or not key or not text:
            raise ConfigError(f"{word}: got no such path and no filter, expected a path or KEY=VALUE, as status=failed")
        listed = text.startswith("[")  # one value, with commas of its own
        values = (text,) if listed else tuple(value.strip() for value in text.split(","))
        if key == "status" and (unknown := [value for value in values if value not in STATES]):
            raise ConfigError(f"status: got {unknown[0]}, expected one of: {', '.join(STATES)}")
        return cls(key, values)

    def holds(self, run: Standing) -> bool:
        """Whether a run has one of the values."""
        if self.key in ("status", "experiment"):
            return getattr(run, self.key) in self.values
        if self.key == "sweep":
            return any(name in self.values for name in run.sweeps)
        value = self._value(run)
        if self.key == "seed" and run.run is not None and isinstance(value, int):  # of any of its members
            return any(_same(value + member, text) for member in range(run.run.count) for text in self.values)
        options = [word.partition("=")[2] for word in run.words if word.partition("=")[0] == self.key]
        return any(_same(value, text) or text in options for text in self.values)

    def known(self, run: Standing) -> bool:
        """Whether a run has the setting at all."""
        return self.key in ("status", "experiment", "sweep") or self._value(run) is not _MISSING

    def _value(self, run: Standing) -> Any:
        return _MISSING if run.run is None else select(run.run.settings.plain, self.key, _MISSING)


def selected(runs: Sequence[Standing], filters: Sequence[Filter]) -> list[Standing]:
    """The runs that fulfil all filters, in their order.

    Raises:
        ConfigError: no run at all has the setting of one.
    """
    for wanted in filters:
        if any(run.run is not None for run in runs) and not any(wanted.known(run) for run in runs):
            known = sorted({key for run in runs if run.run for key in paths(run.run.settings.plain)})
            close = meant(wanted.key, known)
            hint = f": did you mean {close}?" if close else ", expected one of a run's config.yaml, or status"
            raise ConfigError(f"{wanted.key}: got a setting that none of these runs has{hint}")
    return [run for run in runs if all(wanted.holds(run) for wanted in filters)]


def flat(node: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key; the class that a group builds stands under the group's name.

    Example:
        >>> flat({"optimizer": {"_target_": "torch.optim.Adam", "lr": 0.1}, "callbacks": {}})
        {'optimizer': 'torch.optim.Adam', 'optimizer.lr': 0.1}
    """
    return {key.removesuffix("._target_"): value for key, value in leaves(node)}


@functools.cache
def _parsed(text: str) -> Any:
    try:
        return float(text)  # 1e-3 too, which is text to YAML
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _same(value: Any, text: str) -> bool:
    """Whether a setting is what was typed; a group is its option, or the class that it builds.

    Example:
        >>> _same(0.001, "1e-3"), _same(None, "null"), _same(True, "1"), _same({"_target_": "torch.optim.Adam"}, "adam")
        (True, True, False, True)
    """
    if isinstance(value, Mapping):
        return str(value.get("_target_", "")).rpartition(".")[2].lower() == text.lower()
    wanted = _parsed(text)
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted) or (value is not _MISSING and str(value) == text)

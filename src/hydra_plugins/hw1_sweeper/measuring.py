"""Measures of finished runs: what a command asks for, what is missing, and what a sweep takes in.

Hydra imports this file at every start: it stays free of torch.
"""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hw1.lease import hold
from hw1.records import read_record, rewrite_record
from hw1.runs import Ask, Run, Sweep, asks_in, read_measured
from hw1.settings import ConfigError
from hw1.settings.budget import limited
from hw1.settings.identity import put, select
from hw1.trust import judge_measures, reading
from hydra_plugins.hw1_sweeper.plan import Job


def asks_of_command(config: DictConfig, loader: Any, sweep: Sweep, arguments: Sequence[str]) -> list[Ask]:
    """What a command asks of a finished sweep: its own settings, else those of conf/, with what is typed.

    Args:
        config: as Hydra composed it.
        loader: Hydra's.
        sweep: the sweep.
        arguments: the words of the command.

    Raises:
        ConfigError: a word is no setting of a measure that was asked for.
    """
    typed = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    given: Any = OmegaConf.to_container(config.measures, resolve=True)
    for word in typed:
        key = word.key_or_group
        mine = key.startswith(tuple(f"measures.{name}." for name in given)) and not word.is_add()
        if not (mine or key in ("measures", "measured_sweep") or key.startswith("hydra")):
            raise ConfigError(f"{key}: got a setting of runs, expected settings of measures: nothing is trained here")
        if word.is_sweep_override():
            raise ConfigError(f"{key}: cannot be swept: give one value a command (quote a comma that is part of it)")
    groups = [word for word in arguments if word.startswith("measures=")]
    usual: Any = OmegaConf.to_container(
        loader.load_configuration("train", groups, run_mode=RunMode.MULTIRUN).measures, resolve=True
    )
    plain = sweep.complete().runs[0].settings.plain
    for key, value in limited({**plain, "measures": usual}, []).items():
        if key.startswith("measures."):
            put(usual, key.removeprefix("measures."), value)
    own = {ask.name: ask.node for ask in sweep.asks if not ask.differs}
    if why := sweep.why_not_own:
        judge_measures({name: node for name, node in own.items() if name in given}, reading().trusted, why)
    asks = []
    for name, node in given.items():
        base = own.get(name, usual[name])
        prefix = f"measures.{name}."
        words = {w.key_or_group.removeprefix(prefix) for w in typed if w.key_or_group.startswith(prefix)}
        differs = {key: select(node, key) for key in sorted(words) if select(base, key) != select(node, key)}
        wanted = copy.deepcopy(dict(base))
        for key, value in differs.items():
            put(wanted, key, value)
        asks.append(Ask(name, wanted, differs))
    return asks


def lacking_measures(jobs: Iterable[Job], asks: Sequence[Ask]) -> dict[str, list[Ask]]:
    """The measures that finished runs lack, by the run's key; those that lack none are left out.

    Raises:
        ConfigError: a measure cannot be taken of one of them.
    """
    if not asks:
        return {}
    from hw1.measures.take import check, missing

    found = {}
    for job in jobs:
        run = Run(job.folder, job.settings)
        if wanted := missing(run, asks):
            check(wanted, job.settings, int(run.result["parameters"]))
            found[job.key] = wanted
    return found


def forget(jobs: Iterable[Job], asks: Sequence[Ask]) -> None:
    """Remove measurements that are to be taken again: of other weights, of an earlier version, or failed."""
    for job in jobs:
        for ask in lacking_measures([job], asks).get(job.key, []):
            ask.file(job.folder).unlink(missing_ok=True)


def take_in(folder: Path, asks: Sequence[Ask], runs: Sequence[Path]) -> tuple[list[str], dict[str, str]]:
    """Let a sweep take in what was measured later; returns what to say, and the measurements that failed.

    A measure that succeeded nowhere is not remembered: the command can be given again, or not.
    """
    from hw1.report.conclude import conclude

    found = {(run, i): read_measured(ask.file(run)) for run in runs for i, ask in enumerate(asks)}
    good = {i for (_, i), one in found.items() if one is not None and not one.error}
    failed = {
        f"{run.name}: measures.{asks[i].name}{asks[i].label}": one.error if one else "it was not taken"
        for (run, i), one in found.items()
        if one is None or one.error
    }
    with hold(folder):  # of what was written since, nothing is lost
        record = read_record(folder / "sweep.json")
        known = [ask.record() for ask in asks_in(record)]
        new = [ask.record() for i, ask in enumerate(asks) if i in good and ask.record() not in known]
        later = [*record.get("measured_later", []), *new]
        rewrite_record(folder / "sweep.json", record | {"measured_later": later})
        return conclude(folder), failed

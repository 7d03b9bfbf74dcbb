"""Every bad value of every run is refused before the first one trains; what runs share is checked once.

Hydra imports this file at every start: it stays free of torch until runs are checked.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hw1.runs import Ask
from hw1.settings import ConfigError, RunSettings
from hw1.settings.identity import deciding, without
from hw1.stages import at
from hydra_plugins.hw1_sweeper.plan import Job


def check_runs(jobs: Sequence[Job], asks: Sequence[Ask]) -> None:
    """Build what the runs would train and load their data, so that a bad value is refused before anything trains.

    Of runs that differ in seeds, and in numbers of their optimizer, those with the smallest and the largest seed are
    checked as a whole, and of the others each distinct optimizer.

    Args:
        jobs: to train.
        asks: the measures that they are to take.

    Raises:
        ConfigError: one line a distinct problem.
    """
    from hw1.measures.take import check
    from hw1.training import build

    def whole(job: Job) -> None:
        build.validate(job.settings, job.folder, job.overrides)
        if asks:
            check(asks, job.settings, _parameters(job.settings))

    problems: dict[str, None] = {}
    done = 0
    for alike in _alike(jobs, lambda plain: _without_numbers(without(deciding(plain), ["seed"]))):
        by_seed = sorted(alike, key=lambda job: job.settings.seed)
        ends = {job.key: job for job in (by_seed[0], by_seed[-1])}
        checks: list[tuple[Callable[[Job], None], Job]] = [(whole, job) for job in ends.values()]
        optimizer = _optimizer_check(alike[0].settings)
        own = _alike(alike, lambda plain: plain["optimizer"])
        checks += [(optimizer, group[0]) for group in own if not any(job.key in ends for job in group)]
        for function, job in checks:
            try:
                function(job)
            except ConfigError as error:
                problems[str(error)] = None
        done += len(alike)
        at(done, len(jobs))
    if problems:
        raise ConfigError("\n".join(problems))


def _optimizer_check(like: RunSettings) -> Callable[[Job], None]:
    """A check of the optimizer alone, of runs whose networks are like those of one."""
    net = functools.cache(lambda: _network(like))

    def check(job: Job) -> None:
        from hw1.training.optimization import trial_optimizer

        trial_optimizer(job.settings, net())

    return check


def _alike(jobs: Sequence[Job], part: Callable[[Mapping[str, Any]], Any]) -> list[list[Job]]:
    """The jobs by a part of their settings, in the order of the command."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        text = json.dumps(part(job.settings.plain), sort_keys=True, default=str)
        groups.setdefault(text, []).append(job)
    return list(groups.values())


def _without_numbers(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with nothing but the kind of each number of the optimizer: 0.1 and 1e-3 are one to the others."""
    node = settings.get("optimizer")
    if not isinstance(node, Mapping):
        return settings
    numbers = {name: type(value).__name__ if type(value) in (int, float) else value for name, value in node.items()}
    return {**settings, "optimizer": numbers}


def _network(settings: RunSettings) -> Any:
    """One of the run's networks, without its numbers."""
    import torch

    from hw1.training import build

    with torch.device("meta"):
        return build.single_network(settings, build.datamodule(settings.dataset))


def _parameters(settings: RunSettings) -> int:
    """P, of one member."""
    return sum(parameter.numel() for parameter in _network(settings).parameters())

"""Finished sweeps of experiments as they stand: what the tables of results and claims are made of. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw1.runs import Sweep
from hw1.studies.headlines import Headline

# Words that leave an experiment what it is: how often, how fast, where to, and what is measured of it afterwards.
_HARMLESS = (
    *("experiment", "budget", "seed", "replicas", "output", "logger", "measures", "dataset.root", "dataset.source"),
    *("hydra/launcher", "hydra.launcher.n_jobs", "hydra.launcher.workers", "hydra.launcher.memory_per_worker"),
    *(
        "dataset.workers",
        "dataset.eval_batch_size",
        "trainer.threads",
        "trainer.progress",
        "trainer.checkpoint_seconds",
    ),
)
# Of those, words that a reader needs not type to get the same.
_PRIVATE = ("output", "logger", "dataset.root", "dataset.workers", "dataset.eval_batch_size", "trainer.progress")
_LINE = re.compile(r"(.*) = (\S+) \[(\S+), (\S+)\], n = (\d+)")


@dataclass(frozen=True)
class Finished:
    """A complete sweep of an experiment.

    Attributes:
        sweep: it.
        budget: the name of its budget.
        seeds: number of different seeds, members counted.
        first: the lowest of them.
        seconds: training time of its runs, one after the other.
        commit: of the checkout that trained them; several are joined by a space.
        numbers: the study's headlines.
    """

    sweep: Sweep
    budget: str
    seeds: int
    first: int
    seconds: float
    commit: str
    numbers: list[Headline]

    @property
    def command(self) -> str:
        """The command as a reader would type it."""
        words = [word for word in self.sweep.record["command"] if word.partition("=")[0] not in _PRIVATE]
        words = [word for word in words if word != "trainer.threads=1"]  # the default, which CNNs did not always have
        return " ".join(["python train.py", *words])


def changing(words: Iterable[str]) -> list[str]:
    """Of a command's words those that change what the experiment is.

    Example:
        >>> changing(["seed=0,1", "init=shared"])
        ['init=shared']
    """
    keys = ((word, word.lstrip("+").partition("=")[0]) for word in words)
    return [word for word, key in keys if key not in _HARMLESS and not key.startswith("measures.")]


def first_seed(words: Iterable[str]) -> int:
    """The lowest seed of a command, 0 where it names none.

    Example:
        >>> first_seed(["experiment=min_ratio", "seed=5,6,7"]), first_seed(["replicas=10"])
        (5, 0)
    """
    values = [word.partition("=")[2] for word in words if word.startswith("seed=")]
    return min((int(seed) for value in values for seed in value.split(",")), default=0)


def command_of(experiment: str) -> str:
    """The command of an experiment's default."""
    return f"python train.py experiment={experiment}"


def finished(output: Path, also: Collection[str] = (), first: int = 0) -> dict[str, Finished]:
    """The sweep that speaks for each experiment, of those below `output`.

    Args:
        output: where sweeps are.
        also: words that a command must have besides; those of the experiment as it stands have none.
        first: the lowest seed that there may be: those below have been looked at before.

    A sweep counts if it is complete, its command changes nothing of the experiment but its seeds and its budget, and
    at full budget its data are whole: the bundled digits, which stand in where nothing can be downloaded, are not.
    Of several the full budget wins, then the larger number of seeds, then the latest.
    """
    best: dict[str, tuple[tuple[bool, int, str], Finished]] = {}
    for file in sorted(output.glob("*/sweeps/*/sweep.json")):
        try:
            sweep = Sweep.read(file)
        except ValueError:  # a damaged record speaks for nothing
            continue
        words = dict(word.lstrip("+").partition("=")[::2] for word in sweep.record["command"])
        experiment = words.get("experiment")
        harmless = set(changing(sweep.record["command"])) == set(also)
        if sweep.record.get("status") != "complete" or not experiment or not harmless or not sweep.runs:
            continue
        one = _finished(sweep)
        if one.first < first:
            continue
        if one.budget == "full" and any(run.result.get("dataset", {}).get("source") == "bundled" for run in sweep.runs):
            continue
        rank = (one.budget == "full", one.seeds, file.parent.name)
        if experiment not in best or rank > best[experiment][0]:
            best[experiment] = rank, one
    return {experiment: one for experiment, (_, one) in best.items()}


def _finished(sweep: Sweep) -> Finished:
    results = [run.result for run in sweep.runs]
    seeds = {run.settings.seed + member for run in sweep.runs for member in range(run.count)}
    return Finished(
        sweep,
        str(sweep.record.get("budget", "full")),
        len(seeds),
        min(seeds),
        sum(float(result.get("seconds", 0)) for result in results),
        " ".join(sorted({str(result["git"]) for result in results if result.get("git")})),
        _numbers(sweep.record),
    )


def _numbers(record: Mapping[str, Any]) -> list[Headline]:
    """A study's headlines; a record from before they were kept as numbers has their lines."""
    if "numbers" in record:
        return [Headline(**number) for number in record["numbers"]]
    lines = (_LINE.fullmatch(line) for line in record.get("headlines", []))
    return [Headline(line[1], float(line[2]), float(line[3]), float(line[4]), int(line[5])) for line in lines if line]


def named(pattern: str, numbers: Sequence[Headline]) -> Headline | None:
    """The first headline whose name is `pattern`, where * stands for anything.

    Example:
        >>> named("barrier*64-1024", [Headline("barrier lr=0.1 64-1024", 1.0, 0.5, 1.5, 3)]).value
        1.0
    """
    expression = re.compile(".*".join(re.escape(part) for part in pattern.split("*")))
    return next((number for number in numbers if expression.fullmatch(number.name)), None)


def short(value: float) -> str:
    """A number for a table; nothing for one that is not there."""
    return "" if value != value else f"{value:.4g}"

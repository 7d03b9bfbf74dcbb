"""The runs that one command asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.records import read_record
from hw1.runs.measured import Ask, Measured, asks_in
from hw1.runs.member import Member
from hw1.runs.run import Run
from hw1.runs.standing import named_runs, sweep_status
from hw1.settings.about import About

if TYPE_CHECKING:
    import pandas as pd

Cell = int | float | str


@dataclass(frozen=True)
class Sweep:
    """The runs that one command asked for.

    Attributes:
        path: `multirun/<name>/sweeps/<time>`.
        record: the content of its sweep.json.
        runs: its runs, finished or not, in the order of the command.
    """

    path: Path
    record: dict[str, Any]
    runs: list[Run] = field(default_factory=list)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Sweep:
        """Read a sweep by its folder or sweep.json; by the folder of an experiment, its latest one.

        Of the runs that its record names, those are read that are folders in `runs`; see `named_runs`.

        Raises:
            FileNotFoundError: there is no sweep.json.
            DamagedError: it is not what was written.
        """
        folder = Path(path)
        if folder.name == "sweep.json":
            folder = folder.parent
        if not (folder / "sweep.json").is_file():
            sweeps = sorted(folder.glob("sweeps/*/sweep.json"))
            if not sweeps:
                raise FileNotFoundError(f"no sweep.json in {folder}, nor in {folder}/sweeps/*")
            folder = sweeps[-1].parent
        record = read_record(folder / "sweep.json")
        if not {"name", "runs", "swept", "study", "command"} <= set(record):
            raise ValueError(f"{folder / 'sweep.json'} is not the record of a sweep; delete its folder")
        runs = folder.parent.parent / "runs"
        folders = [runs / name for name, _ in named_runs(record)]
        return cls(folder, record, [Run(run) for run in folders if (run / "config.yaml").is_file()])

    @property
    def keys(self) -> list[str]:
        """The dotted keys that were swept, the seed among them if it was."""
        return list(self.record["swept"])

    @property
    def about(self) -> About:
        """What the experiment says of itself, its name where it has no title."""
        about = About.of(self.record.get("about"))
        return about if about.title else replace(about, title=str(self.record["name"]))

    @property
    def status(self) -> str:
        """`running`, `complete`, `failed`, or `interrupted`: also where a killed command left the word `running`."""
        return sweep_status(self.path, self.record)

    @property
    def asks(self) -> list[Ask]:
        """The measures that were asked for: the command's own, then those taken later."""
        return asks_in(self.record)

    def cell(self, run: Run, key: str) -> Cell:
        """A run's setting as it stands in a table: a number or text. A group is its option, null is `null`."""
        value = run.value(key)
        if isinstance(value, dict):
            words = self._words.get(run.path.name, [])
            named = [word.partition("=")[2] for word in words if word.lstrip("+").startswith(f"{key}=")]
            return named[-1] if named else str(value)
        if value is None:
            return "null"
        return value if isinstance(value, int | float | str) else str(value)

    @cached_property
    def _words(self) -> dict[str, list[str]]:
        """The overrides of each run, by its folder."""
        return {name: list(words) for name, words in named_runs(self.record)}

    def cells(self, run: Run, member: int = 0) -> dict[str, Cell]:
        """The swept keys and what a member has there; a swept seed is its own."""
        own = {key: self.cell(run, key) for key in self.keys}
        return own | ({"seed": run.settings.seed + member} if "seed" in own else {})

    def members(self) -> Iterator[Member]:
        """Every network of every complete run, in the order of the command."""
        for run in self.complete().runs:
            measured = self._measured(run)
            for number in range(run.count):
                found = {name: values[number] for name, values in measured.items()}
                yield Member(run, number, self.cells(run, number), {**run.metrics(number), **found})

    def measured(self, run: Run, name: str) -> Measured | None:
        """What the first measure asked for by this name found on a run; None where there is nothing."""
        ask = next((ask for ask in self.asks if ask.name == name), None)
        return run.measured(ask) if ask else None

    def _measured(self, run: Run) -> dict[str, list[float]]:
        """What all measures found on a run, {column: [R]}."""
        found: dict[str, list[float]] = {}
        for ask in self.asks:
            if measured := run.measured(ask):
                found |= {f"{column}{ask.label}": list(values) for column, values in measured.values.items()}
        return found

    def columns(self) -> dict[str, dict[str, str]]:
        """Label, unit and error column of all that measures found on these runs, by the name of its column."""
        found: dict[str, dict[str, str]] = {}
        for run in self.complete().runs:
            for ask in self.asks:
                if measured := run.measured(ask):
                    for name, told in measured.columns.items():
                        error = told["error"] and f"{told['error']}{ask.label}"
                        label = " ".join(part for part in (told["label"], ask.label) if part)
                        found.setdefault(f"{name}{ask.label}", {**told, "label": label, "error": error})
        return found

    def select(self, **values: Any) -> Sweep:
        """The runs with these settings: `sweep.select(**{"optimizer.lr": 1e-3}, seed=1)`."""
        runs = [
            run
            for run in self.runs
            if all(value in (run.value(key), self.cell(run, key)) for key, value in values.items())
        ]
        return Sweep(self.path, self.record, runs)

    def complete(self) -> Sweep:
        """The runs that have ended well."""
        return Sweep(self.path, self.record, [run for run in self.runs if run.status == "complete"])

    def table(self, *metrics: str) -> pd.DataFrame:
        """One row a run, or a member: the swept keys, seed, status, and the named metrics (all if none is named).

        Metrics are the final ones of the training, and what measures found.

        Raises:
            ValueError: no run has a metric of that name.
        """
        import pandas as pd

        measured = {run.path.name: self._measured(run) for run in self.runs}
        known = {name for run in self.runs for name in (*run.result.get("metrics", {}), *measured[run.path.name])}
        if unknown := [name for name in metrics if known and name not in known]:
            raise ValueError(f"metrics: got {', '.join(unknown)}, expected some of {', '.join(sorted(known))}")
        rows = []
        for run in self.runs:
            result = run.result
            for member in range(run.count):
                values = run.metrics(member)
                values |= {name: found[member] for name, found in measured[run.path.name].items()}
                rows.append(
                    {
                        "run": run.path.name,
                        **({"member": member} if run.count > 1 else {}),
                        **self.cells(run, member),
                        "seed": run.settings.seed + member,
                        "status": run.status,
                        **{name: values.get(name) for name in metrics or values},
                        "parameters": result.get("parameters"),
                        "seconds": result.get("seconds"),
                        "source": result.get("dataset", {}).get("source"),
                    }
                )
        return pd.DataFrame(rows)

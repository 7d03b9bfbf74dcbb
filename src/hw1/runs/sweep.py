"""The runs that one command asked for."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.inside import refuse_links
from hw1.metrics import label
from hw1.records import DamagedError, read_record
from hw1.runs import tables
from hw1.runs.measured import Ask, Measured, asks_in
from hw1.runs.member import Member
from hw1.runs.run import Run
from hw1.runs.shown import as_html, as_text, rows_of_sweep
from hw1.runs.standing import named_runs, sweep_status
from hw1.settings import ConfigError
from hw1.settings.about import About
from hw1.settings.paths import meant, paths
from hw1.trust.owner import why_not_own_record
from hw1.words import count

if TYPE_CHECKING:
    import pandas as pd

Cell = int | float | str

_SWEEPS = "multirun/*/sweeps/*/sweep.json"

_UNNAMED = "default"  # of conf/train.yaml, where neither an experiment nor a word says a name


def _swept_in_words(keys: Sequence[str]) -> str:
    """What was swept, as a title; "" where nothing was.

    Example:
        >>> _swept_in_words(["optimizer.lr", "dataset.batch_size", "seed"]), _swept_in_words(["seed"])
        ('learning rate and batch size', 'seeds')
    """
    *most, last = [label(key) for key in keys if key != "seed"] or [""]
    return f"{', '.join(most)} and {last}" if most else last or "seeds" * ("seed" in keys)


def _meant(folder: Path) -> str:
    """What to look at in place of a folder without sweeps."""
    beside = sorted(path.parents[2] for path in (*folder.parent.glob("*/sweeps/*/sweep.json"), *Path().glob(_SWEEPS)))
    close = difflib.get_close_matches(folder.name, [path.name for path in beside], 1)
    found = [path for path in beside if path.name in close]
    return f"did you mean {found[0]}?" if found else "hw1 list PATH says which sweeps there are"


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
    def read(cls, path: str | os.PathLike[str], trust: Sequence[str] = ()) -> Sweep:
        """Read a sweep by its folder or sweep.json; by the folder of an experiment, its latest one.

        Of the runs that its record names, those are read that are folders in `runs`; see `named_runs`.

        Args:
            path: of it.
            trust: modules of yours that runs which are not yours may name, as ["my_models"].

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
                hint = _meant(folder)
                raise FileNotFoundError(f"no sweep.json in {folder}, nor in {folder}/sweeps/*; {hint}")
            folder = sweeps[-1].parent
        refuse_links(folder)
        record = read_record(folder / "sweep.json")
        if not {"name", "runs", "swept", "study", "command"} <= set(record):
            raise DamagedError(f"{folder / 'sweep.json'} is not the record of a sweep; delete its folder")
        runs = folder.parent.parent / "runs"
        folders = [runs / name for name, _ in named_runs(record)]
        return cls(folder, record, [Run(run, trust=trust) for run in folders if (run / "config.yaml").is_file()])

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())

    def _shown(self) -> tuple[str, list[dict[str, Any]]]:
        """What it says of itself, and a row for each network: swept keys, seed, status, metrics, measures."""
        asked = len(self.record.get("runs", self.runs))
        number = count(asked, "run") if len(self.runs) == asked else f"{len(self.runs)} of {count(asked, 'run')}"
        return f"Sweep({str(self.path)!r}): {self.status}, {number}", rows_of_sweep(self)

    @property
    def keys(self) -> list[str]:
        """The dotted keys that were swept, the seed among them if it was."""
        return list(self.record["swept"])

    @property
    def about(self) -> About:
        """What the experiment says of itself; where it has no title its name, and what was swept if no study asks."""
        about, name = About.of(self.record.get("about")), str(self.record["name"])
        if about.title:
            return about
        words = "" if self.record.get("study") else _swept_in_words(self.keys)
        if words and name == _UNNAMED:
            return replace(about, title=words[:1].upper() + words[1:])
        return replace(about, title=f"{name}: {words}" if words else name)

    @property
    def status(self) -> str:
        """`running`, `complete`, `failed`, or `interrupted`: also where a killed command left the word `running`."""
        return sweep_status(self.path, self.record)

    @property
    def why_not_own(self) -> str:
        """Why its record is a stranger's to you, and what makes it yours; "" where it is your own."""
        return why_not_own_record(self.path / "sweep.json")

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
            measured = self.found_on(run)
            for number in range(run.count):
                found = {name: values[number] for name, values in measured.items()}
                yield Member(run, number, self.cells(run, number), {**run.metrics(number), **found})

    def measured(self, run: Run, name: str) -> Measured | None:
        """What the first measure asked for by this name found on a run; None where there is nothing."""
        ask = next((ask for ask in self.asks if ask.name == name), None)
        return run.measured(ask) if ask else None

    def found_on(self, run: Run) -> dict[str, list[float]]:
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

    def select(self, settings: Mapping[str, Any] | None = None, /, **values: Any) -> Sweep:
        """The runs with these settings; a seed is that of any member.

        Args:
            settings: values by dotted key: `sweep.select({"optimizer.lr": 1e-3}, seed=1)`.
            **values: of keys without a dot.

        Raises:
            ConfigError: no run has such a setting, or none that is left has the value.
        """
        runs, before = list(self.runs), list[str]()
        for key, value in {**(settings or {}), **values}.items():
            known = sorted({one for run in self.runs for one in paths(run.settings.plain)})
            if runs and key not in known:
                close = meant(key, known)
                hint = f"; did you mean {close}?" if close else f"; swept are {', '.join(self.keys) or 'none'}"
                raise ConfigError(f"{key}: got a setting that none of these runs has{hint}")
            left = [run for run in runs if self._has(run, key, value)]
            if runs and not left:
                there = dict.fromkeys(str(cell) for run in runs for cell in self._values(run, key))
                where = f" of those with {', '.join(before)}" if before else ""
                raise ConfigError(f"{key}: got {value!r}, expected what a run{where} has: {', '.join(there)}")
            runs = left
            before.append(f"{key}={value}")
        return Sweep(self.path, self.record, runs)

    def _has(self, run: Run, key: str, value: Any) -> bool:
        return value in (run.value(key), *self._values(run, key))

    def _values(self, run: Run, key: str) -> list[Cell]:
        """What a run has of a key in a table, of all its members."""
        return [run.settings.seed + i for i in range(run.count)] if key == "seed" else [self.cell(run, key)]

    def complete(self) -> Sweep:
        """The runs that have ended well."""
        return Sweep(self.path, self.record, [run for run in self.runs if run.status == "complete"])

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of the study and of the runs, as the command wrote them, by name; {} before it has ended.

        They are of the whole sweep, also where runs were selected.

        Raises:
            DamagedError: a file is not what was written.
        """
        return tables.of_study(self)

    @property
    def figures(self) -> list[Path]:
        """The figures of the study, as PNG; the same stand beside them as SVG."""
        return tables.files_of(self, ".png")

    @property
    def answer(self) -> list[str]:
        """What came out, in the sentences of the page; [] of a study without words of its own, or without a study."""
        return [str(sentence) for sentence in self.record.get("answer", [])]

    def history(self, *metrics: str) -> pd.DataFrame:
        """The histories of all runs in one table: run, member, swept keys, seed, epoch, step, then the metrics.

        Args:
            *metrics: those to keep; all if none is named. Rows without a value of any of them are left out.

        Raises:
            ConfigError: no run has a metric of that name.
            DamagedError: a history is not what a finished run wrote.
        """
        return tables.histories(self, *metrics)

    def measures(self, name: str | None = None) -> pd.DataFrame:
        """What measures found: run, member, swept keys, seed, and their columns, one row a network.

        Args:
            name: of a measure that has a longer table, as `spectrum`: that table, several rows a network.

        Raises:
            ConfigError: no measure of that name was asked for.
        """
        return tables.found_by_measures(self, name)

    def table(self, *metrics: str) -> pd.DataFrame:
        """One row a run, or a member: the swept keys, seed, status, and the named metrics (all if none is named).

        Metrics are the final ones of the training, and what measures found.

        Raises:
            ConfigError: no run has a metric of that name.
        """
        return tables.final(self, *metrics)

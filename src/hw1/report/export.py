"""All runs as one tidy table, a row a run and member: settings, metrics, and what measures found. No torch."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.cells import guarded_table
from hw1.files import replacing
from hw1.runs import Ask, Run, asks_in, read_measured
from hw1.runs.inventory import Experiment, Filter, flat, inventory, selected
from hw1.runs.standing import COMPLETE, MEASURING, Standing
from hw1.settings import ConfigError
from hw1.settings.identity import deciding, without
from hw1.words import printable

if TYPE_CHECKING:
    import pandas as pd

CSV, PARQUET = ".csv", ".parquet"
NO_PARQUET = "Parquet needs pyarrow, which is not installed: pip install pyarrow"
_DATA = {"data": "name", "source": "source", "n_train": "train"}  # column -> entry of a result's dataset

Row = dict[str, dict[str, Any]]  # part of the table -> column -> cell


def tidy(path: Path, words: Sequence[str]) -> pd.DataFrame:
    """The table of all runs below a path, finished or not; an empty cell is one that a run does not have.

    Columns are, in this order: what tells a row from others (experiment, run, member, seed, status, ...), settings by
    dotted key, where the class that a group builds stands under the group's name, metrics by name, columns of measures
    by name (those of a second measure of the same name with its digest in brackets), and circumstances.

    Args:
        path: a folder of results, an experiment, a sweep or a run.
        words: filters, as for `list`.

    Raises:
        ConfigError: a word is no filter, or a sweep.json asks for what is no measure.
        FileNotFoundError: there is no such folder.
    """
    import pandas as pd

    filters = [Filter.of(word) for word in words]
    found = inventory(path)
    chosen = {run.folder for run in selected([run for one in found for run in one.runs], filters)}
    rows: list[Row] = []
    for experiment in found:
        asks = _asks(experiment)
        for standing in experiment.runs:
            if standing.folder in chosen:
                rows += _rows(standing, asks)
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        for part, cells in row.items():
            names.setdefault(part, {}).update(dict.fromkeys(cells))
    order = dict.fromkeys(
        name for part in ("id", "settings", "metrics", "measures", "circumstances") for name in names.get(part, ())
    )
    table = pd.DataFrame(
        [{name: cell for cells in row.values() for name, cell in cells.items()} for row in rows], columns=list(order)
    )
    table = table.convert_dtypes()
    for name in table.select_dtypes("object"):  # numbers beside text
        table[name] = table[name].map(str, na_action="ignore").astype("string")
    return table


def export(table: pd.DataFrame, file: Path) -> None:
    """Write a table as CSV or Parquet, whole or not at all.

    Raises:
        ConfigError: its name ends with neither, or there is nothing that writes Parquet.
    """
    if file.suffix not in (CSV, PARQUET):
        raise ConfigError(f"output: got {file}, expected a name that ends with {CSV} or {PARQUET}")
    if file.suffix == PARQUET and not writes_parquet():
        raise ConfigError(f"output: got {file}, expected {file.with_suffix(CSV)}: {NO_PARQUET}")
    with replacing(file) as temporary:
        if file.suffix == CSV:
            guarded_table(table).to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False, engine="pyarrow")


def writes_parquet() -> bool:
    """Whether there is something that writes Parquet."""
    return importlib.util.find_spec("pyarrow") is not None


def _asks(experiment: Experiment) -> list[Ask]:
    """All measures that the experiment's sweeps ask for, each once."""
    found: dict[str, Ask] = {}
    for sweep in experiment.sweeps:
        if sweep.reason:  # which measures there are is not known
            raise ConfigError(sweep.reason)
        for ask in asks_in(sweep.record):
            found.setdefault(ask.file(Path()).name, ask)
    return list(found.values())


def _rows(standing: Standing, asks: Sequence[Ask]) -> list[Row]:
    """The rows of a run, one a member."""
    run = standing.run
    result: Mapping[str, Any] = {}
    if run is not None and standing.status in (COMPLETE, MEASURING):
        result = run.result
    settings = {} if run is None else flat(without(deciding(run.settings.plain), ["seed"]))
    measured = {} if run is None or not result else _measured(run, asks)
    dataset, versions = (_mapping(result.get(name)) for name in ("dataset", "versions"))
    rows = []
    for member in range(run.count if run is not None else 1):
        own = {
            "experiment": standing.experiment,
            "run": standing.folder.name,
            "member": member,
            "seed": None if run is None else run.settings.seed + member,
            "status": standing.status,
            "error": standing.reason or None,
            "sweeps": " ".join(standing.sweeps) or None,
        }
        circumstances = {
            **{name: result.get(name) for name in ("parameters", "epochs", "seconds")},
            **{column: dataset.get(name) for column, name in _DATA.items()},
            **{name: versions.get(name) for name in ("hw1", "torch")},
            "commit": result.get("git"),
            "ended": result.get("time"),
        }
        metrics = run.metrics(member) if run is not None and result else {}
        row: Row = {
            "id": own,
            "settings": settings,
            "metrics": metrics,
            "measures": {name: values[member] for name, values in measured.items()},
            "circumstances": circumstances,
        }
        rows.append(
            {part: {printable(name): _cell(cell) for name, cell in cells.items()} for part, cells in row.items()}
        )
    return rows


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _measured(run: Run, asks: Iterable[Ask]) -> dict[str, Sequence[float]]:
    """What measures found on a run, [R] values by column."""
    found: dict[str, Sequence[float]] = {}
    for ask in asks:
        file = ask.file(run.path)
        measured = read_measured(file)
        if measured is None or measured.error:
            continue
        for column, values in measured.values.items():
            name = f"{column}{ask.label}"
            if len(values) == run.count:
                found[f"{name}[{file.stem.rpartition('-')[2]}]" if name in found else name] = values
    return found


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))

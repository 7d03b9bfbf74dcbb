"""Runs and sweeps as DataFrames: final metrics, histories, what measures found, the study's tables. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw1.cells import original_table
from hw1.inside import inside
from hw1.records import DamagedError
from hw1.runs.measured import read_measured
from hw1.settings import ConfigError
from hw1.stored_csv import read_csv
from hw1.training.contents import difference
from hw1.typed import program

if TYPE_CHECKING:
    import pandas as pd

    from hw1.runs.run import Run
    from hw1.runs.sweep import Sweep


def final(sweep: Sweep, *metrics: str) -> pd.DataFrame:
    """See `Sweep.table`."""
    import pandas as pd

    measured = {run.path.name: sweep.found_on(run) for run in sweep.runs}
    known = {name for run in sweep.runs for name in (*run.result.get("metrics", {}), *measured[run.path.name])}
    _refuse_unknown(metrics, sorted(known))
    rows = []
    for run in sweep.runs:
        result = run.result
        for member in range(run.count):
            values = run.metrics(member)
            values |= {name: found[member] for name, found in measured[run.path.name].items()}
            rows.append(
                {
                    **_front(sweep, run, member, run.count > 1),
                    "status": run.status,
                    **{name: values.get(name) for name in metrics or values},
                    "parameters": result.get("parameters"),
                    "seconds": result.get("seconds"),
                    "source": result.get("dataset", {}).get("source"),
                }
            )
    return pd.DataFrame(rows)


def histories(sweep: Sweep, *metrics: str) -> pd.DataFrame:
    """See `Sweep.history`."""
    import pandas as pd

    several = any(run.count > 1 for run in sweep.runs)
    frames = []
    for run in sweep.runs:
        if not (run.path / "metrics.csv").is_file():  # it has not begun
            continue
        whole = run.history()
        for member in range(run.count):
            own = whole[whole["member"] == member].drop(columns="member") if "member" in whole else whole
            front = pd.DataFrame(_front(sweep, run, member, several), index=own.index)
            frames.append(pd.concat([front, own], axis=1))
    if not frames:
        return pd.DataFrame()
    joined = pd.concat(frames, ignore_index=True)
    if metrics:
        end = list(joined).index("step") + 1
        _refuse_unknown(metrics, list(joined)[end:])
        joined = joined[[*list(joined)[:end], *metrics]].dropna(subset=list(metrics), how="all", ignore_index=True)
    return joined


def found_by_measures(sweep: Sweep, name: str | None = None) -> pd.DataFrame:
    """See `Sweep.measures`."""
    import pandas as pd

    known = list(dict.fromkeys(ask.name for ask in sweep.asks))
    if name is not None and name not in known:
        raise ConfigError(f"measures: got {name}, expected one that was asked for: {', '.join(known) or 'none was'}")
    several = any(run.count > 1 for run in sweep.runs)
    rows: list[dict[str, Any]] = []
    for run in sweep.complete().runs:
        found, longer = sweep.found_on(run), sweep.measured(run, name) if name else None
        for member in range(run.count):
            front = _front(sweep, run, member, several)
            if name is None:
                rows.append({**front, **{column: values[member] for column, values in found.items()}})
            for row in longer.rows if longer is not None else ():
                if row.get("member", 0) == member:
                    rows.append({**front, **{key: value for key, value in row.items() if key != "member"}})
    return pd.DataFrame(rows)


def measured_on(run: Run) -> pd.DataFrame:
    """See `Run.measures`."""
    import pandas as pd

    found: dict[str, Sequence[float]] = {}
    for file in sorted((run.path / "measures").glob("*.json")):
        measured = read_measured(file)
        for column, values in measured.values.items() if measured is not None and not measured.error else ():
            name = f"{column}[{file.stem.rpartition('-')[2]}]" if column in found else column
            if len(values) == run.count:
                found[name] = values
    members = range(run.count)
    return pd.DataFrame({"member": list(members), "seed": [run.settings.seed + i for i in members], **found})


def of_study(sweep: Sweep) -> dict[str, pd.DataFrame]:
    """See `Sweep.tables`."""
    return {file.stem: original_table(read_csv(file)) for file in files_of(sweep, ".csv")}


def files_of(sweep: Sweep, suffix: str) -> list[Path]:
    """Files that a sweep's command made, those with this end.

    Raises:
        DamagedError: one is not what was written.
    """
    listed = sweep.record.get("files") or {}
    files = [inside(sweep.path, name) for name in listed if str(name).endswith(suffix)]
    for file in files:
        size, sha256 = listed[file.name] if isinstance(listed, Mapping) else (None, None)  # of an earlier version
        if size is not None and (problem := difference(file, size, sha256)):
            raise DamagedError(f"{problem}; {program()} report {sweep.path} makes it again")
    return files


def _front(sweep: Sweep, run: Run, member: int, several: bool) -> dict[str, Any]:
    """What tells a row from others."""
    own = {"run": run.path.name, **({"member": member} if several else {}), **sweep.cells(run, member)}
    return {**own, "seed": run.settings.seed + member}


def _refuse_unknown(metrics: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in metrics if known and name not in known]:
        raise ConfigError(f"metrics: got {', '.join(unknown)}, expected some of {', '.join(sorted(known))}")

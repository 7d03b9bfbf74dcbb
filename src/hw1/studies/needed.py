"""What studies need of their runs, refused in one line where it is not there: kinds of data, measures. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hw1.kinds import Kind
from hw1.settings import ConfigError
from hw1.settings.construct import target_of

if TYPE_CHECKING:
    from hw1.runs import Measured, Member, Run, Sweep
    from hw1.settings import RunSettings


def require_kind(runs: Sequence[RunSettings], kind: Kind, instead: str) -> None:
    """Refuse data of another kind, before anything trains.

    Args:
        runs: the settings of the planned runs.
        kind: what their targets must be.
        instead: what is wrong with others, and the remedy.

    Raises:
        ConfigError: a run has such.
    """
    for run in {str(run.dataset): run for run in runs}.values():
        declared = getattr(target_of(run.dataset, "dataset"), "kind", None)
        if declared == kind:
            continue
        from hw1.training import build

        data = build.datamodule(run.dataset)
        if data.kind != kind:
            raise ConfigError(f"dataset: got {data.name}, {instead}")


def require_measure(runs: Sequence[RunSettings], measure: str, *others: str) -> None:
    """Refuse runs of which a measure is not taken, before anything trains.

    Args:
        runs: the settings of the planned runs.
        measure: its name.
        others: what the remedy names besides.

    Raises:
        ConfigError: there is one.
    """
    for run in runs:
        if measure not in run.measures:
            names = dict.fromkeys([*run.measures, measure, *others])
            raise ConfigError(
                f"measures: got {', '.join(run.measures) or 'none'}, expected {measure} among them: "
                f"measures=[{','.join(names)}]"
            )


def found_by(measure: str, run: Run, sweep: Sweep) -> Measured:
    """What a measure of a sweep found on one of its runs.

    Raises:
        ConfigError: it was not taken, or it failed.
    """
    measured = sweep.measured(run, measure)
    if measured is None:
        raise _missing(measure, run)
    return measured


def value_of(column: str, member: Member) -> float:
    """What a measure found of a member, in one of its columns.

    Raises:
        ConfigError: it was not taken, or it failed.
    """
    if column not in member.metrics:
        raise _missing(column.partition("/")[0], member.run)
    return member.metrics[column]


def columns_of(sweep: Sweep) -> list[str]:
    """The columns that measures found on a sweep's runs, those of standard errors among them."""
    told = sweep.columns()
    return list(dict.fromkeys(name for own, column in told.items() for name in (own, column["error"]) if name))


def _missing(measure: str, run: Run) -> ConfigError:
    return ConfigError(f"measures: got nothing of {measure} on {run.path}; run the command again to take it")

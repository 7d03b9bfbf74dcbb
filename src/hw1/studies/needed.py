"""What studies need of their runs, refused in one line where it is not there: data, measures, callbacks. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hw1.kinds import Kind
from hw1.settings import ConfigError
from hw1.settings.construct import target_of

if TYPE_CHECKING:
    from hw1.runs import Measured, Run, Sweep
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


def require_weights(settings: RunSettings, layer: str | None, filters: Sequence[str]) -> None:
    """Refuse a run whose network has not the weights that a study asks for, before anything trains.

    Args:
        settings: of the planned run.
        layer: name of a weight matrix; None for none.
        filters: names of convolutions' weights.

    Raises:
        ConfigError: names what there is.
    """
    import torch

    from hw1.training import build

    with torch.device("meta"):
        net = build.single_network(settings, build.datamodule(settings.dataset))
    dimensions = {name: parameter.dim() for name, parameter in net.named_parameters()}
    asked = [("layer", layer, "matrices", 2)] if layer is not None else []
    for setting, name, kind, least in [*asked, *(("filters", name, "kernels", 4) for name in filters)]:
        known = [name for name, dimension in dimensions.items() if dimension >= least]
        if name not in known:
            raise ConfigError(
                f"study.{setting}: got {name}, expected one of the weight {kind} of these networks, "
                f"{', '.join(known) or 'which have none'}"
            )


def keeping(what: str, run: RunSettings) -> list[str]:
    """Names of a run's callbacks whose class says that it keeps something: `snapshots` or `gradient_norms`."""
    return [name for name, node in run.callbacks.items() if getattr(target_of(node, f"callbacks.{name}"), what, False)]


def found_on(sweep: Sweep, measure: str) -> dict[Run, Measured]:
    """What a measure found on each complete run; those of which it was not taken, or failed, are left out.

    Raises:
        ConfigError: no complete run has it.
    """
    runs = sweep.complete().runs
    found = {run: measured for run in runs if (measured := sweep.measured(run, measure)) is not None}
    if runs and not found:
        others = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        raise ConfigError(
            f"measures: got nothing of {measure} on {runs[0].path}{others}; run the command again to take it"
        )
    return found


def columns_found(sweep: Sweep) -> list[str]:
    """The columns that measures found on a sweep's runs, those of standard errors among them."""
    told = sweep.columns()
    return list(dict.fromkeys(name for own, column in told.items() for name in (own, column["error"]) if name))

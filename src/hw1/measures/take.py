"""Taking measures of finished runs: what is missing, and the measurements themselves. No torch until it measures."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock

from hw1.measures.protocol import Finding, Measure, Subject, Weights
from hw1.runs.measured import Ask, Measured, read_measured, write_measured
from hw1.runs.run import Run
from hw1.runs.weights import file_digest, snapshot_files
from hw1.seeds import digest
from hw1.settings import ConfigError, RunSettings
from hw1.settings.construct import call
from hw1.settings.run_settings import SQUARED_GRADIENT_NORM

if TYPE_CHECKING:
    from hw1.data import DataModule


def make(ask: Ask) -> Measure:
    """The measure of a config node.

    Raises:
        ConfigError: an unknown setting or a refused value, by its key.
    """
    return cast(Measure, call(ask.node, f"measures.{ask.name}"))


def asks_of(measures: Mapping[str, Mapping[str, Any]]) -> list[Ask]:
    """The config group `measures` as what is asked for."""
    return [Ask(name, node) for name, node in measures.items()]


def epochs_wanted(asks: Sequence[Ask], settings: RunSettings) -> set[int]:
    """Completed epochs whose weights the measures need besides those at the end."""
    return {epoch for ask in asks for epoch in make(ask).epochs(settings)}


def check(asks: Sequence[Ask], settings: RunSettings, parameters: int) -> None:
    """Refuse what a measure cannot be taken of.

    Raises:
        ConfigError: names the measure's setting.
    """
    for ask in asks:
        try:
            make(ask).check(settings, parameters)
        except ValueError as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"measures.{ask.name}.{error}") from error


def missing(run: Run, asks: Sequence[Ask]) -> list[Ask]:
    """The measures that a complete run has not, or has of other weights, data or an earlier version.

    Raises:
        ConfigError: a measure needs weights that the run did not keep.
    """
    found = []
    for ask in asks:
        measure = make(ask)
        epochs = _epochs(run, ask, measure)
        before = read_measured(ask.file(run.path))
        if before is None or before.error or before.key != _key(run, ask, measure, epochs):
            found.append(ask)
    return found


def take(run: Run, asks: Sequence[Ask]) -> dict[str, str]:
    """Take those measures of a complete run that are missing, each into a file of its own.

    Returns:
        {measure: why it failed} of those that did; the run stays complete.
    """
    failed = {}
    data: DataModule | None = None
    with FileLock(run.path / ".lock"):  # another process may be at the same run
        for ask in missing(run, asks):
            measure = make(ask)
            epochs = _epochs(run, ask, measure)
            begun = time.monotonic()
            finding, error = Finding({}), ""
            try:
                data = data or run.datamodule()
                finding = _taken(run, measure, epochs, data)
            except Exception as problem:  # it is written down and named at the sweep's end
                error = " ".join(str(problem).split()) or type(problem).__name__
                if not isinstance(problem, ConfigError | ValueError | ArithmeticError):
                    error = f"{type(problem).__name__}: {error}"
                failed[ask.name] = error
            columns = {name: vars(measure.columns[name]) for name in finding.values if name in measure.columns}
            measured = Measured(
                ask.name,
                _key(run, ask, measure, epochs),
                columns,
                {name: [float(value) for value in values] for name, values in finding.values.items()},
                list(finding.rows),
                seconds=round(time.monotonic() - begun, 3),
                error=error,
            )
            write_measured(ask.file(run.path), measured, finding.files)
    return failed


def _epochs(run: Run, ask: Ask, measure: Measure) -> list[int]:
    """Completed epochs whose weights are needed before the end; the run has them."""
    wanted = sorted(measure.epochs(run.settings))
    kept = snapshot_files(run.path)
    if lacking := [epoch for epoch in wanted if epoch not in kept]:
        raise ConfigError(
            f"measures.{ask.name}: {run.path} has no weights of epoch {lacking[0]}, which were to be kept while it "
            f"trained; delete the folder and run its command again with measures=[{ask.name}]"
        )
    return wanted


def _key(run: Run, ask: Ask, measure: Measure, epochs: Collection[int]) -> str:
    """Hash of all that a measurement depends on."""
    kept = snapshot_files(run.path)
    weights = [*(file_digest(kept[epoch]) for epoch in epochs), run.weights_digest()]
    return digest([ask.node, measure.version, weights, run.result["dataset"]["sha256"], run.settings.seed])


def _taken(run: Run, measure: Measure, epochs: Sequence[int], data: DataModule) -> Finding:
    """The measurement, on the run's device and with its number of threads."""
    from lightning.pytorch.utilities.seed import isolate_rng

    from hw1.training import build
    from hw1.training.fit import threads

    settings, last = run.settings, int(run.result["epochs"])
    device = build.device(settings)
    with threads(settings.threads), isolate_rng():
        moments = [
            Weights(epoch, phase_of(settings, epoch), [net.to(device) for net in run.nets(kept)])
            for epoch, kept in [*((epoch, epoch) for epoch in epochs), (last, None)]
        ]
        return measure.take(Subject(moments, data.loss, data, settings.seed), {})


def phase_of(settings: RunSettings, epoch: int) -> str:
    """What had been minimised when so many epochs were complete."""
    objective = settings.objective
    searching = objective.minimise == SQUARED_GRADIENT_NORM and epoch > objective.after
    return "gradient_norm" if searching else "training"

"""Taking measures of finished runs: what is missing, and the measurements themselves. No torch until it measures."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from hw1 import preemption
from hw1.files import remove_parts
from hw1.lease import LostError, hold
from hw1.measures.protocol import Finding, Measure, Subject, Weights
from hw1.runs.measured import Ask, Measured, read_measured, write_measured
from hw1.runs.run import Run
from hw1.runs.weights import snapshot_files
from hw1.seeds import digest
from hw1.settings import ConfigError, RunSettings
from hw1.settings.code import code_of_node
from hw1.settings.construct import call
from hw1.stages import stage
from hw1.training.requeues import forget, measured_so_far, no_progress

if TYPE_CHECKING:
    from hw1.data import DataModule


def measure_of(ask: Ask) -> Measure:
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
    return {epoch for ask in asks for epoch in measure_of(ask).epochs(settings)}


def check(asks: Sequence[Ask], settings: RunSettings, parameters: int) -> None:
    """Refuse what a measure cannot be taken of.

    Raises:
        ConfigError: names the measure's setting.
    """
    for ask in asks:
        try:
            measure_of(ask).check(settings, parameters)
        except ValueError as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"measures.{ask.name}.{error}") from error


def missing(run: Run, asks: Sequence[Ask]) -> list[Ask]:
    """The measures that a complete run has not, or has of other weights, data or an earlier version.

    Raises:
        ConfigError: a measure needs weights that the run did not keep.
    """
    found = []
    for ask in asks:
        measure = measure_of(ask)
        epochs = _epochs(run, ask, measure)
        before = read_measured(ask.file(run.path))
        if before is None or before.error or before.key != _key(run, ask, measure, epochs):
            found.append(ask)
    return found


def measurement_key(run: Run, ask: Ask) -> str:
    """Hash of all that a measurement of a complete run depends on.

    Raises:
        ConfigError: the measure needs weights that the run did not keep.
    """
    measure = measure_of(ask)
    return _key(run, ask, measure, _epochs(run, ask, measure))


@dataclass(frozen=True)
class Taken:
    """What became of one measurement.

    Attributes:
        name: of the measure, with what its settings differ in.
        seconds: that it took.
        error: why it failed; "" if it did not.
    """

    name: str
    seconds: float
    error: str = ""


def take(run: Run, asks: Sequence[Ask], threads: int | None = None) -> list[Taken]:
    """Take those measures of a complete run that are missing, each into a file of its own; the run stays complete.

    Args:
        run: complete.
        asks: measures.
        threads: torch's, while it measures; the run's own, unless said.

    Raises:
        ConfigError: a measure needs weights that the run did not keep.
        LostError: another process took the run over while this one was silent.
        Preempted: the job was asked to stop; what is missing is taken next time. Where an engine has started it again
            and again and nothing more was measured, the rest fails instead.
    """
    taken = list[Taken]()
    data: DataModule | None = None
    with hold(run.path) as lease:  # another process may be at the same run
        if lease.succeeds:
            remove_parts(run.path)
        left = missing(run, asks)
        for place, ask in enumerate(left):
            measure = measure_of(ask)
            epochs = _epochs(run, ask, measure)
            begun = time.monotonic()
            measured, files = Measured(ask.name, _key(run, ask, measure, epochs)), dict[str, bytes]()
            try:
                preemption.require()
                data = data or run.datamodule()
                with stage(f"{run.slug}: {ask.name}"):
                    finding = _taken(run, measure, epochs, data, threads or run.settings.threads)
                measured, files = _checked(measured, measure, finding, run.count), dict(finding.files)
            except LostError:
                raise
            except preemption.Preempted:
                if not (said := no_progress(run.path, measured_so_far(run.path))):
                    raise
                return [*taken, *(_given_up(run, other, said) for other in left[place:])]
            except Exception as problem:  # it is written down, and named by the command
                error = " ".join(str(problem).split()) or type(problem).__name__
                if not isinstance(problem, ConfigError | ValueError | ArithmeticError):
                    error = f"{type(problem).__name__}: {error}"
                measured = replace(measured, error=error)
            measured = replace(measured, seconds=round(time.monotonic() - begun, 3))
            write_measured(ask.file(run.path), measured, files)
            taken.append(Taken(ask.name + ask.label, measured.seconds, measured.error))
        forget(run.path)
    return taken


def _given_up(run: Run, ask: Ask, why: str) -> Taken:
    write_measured(ask.file(run.path), Measured(ask.name, "", error=why), {})
    return Taken(ask.name + ask.label, 0.0, why)


def _checked(measured: Measured, measure: Measure, finding: Finding, members: int) -> Measured:
    """The measurement with what was found, if that is what a measure may give.

    Raises:
        ValueError: other columns than the measure's, other than one value a member, or rows that JSON cannot hold.
    """
    if unknown := [name for name in finding.values if name not in measure.columns]:
        raise ValueError(f"values: got {', '.join(unknown)}, expected some of its columns {', '.join(measure.columns)}")
    for name, values in finding.values.items():
        if len(values) != members:
            raise ValueError(f"{name}: got {len(values)} values, expected {members}, one a member")
    rows = [dict(row) for row in finding.rows]
    if wrong := [row for row in rows if not isinstance(row.get("member"), int) or not 0 <= row["member"] < members]:
        raise ValueError(f"rows: got {wrong[0]}, expected a member from 0 to {members - 1}")
    json.dumps(rows)
    return replace(
        measured,
        columns={name: vars(measure.columns[name]) for name in finding.values},
        values={name: [float(value) for value in values] for name, values in finding.values.items()},
        rows=rows,
    )


def _epochs(run: Run, ask: Ask, measure: Measure) -> list[int]:
    """Completed epochs whose weights are needed before the end; the run has them.

    Those at or behind the run's end are left out: training may have stopped early, and the end is measured anyway.
    """
    wanted = sorted(epoch for epoch in measure.epochs(run.settings) if epoch < int(run.result["epochs"]))
    kept = snapshot_files(run.path, run.removed)
    if lacking := [epoch for epoch in wanted if epoch not in kept]:
        raise ConfigError(
            f"measures.{ask.name}: {run.path} has no weights of epoch {lacking[0]}, which were to be kept while it "
            f"trained; delete the folder and run its command again with measures=[{ask.name}]"
        )
    return wanted


def _key(run: Run, ask: Ask, measure: Measure, epochs: Collection[int]) -> str:
    """Hash of all that a measurement depends on."""
    kept = snapshot_files(run.path, run.removed)
    weights = [*(run.digest_of(kept[epoch]) for epoch in epochs), run.weights_digest()]
    known = [ask.node, measure.version, weights, run.result["dataset"]["sha256"], run.settings.seed]
    code = code_of_node(ask.node)  # of the user's own measures; of others there is none, and their keys stay
    return digest([*known, code] if code else known)


def _taken(run: Run, measure: Measure, epochs: Sequence[int], data: DataModule, number: int) -> Finding:
    """The measurement, on the run's device, with so many threads."""
    from lightning.pytorch.utilities.seed import isolate_rng

    from hw1.training import build
    from hw1.training.process import threads

    settings, last = run.settings, int(run.result["epochs"])
    device = build.device(settings)
    with threads(number), isolate_rng():
        moments = [
            Weights(epoch, settings.objective.phase(epoch), [net.to(device) for net in run.nets(kept)])
            for epoch, kept in [*((epoch, epoch) for epoch in epochs), (last, None)]
        ]
        return measure.take(Subject(moments, data.loss, data, settings.seed), {})

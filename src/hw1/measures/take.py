"""Taking measures of finished runs: what is missing, and the measurements themselves. No torch until it measures."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hw1 import preemption
from hw1.files import remove_parts
from hw1.lease import LostError, hold
from hw1.measures.needs import expect
from hw1.measures.pieces import InPieces, Piece, Pieces, key_of_pieces
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

_T = TypeVar("_T")


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
    """Refuse what a measure cannot be taken of, and note the memory that the run takes.

    Raises:
        ConfigError: names the measure's setting.
    """
    measures = [measure_of(ask) for ask in asks]
    expect(settings, parameters, any(getattr(measure, "bounded", False) for measure in measures))
    for ask, measure in zip(asks, measures, strict=True):
        try:
            measure.check(settings, parameters)
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
                    work = functools.partial(_found, measure, pieces_of(run, ask, threads))
                    finding = _taken(run, measure, epochs, data, threads or run.settings.threads, work)
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
            if not measured.error:  # else what is there need not be computed again
                pieces_of(run, ask, threads).remove()
            taken.append(Taken(ask.name + ask.label, measured.seconds, measured.error))
        forget(run.path)
    return taken


def _given_up(run: Run, ask: Ask, why: str) -> Taken:
    write_measured(ask.file(run.path), Measured(ask.name, "", error=why), {})
    return Taken(ask.name + ask.label, 0.0, why)


def pieces_of(run: Run, ask: Ask, threads: int | None = None) -> Pieces:
    """Where the pieces of a measurement of a complete run stand, if its measure has some.

    Args:
        run: it.
        ask: the measure.
        threads: torch's, while it measures; the run's own, unless said. Bits depend on them.

    Raises:
        ConfigError: the measure needs weights that the run did not keep.
    """
    circumstances = [threads or run.settings.threads, run.settings.trainer.get("accelerator")]
    key = key_of_pieces(measurement_key(run, ask), *circumstances)
    return Pieces(run.path / "measures" / f".{ask.file(run.path).stem}.pieces", key)


def lacking_pieces(run: Run, asks: Sequence[Ask], threads: int | None = None) -> list[tuple[str, str]]:
    """(the name of the measurement's file, a piece) of all that the missing measures of a complete run lack.

    Raises:
        ConfigError: a measure needs weights that the run did not keep.
    """
    found = []
    for ask in missing(run, asks):
        measure = measure_of(ask)
        names = pieces_of(run, ask, threads).lacking(measure.pieces(run.count)) if isinstance(measure, InPieces) else []
        found += [(ask.file(run.path).name, name) for name in names]
    return found


def take_pieces(run: Run, asks: Sequence[Ask], wanted: Collection[tuple[str, str]], threads: int | None = None) -> None:
    """Compute some pieces of a run's measures, each into a file of its own; `take` then puts them together.

    The run is held by who launched this, or by nobody: each piece is held by itself.

    Args:
        run: complete.
        asks: measures.
        wanted: of these pieces, see `lacking_pieces`.
        threads: as there.

    Raises:
        LostError: another process took a piece over while this one was silent.
        ValueError: whatever the measure refuses.
    """
    data: DataModule | None = None
    for ask in asks:
        measure = measure_of(ask)
        names = [name for file, name in wanted if file == ask.file(run.path).name]
        if not names or not isinstance(measure, InPieces):
            continue
        data = data or run.datamodule()
        pieces, epochs = pieces_of(run, ask, threads), _epochs(run, ask, measure)
        with stage(f"{run.slug}: pieces of {ask.name}"):
            work = functools.partial(_filled, measure, pieces, names)
            _taken(run, measure, epochs, data, threads or run.settings.threads, work)


def _found(measure: Measure, pieces: Pieces, subject: Subject) -> Finding:
    """The finding, put together where the measure has pieces."""
    if not isinstance(measure, InPieces):
        return measure.take(subject, {})
    names = measure.pieces(len(subject.end.nets))
    return measure.assemble(subject, _filled(measure, pieces, names, subject))


def _filled(measure: InPieces, pieces: Pieces, names: Sequence[str], subject: Subject) -> dict[str, Piece]:
    return pieces.fill(names, lambda few, chunk: measure.compute(subject, few, chunk))


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


def _taken(
    run: Run, measure: Measure, epochs: Sequence[int], data: DataModule, number: int, work: Callable[[Subject], _T]
) -> _T:
    """What `work` makes of what is measured, on the run's device, with so many threads."""
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
        return work(Subject(moments, data.loss, data, settings.seed))

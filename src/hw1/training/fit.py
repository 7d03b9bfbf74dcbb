"""One run: skip, resume, fit, test, finish."""

import os
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng

from hw1 import preemption
from hw1.files import explained, remove_parts
from hw1.inside import refuse_links
from hw1.lease import LostError
from hw1.records import FORMAT, DamagedError, read_record
from hw1.sealed import is_whole
from hw1.seeds import mixed
from hw1.settings import ConfigError, RunSettings
from hw1.settings.processes import is_shared, processes
from hw1.settings.run_settings import LAST as LAST_WEIGHTS
from hw1.training import build, contents
from hw1.training.adopted import take_in
from hw1.training.checkpoint import (
    ENDED,
    LAST,
    MIDWAY,
    TEXT,
    AtomicCheckpointIO,
    EpochCheckpoint,
    recorded_in,
    require_own,
    resume_from,
    seal_earlier,
    steps_behind,
)
from hw1.training.contents import RESULT, SETTINGS, begin, end, note_data, require, snapshot_sums
from hw1.training.distributed_ranks import together
from hw1.training.distributed_share import SameWeights
from hw1.training.ending import EvaluatedWeights, measure_end
from hw1.training.heartbeat import Heartbeat
from hw1.training.histograms import WeightHistograms
from hw1.training.hyperparameters import hyperparameters
from hw1.training.made_with import commit, versions
from hw1.training.metrics_csv import MetricsCsv
from hw1.training.midway import StopsMidway
from hw1.training.process import closing_all, expected_warnings, interruptible, locked, threads, torch_switches
from hw1.training.progress import TrainingProgress
from hw1.training.requeues import forget, no_progress
from hw1.training.snapshots import SnapshotsAt
from hw1.training.step_loss import StepLoss
from hw1.training.step_records import median

# Importing lightning turns this on; without a GPU each optimizer step then asks the driver's library in vain (45 us).
if not Path("/dev/nvidiactl").exists():
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def fit(
    settings: RunSettings,
    folder: Path,
    overrides: Sequence[str] = (),
    snapshots: Collection[int] = (),
    beside: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train one run in its folder, or go on with it, or return what it has already come to.

    Everything stands in the folder under the run's own lease: a second process waits, then reuses the result. An
    exception during training does not leave this function; it becomes a result with status "failed".

    Args:
        settings: of the run.
        folder: `.../runs/<slug>-<key>`.
        overrides: the words of the command that made this run, for the record.
        snapshots: completed epochs whose weights are kept too; what trains is the same with and without.
        beside: files that stand in the folder before it trains, {path in the folder: text}.

    Returns:
        The content of result.json.

    Raises:
        ConfigError: the folder is not this run's.
        DamagedError: a link stands in it, which nothing is written through.
        LostError: another process took the run over while this one was silent.
        Preempted: the job was asked to stop; the run goes on from its last checkpoint next time. Where an engine has
            started it again and again and it came no further, it becomes a result with status "failed" instead.
        KeyboardInterrupt: the user interrupted; the run goes on from its last checkpoint next time.
    """
    key = settings.key
    if not folder.name.endswith(f"-{key}"):
        raise ConfigError(f"{folder} is not the folder of run {key}: start runs through train.py, which picks it")
    refuse_links(folder)  # before its lock is opened
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), isolate_rng():
        before = contents.known_result(folder)
        if before is not None and before["status"] == "complete":
            if SETTINGS in before.get("files", {}) and not (folder / "config.yaml").is_file():
                contents.write_again(folder, before)
            return before
        remove_parts(folder)  # what a killed process was writing, or one that is no longer to finish it
        (folder / RESULT).unlink(missing_ok=True)  # of a failed attempt
        first = not (folder / SETTINGS).exists()  # or the run was begun by an earlier version, which sealed nothing
        checkpoint = folder / "checkpoints" / "last.ckpt"
        if first and checkpoint.exists() and is_whole(checkpoint) is None:
            seal_earlier(checkpoint)
        if checkpoint.exists() and contents.begun(folder) is None:
            contents.restore_settings(folder, recorded_in(checkpoint).get(TEXT))
        begun = begin(folder, settings, overrides, beside or {}, resumed=checkpoint.exists())
        result = {
            "format": FORMAT,
            "status": "failed",
            "key": key,
            "name": settings.name,
            "overrides": list(overrides),
            "seed": settings.seed,
            "time": contents.now() if checkpoint.exists() else begun["time"],
            "versions": versions(),
            "git": commit(),
            "code": begun["code"],
            "settings": begun["settings"],
        }
        try:
            with threads(settings.threads):
                adopted = settings.value("adopted")
                result |= take_in(settings, folder) if adopted else _train(settings, folder, snapshots)
            result["status"] = "complete"
        except LostError:
            raise
        except preemption.Preempted:
            if not (said := no_progress(folder, {"step": steps_behind(checkpoint)})):
                raise
            result["error"] = said
        except Exception as error:
            result |= {"error": " ".join(str(error).split()), "traceback": traceback.format_exc()}
            if said := explained(error):
                result["error"] = said
            elif not isinstance(error, ArithmeticError | ConfigError | DamagedError):
                result["error"] = f"{type(error).__name__}: {result['error']}"
        forget(folder)
        end(folder, result)
        return read_record(folder / RESULT)


def _train(settings: RunSettings, folder: Path, snapshots: Collection[int]) -> dict[str, Any]:
    seeds = settings.member_seeds
    data, task = build.learner(settings, (0, processes(settings)))
    checkpoint = folder / "checkpoints" / LAST
    first_step, recorded = resume_from(checkpoint)
    if (midway := recorded.get(MIDWAY)) is not None:
        data.behind = midway["epoch"], midway["batches"]
    require(folder, recorded.get("snapshots", {}))
    if recorded.get(ENDED) == settings.key:  # nothing is trained, and so nothing is written over it
        require_own(checkpoint.with_name("epoch.ckpt"), settings.key)

    csv = MetricsCsv(folder, first_step, members=len(seeds), recorded=recorded.get("metrics"))
    kept: dict[str, str] = {}
    clock = EpochCheckpoint(
        settings.checkpoint_seconds,
        lambda epoch, member: mixed(seeds[member], "epoch", epoch),
        csv.sync,
        lambda: {"metrics": csv.record(), "snapshots": snapshot_sums(folder), **kept},
        settings.key,
        ended=recorded.get(ENDED) == settings.key,
        beyond=settings.weights != LAST_WEIGHTS,
    )
    evaluated = EvaluatedWeights()
    callbacks = [StepLoss(), *build.callbacks(settings), SnapshotsAt(snapshots), WeightHistograms(), Heartbeat()]
    callbacks += [evaluated, *([SameWeights()] if is_shared(settings) else []), clock]
    if settings.progress:
        callbacks.append(TrainingProgress(folder.name.rpartition("-")[0]))
    others = build.loggers(settings, folder, first_step)
    with (
        expected_warnings(),
        torch_switches(),
        closing_all(others),
        together(settings, folder, bool(first_step), recorded.get(ENDED) == settings.key) as strategy,
    ):
        trainer = build.trainer(settings, folder, callbacks, [csv, *others], strategy)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        StopsMidway(trainer, task, clock, evaluated, midway)
        # Before Lightning does: it reads a checkpoint of float64 weights into what is float32 until then.
        trainer.precision_plugin.convert_module(task)
        data.prepare_data()
        note_data(folder, data.identity())
        kept[TEXT] = (folder / SETTINGS).read_text(encoding="utf-8")
        for logger in others:
            logger.log_hyperparams(hyperparameters(settings.plain, data.sizes["train"]))
        with interruptible():
            trainer.fit(task.module, datamodule=data, ckpt_path=checkpoint if first_step else None, weights_only=True)
        seconds = clock.seconds_trained
        clock.settle(trainer, task)
        preemption.require()  # training has ended; what it came to is measured later
        metrics = measure_end(trainer, task, data, callbacks, evaluated)
        single = len(seeds) == 1
        middle = {name: values[0] if single else median(values) for name, values in metrics.items()}
        late = {name: value for name, value in middle.items() if name not in task.member_metrics}  # of callbacks
        for logger in others:
            if late:
                logger.log_metrics(late, step=trainer.global_step - 1)
            logger.finalize("success")
    csv.write()
    parameters = sum(parameter.numel() for parameter in task.net.parameters()) // len(seeds)
    return {
        "parameters": parameters,
        "replicas": len(seeds),
        "metrics": middle if single else metrics,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 3),
        "dataset": {"name": data.name, "source": data.source, **data.sizes, "sha256": data.identity()},
        "constant": data.constant_metrics(),  # what a net that learned nothing comes to
    }

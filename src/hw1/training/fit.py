"""One run: skip, resume, fit, test, finish."""

import contextlib
import datetime
import logging
import os
import shutil
import signal
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from filelock import FileLock, Timeout
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.seed import isolate_rng

from hw1.data import DataModule
from hw1.files import replacing
from hw1.records import FORMAT, DamagedError, read_record
from hw1.sealed import is_whole, seal
from hw1.seeds import mixed
from hw1.settings import ConfigError, RunSettings
from hw1.training import build
from hw1.training.adopted import take_in
from hw1.training.checkpoint import RECORDED, AtomicCheckpointIO, EpochCheckpoint
from hw1.training.contents import RESULT, SETTINGS, begin, end, note_data, require, snapshot_sums, stored
from hw1.training.heartbeat import Heartbeat
from hw1.training.histograms import WeightHistograms
from hw1.training.hyperparameters import hyperparameters
from hw1.training.made_with import commit, versions
from hw1.training.metrics_csv import MetricsCsv
from hw1.training.progress import TrainingProgress
from hw1.training.snapshots import SnapshotsAt
from hw1.training.step_loss import StepLoss
from hw1.training.step_records import median
from hw1.training.task import Task

log = logging.getLogger(__name__)

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

    Everything stands in the folder under the run's own lock: a second process waits, then reuses the result. An
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
        KeyboardInterrupt: the user interrupted; the run goes on from its last checkpoint next time.
    """
    key = settings.key
    if not folder.name.endswith(f"-{key}"):
        raise ConfigError(f"{folder} is not the folder of run {key}: start runs through train.py, which picks it")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder), isolate_rng():
        before = stored(folder / RESULT)
        if before is not None and before["status"] == "complete":
            return before
        for torn in folder.rglob(".*.part"):  # what a killed process was writing; the lock says that it is gone
            torn.unlink()
        first = not (folder / SETTINGS).exists()  # or the run was begun by an earlier version, which sealed nothing
        checkpoint = folder / "checkpoints" / "last.ckpt"
        if first and checkpoint.exists() and is_whole(checkpoint) is None:
            _seal(checkpoint)
        begun = begin(folder, settings, overrides, beside or {}, resumed=checkpoint.exists())
        result = {
            "format": FORMAT,
            "status": "failed",
            "key": key,
            "name": settings.name,
            "overrides": list(overrides),
            "seed": settings.seed,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
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
        except Exception as error:
            result |= {"error": " ".join(str(error).split()), "traceback": traceback.format_exc()}
            if not isinstance(error, ArithmeticError | ConfigError | DamagedError):
                result["error"] = f"{type(error).__name__}: {result['error']}"
        end(folder, result)
        return read_record(folder / RESULT)


def _train(settings: RunSettings, folder: Path, snapshots: Collection[int]) -> dict[str, Any]:
    seeds = settings.member_seeds
    data = build.with_loss(build.training_data(settings), settings)
    data.order_seeds = [mixed(seed, "order") for seed in seeds]
    net = build.network(settings, data, seeds)
    task = build.task(net, settings, data)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    first_step, recorded = _resume_from(checkpoint)
    require(folder, recorded.get("snapshots", {}))

    csv = MetricsCsv(folder, first_step, members=len(seeds), recorded=recorded.get("metrics"))
    clock = EpochCheckpoint(
        settings.checkpoint_seconds,
        lambda epoch, member: mixed(seeds[member], "epoch", epoch),
        csv.write,
        lambda: {"metrics": csv.record(), "snapshots": snapshot_sums(folder)},
    )
    callbacks = [StepLoss(), *build.callbacks(settings), SnapshotsAt(snapshots), WeightHistograms(), Heartbeat(), clock]
    if settings.progress:
        callbacks.append(TrainingProgress(folder.name.rpartition("-")[0]))
    others = build.loggers(settings, folder, first_step)
    with expected_warnings(), closing_all(others):
        trainer = build.trainer(settings, folder, callbacks, [csv, *others])
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        data.prepare_data()
        note_data(folder, data.identity())
        for logger in others:
            logger.log_hyperparams(hyperparameters(settings.plain, data.sizes["train"]))
        with _interruptible():
            trainer.fit(task.module, datamodule=data, ckpt_path=checkpoint if first_step else None, weights_only=True)
        seconds = clock.seconds_trained
        metrics = _test(trainer, task, data, callbacks)
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
        "seconds": round(seconds, 3),
        "dataset": {"name": data.name, "source": data.source, **data.sizes, "sha256": data.identity()},
        "constant": data.constant_metrics(),  # what a net that learned nothing comes to
    }


def _test(
    trainer: lightning.Trainer, task: Task, data: DataModule, callbacks: Sequence[Callback]
) -> dict[str, list[float]]:
    # The weights in memory are those of the last checkpoint and snapshot; exact whole-set means, as in every epoch.
    # The last epoch's evaluation, if it is of these weights and nothing else looks at the test, need not be repeated.
    limits = (trainer.limit_val_batches, trainer.limit_test_batches)
    whole = all(isinstance(limit, float) and limit == 1 for limit in limits)  # the integer 1 is one batch
    if not whole or task.evaluated_at != trainer.global_step or any(_may_test(callback) for callback in callbacks):
        with _interruptible():
            trainer.test(task.module, datamodule=data, verbose=False, weights_only=True)
    # A callback may have measured more than the task, one value a member or a single one for all.
    measured = {name: [float(value)] for name, value in trainer.callback_metrics.items() if "/" in name}
    return {**measured, **task.member_metrics, **task.measured}


def _may_test(callback: Callback) -> bool:
    """Whether a callback does something when the end is tested, or is not hw1's: it may change the weights before."""
    hooks = [name for name in dir(Callback) if name.startswith("on_test_")]
    own = any(getattr(type(callback), name) is not getattr(Callback, name) for name in hooks)
    return own or not type(callback).__module__.startswith("hw1.")


def _seal(checkpoint: Path) -> None:
    """Seal a checkpoint of an earlier version, in one step."""
    with replacing(checkpoint) as temporary:
        shutil.copyfile(checkpoint, temporary)
        with contextlib.suppress(ValueError, OSError):  # no checkpoint at all: said when it is read
            seal(temporary)


def _resume_from(checkpoint: Path) -> tuple[int, dict[str, Any]]:
    """The number of steps that a checkpoint has behind it, and what it recorded of other files; 0 without one."""
    if not checkpoint.exists():
        return 0, {}
    try:
        if not is_whole(checkpoint):
            raise ValueError("it is not what was written")
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a damaged file makes of unpickling
        raise ConfigError(
            f"{checkpoint} cannot be read ({' '.join(str(error).split())[:120]}); delete it to train from the start"
        ) from error
    log.info(
        "%s: resuming from checkpoints/last.ckpt (epoch %d, step %d)",
        checkpoint.parent.parent.name,
        state["epoch"] + 1,
        state["global_step"],
    )
    return int(state["global_step"]), dict(state.get(RECORDED, {}))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The run's own lock; says so if another process has it."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: another process is at it; waiting for its result", folder.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Torch's thread count is `number` inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lightning ignores SIGINT after the first and leaves by sys.exit(1): make it a KeyboardInterrupt again."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def closing_all(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close what a logger holds open, of those that can `close`: Lightning's `finalize` ends each of its own steps."""
    try:
        yield
    finally:
        for logger in loggers:
            if (close := getattr(logger, "close", None)) is not None:
                close()


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silence what Lightning warns of and is done on purpose here, one message at a time."""
    with warnings.catch_warnings():
        # Data lie in memory as tensors: worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Lightning 2.6 asks torch 2.15's pytrees in a deprecated way.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        yield

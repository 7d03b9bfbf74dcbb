"""How long a run would train and how much it would write, from a few of its steps on this machine."""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden

from hw1.settings import RunSettings
from hw1.settings.construct import target_of
from hw1.settings.identity import WITHOUT_EFFECT, without
from hw1.settings.run_settings import LOSS
from hw1.training import build
from hw1.training.adopted import weights_path
from hw1.training.flags import Situation
from hw1.training.metrics_csv import MetricsCsv
from hw1.training.process import closing_all, expected_warnings, threads
from hw1.training.step_loss import StepLoss
from hw1.training.tensorboard import tensorboard_logger
from hw1.training.weights_file import files_of

# What changes the result of a run but not its cost.
_SAME_COST = (
    *("seed", "init", "dataset.seed", "dataset.noise_seed", "dataset.corruption", "dataset.noise", "dataset.function"),
    *("optimizer.lr", "optimizer.weight_decay", "optimizer.momentum"),
)
_TIMED_SECONDS = 1.0  # of training, for each kind of run
_TIMED_BATCHES = 10  # of an epoch, and of each set that is evaluated


@dataclass(frozen=True)
class Cost:
    """What one run would cost.

    Attributes:
        seconds: of training and evaluation, without what measures take afterwards.
        size: bytes of snapshots, checkpoint and logs, without the snapshots that only measures ask for.
    """

    seconds: float
    size: int


def cost_group(settings: RunSettings) -> str:
    """Text that runs of one cost share."""
    return json.dumps(without(settings.plain, [*WITHOUT_EFFECT, *_SAME_COST]), sort_keys=True, default=str)


def seconds_of(epochs: int, steps: int, evaluations: int, step: float, epoch: float, evaluation: float) -> float:
    """Seconds of `epochs` of `steps` batches each, from seconds a step, an epoch besides its steps, an evaluation.

    Example:
        >>> seconds_of(10, 100, 11, step=0.01, epoch=0.1, evaluation=1.0)
        22.0
    """
    return epochs * (steps * step + epoch) + evaluations * evaluation


def bytes_of(weights: int, state: int, epochs: int, every: int | None, snapshots: bool, log: float) -> int:
    """Bytes that a run leaves: snapshots of the weights, one checkpoint, logs.

    Args:
        weights: bytes of all parameters.
        state: bytes of the optimizer's state: twice the weights for Adam.
        epochs: number of epochs.
        every: epochs between two snapshots; None for the first and the last only.
        snapshots: whether there are any.
        log: bytes of all logs.

    Example:
        >>> bytes_of(weights=100, state=200, epochs=10, every=3, snapshots=True, log=0)  # at 0, 3, 6, 9 and 10
        800
    """
    moments = {0, epochs, *range(0, epochs + 1, every or epochs)}
    return weights * len(moments) * snapshots + weights + state + round(log)


def cost_of(settings: RunSettings) -> Cost:
    """Train a run for about a second in a folder that is thrown away, and extrapolate; the data are the run's own."""
    if settings.value("adopted"):  # nothing is trained
        return Cost(0.0, sum(file.stat().st_size for file in files_of(weights_path(settings))))
    before = settings.objective.after
    whole = settings.max_epochs if settings.max_steps is None else settings.epochs_of(_steps(settings))
    phases = [(LOSS, before), (settings.objective.minimise, whole - before)]
    seconds, size = 0.0, 0
    for minimise, epochs in phases:
        if epochs:
            part = _phase(settings, minimise, epochs, whole)
            seconds += part.seconds
            size = max(size, part.size)
    return Cost(seconds, size)


class _Clock(Callback):
    """Notes when batches and epochs begin, and stops the training when it has seen enough."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.epochs: list[list[float]] = []
        self.ends: list[float] = []

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not self.epochs:
            self.begun = time.monotonic()
        self.epochs.append([])

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.epochs[-1].append(time.monotonic())

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.ends.append(time.monotonic())
        if len(self.ends) > 1 and self.ends[-1] - self.begun > _TIMED_SECONDS:
            trainer.should_stop = True

    def times(self) -> tuple[float, float]:
        """Seconds a step, and seconds an epoch takes besides its steps."""
        gaps = [later - one for batches in self.epochs for one, later in pairwise(batches)]
        step = median(gaps) if gaps else 0.0
        periods = [later - one for one, later in pairwise(self.ends)]
        return step, max(0.0, median(periods) - len(self.epochs[-1]) * step)


def _steps(settings: RunSettings) -> int:
    """Optimizer steps an epoch."""
    data = build.datamodule(settings.dataset)
    data.prepare_data()
    return -(
        -Situation(settings, len(data.train_dataloader())).epoch_batches
        // int(settings.trainer.get("accumulate_grad_batches", 1))
    )


def _phase(settings: RunSettings, minimise: str, epochs: int, whole: int) -> Cost:
    """Cost of `epochs` of the run's `whole` epochs under one objective."""
    short: dict[str, Any] = {"max_epochs": 10**6, "max_steps": -1, "check_val_every_n_epoch": 10**6}
    short |= {"val_check_interval": None, "limit_train_batches": _TIMED_BATCHES, "limit_val_batches": _TIMED_BATCHES}
    short |= {"strategy": "auto", "devices": 1, "num_nodes": 1}  # in one process, whose time is not shorter
    asked = settings
    every = settings.trainer.get("check_val_every_n_epoch") or whole
    node = {**settings.value("trainer"), **short}
    # A schedule costs nothing, and some end where so many epochs do not.
    changed = {"trainer": node, "objective": {"minimise": minimise, "after": 0}, "scheduler": None}
    settings = RunSettings.check({**settings.plain, **changed})
    with tempfile.TemporaryDirectory() as name, threads(settings.threads), expected_warnings():
        folder = Path(name)
        seeds = settings.member_seeds
        data = build.with_loss(build.training_data(settings), settings)
        data.order_seeds = seeds
        task = build.task(build.network(settings, data, seeds), settings, data)
        csv, clock = MetricsCsv(folder, members=len(seeds)), _Clock()
        others = build.loggers(_in_the_folder(settings), folder, 0)
        callbacks = [StepLoss(), *build.callbacks(settings), clock]
        trainer = build.trainer(settings, folder, callbacks, [csv, *others])
        with closing_all(others):
            trainer.fit(task.module, datamodule=data)
            begun = time.monotonic()
            if is_overridden("validation_step", task.module):  # a user's own module may have none
                trainer.validate(task.module, datamodule=data, verbose=False)
        batches = [len(loader) for loader in data.val_dataloader()]
        share = sum(min(_TIMED_BATCHES, number) for number in batches) / sum(batches)
        evaluation = (time.monotonic() - begun) / share
        csv.write()
        logged = sum(file.stat().st_size for file in folder.glob("*") if file.is_file()) / trainer.global_step
        steps = Situation(asked, len(data.train_dataloader())).epoch_batches
        step, epoch = clock.times()
        before = 0 if asked.trainer.get("limit_val_batches") == 0 else epochs // every
        seconds = seconds_of(epochs, steps, before + 1, step, epoch, evaluation)
        weights = _bytes(dict(task.net.named_parameters()))
        state = sum(_bytes(entry) for entry in trainer.optimizers[0].state.values())
        taken = _snapshots(settings)
        size = bytes_of(
            weights, state, whole, (taken or {}).get("every_n_epochs"), taken is not None, whole * steps * logged
        )
    return Cost(seconds, size)


def _in_the_folder(settings: RunSettings) -> RunSettings:
    """The settings with those loggers alone that write into the run's folder: no service hears of an estimate."""
    nodes = settings.logger.items()
    events = {name: node for name, node in nodes if target_of(node, f"logger.{name}") is tensorboard_logger}
    return replace(settings, logger=events)


def _snapshots(settings: RunSettings) -> Mapping[str, Any] | None:
    """The node of the callback whose class says that it writes snapshots; None if there is none."""
    nodes = settings.callbacks.items()
    return next(
        (node for name, node in nodes if getattr(target_of(node, f"callbacks.{name}"), "snapshots", False)), None
    )


def _bytes(tensors: Mapping[str, Any]) -> int:
    return sum(value.nbytes for value in tensors.values() if isinstance(value, torch.Tensor))

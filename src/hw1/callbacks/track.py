"""Any measure along the training."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from hw1.measures.protocol import Measure, Subject, Weights
from hw1.models import members_of
from hw1.settings import RunSettings
from hw1.settings.run_settings import Objective
from hw1.training.step_records import log_members
from hw1.training.task import Task

log = logging.getLogger(__name__)

WITHIN = 0.5  # of an epoch: some of its steps have been taken


class Track(Callback):
    """Takes measures of the weights every N steps or epochs while a run trains, and logs their columns as metrics.

    A measure that can start from its last result does. What it finds is recorded while training, so its settings are
    part of the run's key; measures of the weights at the end are better asked for by `measures=`, which changes no
    key. Nothing that training draws or computes is changed by it, and where a measure fails the run goes on: its
    columns are NaN there.

    Args:
        measure: {name: measure}.
        every_n_steps: distance between two measurements, in optimizer steps; null for none by steps.
        every_n_epochs: distance in epochs; null for none by epochs.
        seed: of the run, for the measures' randomness.

    Raises:
        ValueError: not exactly one of the distances is given, or it is not positive, or a measure has settings that
            make no sense while training.
    """

    def __init__(
        self, measure: Mapping[str, Measure], every_n_steps: int | None, every_n_epochs: int | None, seed: int
    ) -> None:
        if (every_n_steps is None) == (every_n_epochs is None):
            raise ValueError(
                f"every_n_steps: got {every_n_steps} beside every_n_epochs={every_n_epochs}, expected one of the two "
                "and null for the other"
            )
        for name, value in (("every_n_steps", every_n_steps), ("every_n_epochs", every_n_epochs)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected a positive integer or null")
        if not measure:
            raise ValueError("measure: got none, expected one as measures@callbacks.track.measure=sharpness")
        for name, one in measure.items():
            try:
                one.check_tracked()
            except ValueError as error:
                raise ValueError(f"measure.{name}.{error}") from error
        self._measures = dict(measure)
        self._steps, self._epochs, self._seed = every_n_steps, every_n_epochs, seed
        self._memory: dict[str, dict[str, Tensor]] = {}
        self._columns = {name: list(one.columns) for name, one in self._measures.items()}  # those that apply, if known
        self._last_step = 0
        self._warned: set[str] = set()

    def check_run(self, settings: RunSettings, parameters: int) -> None:
        """Refuse a run that a measure cannot be taken of, before anything trains.

        Args:
            settings: of the run.
            parameters: P, of one member.

        Raises:
            ValueError: the message begins with the measure's setting.
        """
        for name, measure in self._measures.items():
            try:
                measure.check(settings, parameters)
            except ValueError as error:
                raise ValueError(f"measure.{name}.{error}") from error

    @property
    def state_key(self) -> str:
        """Tells several of them apart in a checkpoint."""
        return self._generate_state_key(
            measures=sorted(self._measures), every_n_steps=self._steps, every_n_epochs=self._epochs
        )

    def state_dict(self) -> dict[str, Any]:
        """What the measures start from next, for a run that is resumed."""
        return {"memory": self._memory, "columns": self._columns, "last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on."""
        self._memory, self._columns = state_dict["memory"], state_dict["columns"]
        self._last_step = state_dict["last_step"]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure every N steps."""
        step = trainer.global_step
        if self._steps is not None and step % self._steps == 0 and step != self._last_step:
            self._take(trainer, Task.of(pl_module), trainer.current_epoch, WITHIN)
        self._last_step = step  # with accumulated gradients several batches share one

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measure every N epochs. Runs before the checkpoint of the epoch."""
        completed = trainer.current_epoch + 1
        if self._epochs is not None and completed % self._epochs == 0:
            self._take(trainer, Task.of(pl_module), completed)

    def _take(self, trainer: lightning.Trainer, task: Task, epoch: int, further: float = 0.0) -> None:
        """Measure and log.

        Args:
            trainer: of the run.
            task: of the run.
            epoch: completed epochs.
            further: the part of the next epoch that is done.
        """
        if not trainer.is_global_zero:  # of several processes, the first measures for all
            return
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by fit(datamodule=...)
        phase = Objective(task.objective, task.objective_after).phase(epoch + further)
        metrics: dict[str, list[float]] = {}
        with isolate_rng(), torch.inference_mode(False), torch.enable_grad():
            several = task.members > 1
            nets = [net.eval() for net in (members_of(task.net) if several else [copy.deepcopy(task.net)])]
            subject = Subject([Weights(epoch, phase, nets)], task.loss, data, self._seed)
            for name, measure in self._measures.items():
                try:
                    found = measure.take(subject, self._memory.get(name, {}))
                except (ValueError, ArithmeticError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
                    metrics |= {column: [math.nan] * task.members for column in self._columns[name]}
                    self._warn(name, trainer.global_step, error)
                    continue
                self._memory[name], self._columns[name] = dict(found.memory), list(found.values)
                metrics |= {column: list(values) for column, values in found.values.items()}
        log_members(trainer, [(trainer.global_step - 1, metrics)])

    def _warn(self, name: str, step: int, error: Exception) -> None:
        """Say why a measure failed, the first time that it does."""
        if name not in self._warned:
            self._warned.add(name)
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning("%s could not be measured after step %d: %s; NaN stands there", name, step, reason)

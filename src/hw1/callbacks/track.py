"""Any measure along the training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from hw1.measures.protocol import Measure, Subject, Weights
from hw1.models import members_of
from hw1.settings.run_settings import SQUARED_GRADIENT_NORM
from hw1.training.step_records import log_members
from hw1.training.task import Task


class Track(Callback):
    """Takes measures of the weights every N steps or epochs while a run trains, and logs them as metrics.

    A measure that can start from its last result does. What it finds is recorded while training, so its settings are
    part of the run's key; measures of the weights at the end are better asked for by `measures=`, which changes no
    key. Nothing that training draws or computes is changed by it.

    Args:
        measure: {name: measure}.
        every_n_steps: distance between two measurements, in optimizer steps; null for none by steps.
        every_n_epochs: distance in epochs; null for none by epochs.
        seed: of the run, for the measures' randomness.

    Raises:
        ValueError: not exactly one of the distances is given, or it is not positive.
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
        self._measures = dict(measure)
        self._steps, self._epochs, self._seed = every_n_steps, every_n_epochs, seed
        self._memory: dict[str, dict[str, Tensor]] = {}
        self._last_step = 0

    def state_dict(self) -> dict[str, Any]:
        """What the measures start from next, for a run that is resumed."""
        return {"memory": self._memory}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on."""
        self._memory = state_dict["memory"]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure every N steps."""
        step = trainer.global_step
        if self._steps is not None and step % self._steps == 0 and step != self._last_step:
            self._take(trainer, pl_module, trainer.current_epoch)
        self._last_step = step  # with accumulated gradients several batches share one

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measure every N epochs. Runs before the checkpoint of the epoch."""
        completed = trainer.current_epoch + 1
        if self._epochs is not None and completed % self._epochs == 0:
            self._take(trainer, pl_module, completed)

    def _take(self, trainer: lightning.Trainer, task: lightning.LightningModule, epoch: int) -> None:
        assert isinstance(task, Task)
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by fit(datamodule=...)
        searching = task.objective == SQUARED_GRADIENT_NORM and epoch > task.objective_after
        phase = "gradient_norm" if searching else "training"
        metrics: dict[str, list[float]] = {}
        with isolate_rng(), torch.inference_mode(False), torch.enable_grad():
            several = task.members > 1
            nets = [net.eval() for net in (members_of(task.net) if several else [copy.deepcopy(task.net)])]
            subject = Subject([Weights(epoch, phase, nets)], task.loss, data, self._seed)
            for name, measure in self._measures.items():
                found = measure.take(subject, self._memory.get(name, {}))
                self._memory[name] = dict(found.memory)
                metrics |= {column: list(values) for column, values in found.values.items()}
        log_members(trainer, [(trainer.global_step - 1, metrics)])

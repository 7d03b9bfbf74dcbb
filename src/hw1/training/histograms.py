"""Histograms of the weights along the training, for a logger that asks for them."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import Callback

from hw1.models import members_of
from hw1.training.task import Task
from hw1.training.tensorboard import TensorBoard


class WeightHistograms(Callback):
    """Histograms of every parameter, named `weights/<parameter>`, at the initialisation and after every N epochs.

    N is the logger's `histograms_every_n_epochs`; a step is the number of those behind it. Of several members the first
    one's are shown: pooled they would be the histogram of no network. A parameter that is not finite has none.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The initialisation; a resumed run has it already."""
        if trainer.global_step == 0:
            self._add(trainer, Task.of(pl_module), 0)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """After an epoch."""
        self._add(trainer, Task.of(pl_module), trainer.current_epoch + 1)

    def _add(self, trainer: lightning.Trainer, task: Task, epoch: int) -> None:
        for logger in trainer.loggers:
            every = logger.histograms_every_n_epochs if isinstance(logger, TensorBoard) else None
            if isinstance(logger, TensorBoard) and every and epoch % every == 0:
                finite = [(n, v.detach()) for n, v in members_of(task.net)[0].named_parameters() if v.isfinite().all()]
                for name, values in finite:
                    logger.experiment.add_histogram(f"weights/{name}", values, trainer.global_step)

"""The path of the weights: the network's tensors at initialisation, every N epochs and at the end."""

from pathlib import Path
from typing import ClassVar

import lightning
from lightning.pytorch.callbacks import Callback

from hw1.training.snapshots import save_snapshot
from hw1.training.task import Task


class WeightSnapshots(Callback):
    """Writes `<run>/snapshots/epoch=<completed epochs>.safetensors`.

    Each file holds the network's tensors by name (see `save_snapshot`), so that one layer can be read over all
    snapshots without the rest (see `Run.snapshots`).

    Args:
        every_n_epochs: distance between two snapshots; null for the first and the last only.

    Raises:
        ValueError: `every_n_epochs` is not positive.
    """

    snapshots: ClassVar[bool] = True  # what studies and the estimate of a run's cost look for in a callback's class

    def __init__(self, every_n_epochs: int | None) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"every_n_epochs: got {every_n_epochs}, expected a positive integer or null")
        self._every = every_n_epochs

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The initialisation; a resumed run has it already."""
        if trainer.global_step == 0:
            self._save(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Every N epochs, and the last. Runs before the checkpoint of the epoch, so that a resumed run lacks none."""
        completed = trainer.current_epoch + 1
        due = self._every is not None and completed % self._every == 0
        if due or completed == trainer.max_epochs:
            self._save(trainer, pl_module, completed)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The end, also where another callback stopped the training early."""
        self._save(trainer, pl_module, trainer.current_epoch)

    def _save(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, epoch: int) -> None:
        if trainer.is_global_zero:
            save_snapshot(Task.of(pl_module).net, Path(trainer.default_root_dir), epoch)

"""One progress bar for a whole training."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm


class TrainingProgress(Callback):
    """A bar over all steps of a run, with the last evaluation beside it; on a terminal, and not in workers.

    Args:
        name: what stands before the bar.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the bar, at the step from which a resumed run goes on."""
        if sys.stderr.isatty() and multiprocessing.current_process().name == "MainProcess":
            total = (trainer.max_epochs or 0) * int(trainer.num_training_batches)
            self._bar = tqdm(
                total=total, initial=trainer.global_step, desc=self._name, unit="step", leave=False, mininterval=0.5
            )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step."""
        if self._bar is not None:
            self._bar.update()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the metrics of the whole test set."""
        if self._bar is not None:
            metrics = {k: f"{float(v):.4g}" for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
            self._bar.set_postfix(metrics, refresh=False)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the error stands on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

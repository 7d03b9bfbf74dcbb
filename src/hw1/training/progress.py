"""How far a training has come: a bar on a terminal, or word of it to the process that draws the bars of several."""

from __future__ import annotations

import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from hw1 import stages


class TrainingProgress(Callback):
    """A bar over all steps of a run, with the last evaluation beside it; on a terminal, and not in workers.

    Args:
        name: what stands before the bar.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._line: stages.Line | None = None
        self._first, self._total = 0, 0
        self._notes: tuple[str, ...] = ()
        self._begun = self._told = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the bar, at the step from which a resumed run goes on."""
        self._first, self._begun = trainer.global_step, time.monotonic()
        self._total = int(trainer.estimated_stepping_batches)
        self._line = stages.Line() if stages.watcher is None and stages.draws() else None
        self._tell(trainer.global_step)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step."""
        if time.monotonic() - self._told >= stages.EVERY:
            self._tell(trainer.global_step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the metrics of the whole test set."""
        metrics = {k: f"{float(v):.4g}" for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
        self._notes = tuple(f"{name}={value}" for name, value in metrics.items())

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._tell(trainer.global_step)
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the error stands on a line of its own."""
        self._close()

    def _tell(self, step: int) -> None:
        self._told = time.monotonic()
        if stages.watcher is not None:
            stages.watcher((self._name, step, self._total, self._notes))
        elif self._line is not None:
            self._line.draw(self._name, step, self._total, self._told - self._begun, self._notes, self._first)

    def _close(self) -> None:
        if self._line is not None:
            self._line.clear()
            self._line = None

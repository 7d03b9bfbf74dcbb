"""How far a training has come: a bar on a terminal, or word of it to the process that draws the bars of several."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

# In a worker: who is told (name, step, steps in all, notes) instead of a bar's being drawn here.
watcher: Callable[[tuple[str, int, int, tuple[str, ...]]], None] | None = None
_EVERY = 0.5  # seconds between two tellings, at least


class TrainingProgress(Callback):
    """A bar over all steps of a run, with the last evaluation beside it; on a terminal, and not in workers.

    Args:
        name: what stands before the bar.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm[Any] | None = None
        self._total = 0
        self._notes: tuple[str, ...] = ()
        self._told = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the bar, at the step from which a resumed run goes on."""
        self._total = (trainer.max_epochs or 0) * int(trainer.num_training_batches)
        if watcher is None and sys.stderr.isatty() and multiprocessing.current_process().name == "MainProcess":
            first = trainer.global_step
            self._bar = tqdm(
                total=self._total, initial=first, desc=self._name, unit="step", leave=False, mininterval=0.5
            )
        self._tell(trainer.global_step)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step."""
        if self._bar is not None:
            self._bar.update()
        if watcher is not None and time.monotonic() - self._told >= _EVERY:
            self._tell(trainer.global_step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the metrics of the whole test set."""
        metrics = {k: f"{float(v):.4g}" for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
        self._notes = tuple(f"{name}={value}" for name, value in metrics.items())
        if self._bar is not None:
            self._bar.set_postfix(metrics, refresh=False)

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
        if watcher is not None:
            watcher((self._name, step, self._total, self._notes))
            self._told = time.monotonic()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
